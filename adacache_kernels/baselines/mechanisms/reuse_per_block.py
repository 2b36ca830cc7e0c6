"""AdaCache per layer: each block runs, or adds its stored residual, by its own schedule."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...engine.reports.user_warnings import IN_PLACE, UserWarnings
from ...models import Adapter
from ...models.block_calls import versions
from ...models.block_stand_in import BlockCall, Streams
from ..adacache_per_layer import AdaCachePerLayerPolicy
from ..counters import Counters
from .block_visits import Key, NumberedBlock, numbered_blocks, visited
from .mechanism import Mechanism, Method, Original, Step, Video


@dataclass
class LayerBranch:
    """The state of one guidance branch.

    Args:
        name: name of the branch.
        residuals: the stored residual of each block.
        steps: the step of each of them.
    """

    name: str
    residuals: dict[Key, Streams] = field(default_factory=dict)
    steps: dict[Key, int] = field(default_factory=dict)

    def forget(self) -> None:
        """Remove everything that is stored."""
        self.residuals.clear()
        self.steps.clear()

    def tensors(self) -> list[Tensor]:
        """Return all tensors that are stored."""
        return [x for streams in self.residuals.values() for x in streams if x is not None]


class LayerReuse(Mechanism[LayerBranch]):
    """A mechanism in which each block has its own schedule.

    The first guidance branch measures, and decides for the others. The distances of a step stay on
    the device until the next step begins; then they are read together.

    Args:
        model: the transformer.
        adapter: the adapter of its class.
        config: makes the policy of each block in each generation.
        warnings: the warnings of the model.
    """

    decides_by_content = True

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        config: Method[AdaCachePerLayerPolicy],
        warnings: UserWarnings,
    ) -> None:
        super().__init__()
        self._model, self._config, self._warnings = model, config, warnings
        self._blocks = numbered_blocks(model, adapter)
        self._policies: dict[Key, AdaCachePerLayerPolicy] = {}
        self._reused: set[Key] = set()
        self._leader: LayerBranch | None = None
        self._distances: dict[Key, Tensor | None] = {}

    def begin(self, num_steps: int, counters: Counters) -> None:
        """Begin a generation."""
        super().begin(num_steps, counters)
        self._policies = {block.key: self._config.policy(num_steps) for block in self._blocks}
        self._distances = {}

    def branch(self, name: str) -> LayerBranch:
        """Return the state of a new guidance branch."""
        return LayerBranch(name)

    def begin_step(self, step: Step, branches: Mapping[str, LayerBranch]) -> None:
        """Begin a step: read the distances of the last one and decide for each block."""
        super().begin_step(step, branches)
        self._observe_distances(self._step - 1)
        self._reused = {key for key, policy in self._policies.items() if policy.reuses(self._step)}
        self._leader = next(iter(branches.values()))

    def run(self, branch: LayerBranch, _video: Video, original: Original) -> Any:
        """Run one forward call and return the model's output."""

        def visit(block: NumberedBlock, call: BlockCall) -> Any:
            entering = block.entering(call)
            stored = branch.residuals.get(block.key)
            wanted = block.key in self._reused
            computed = not wanted or stored is None
            self._counters.count(self._step, computed=computed)
            if wanted and stored is not None:
                return call.output(block.blocks, _sums(entering, stored))
            if wanted:
                self._counters.missed(branch.name, self._step)
            return self._compute(branch, block, entering, call)

        with visited(self._model, self._blocks, visit):
            return original()

    def _compute(
        self, branch: LayerBranch, block: NumberedBlock, entering: Streams, call: BlockCall
    ) -> Any:
        before = versions(entering)
        output = call.run()
        if before != versions(entering):
            self._warnings.warn("in place", IN_PLACE)
            branch.residuals.pop(block.key, None)
            return output
        residuals = [
            None if x_in is None or x_out is None else x_out - x_in
            for x_in, x_out in zip(entering, block.leaving(output), strict=True)
        ]
        if branch is self._leader:
            self._distances[block.key] = self._distance(branch, block.key, residuals)
        branch.residuals[block.key] = residuals
        branch.steps[block.key] = self._step
        return output

    def _distance(self, branch: LayerBranch, key: Key, residuals: Streams) -> Tensor | None:
        old, new = branch.residuals.get(key), residuals[0]
        if old is None or old[0] is None or new is None:
            return None
        stored = old[0].float()
        relative = (stored - new.float()).abs().sum() / stored.abs().sum()
        return relative / (self._step - branch.steps[key])

    def _observe_distances(self, step: int) -> None:
        """Give the policies the distances of `step`, with one read for all blocks."""
        measured = {key: value for key, value in self._distances.items() if value is not None}
        numbers: dict[Key, float] = {}
        if measured:
            start = time.perf_counter()
            values = torch.stack(list(measured.values())).tolist()
            self._counters.waits.append(time.perf_counter() - start)
            numbers = dict(zip(measured, values, strict=True))
        for key in self._distances:
            self._policies[key].observe(step, numbers.get(key))
        self._distances = {}


def _sums(streams: Streams, residuals: Streams) -> Streams:
    return [
        x if x is None or residual is None else x + residual
        for x, residual in zip(streams, residuals, strict=True)
    ]
