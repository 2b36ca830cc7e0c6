"""AdaCache per layer: each block runs, or adds what it added before, by its own schedule."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...engine.user_warnings import UserWarnings
from ...models import Adapter
from ...models.block_calls import version
from ..adacache_per_layer import AdaCachePerLayerPolicy
from ..counters import Counters
from .block_visits import BlockVisit, Key, Streams, places_of, visited
from .chain_residuals import IN_PLACE
from .reuse_modules import Original


@dataclass
class LayerBranch:
    """One branch of guidance: what each block added, and in which step."""

    name: str
    residuals: dict[Key, Streams] = field(default_factory=dict)
    steps: dict[Key, int] = field(default_factory=dict)

    def forget(self) -> None:
        self.residuals.clear()
        self.steps.clear()

    def tensors(self) -> list[Tensor]:
        """All that it holds."""
        return [x for streams in self.residuals.values() for x in streams if x is not None]


class LayerReuse:
    """Runs forwards in which some blocks add what they added before.

    The first branch of guidance measures, and decides for the others. Distances stay on the device
    until the next step begins; they are read then, together.

    Args:
        model: the transformer.
        adapter: what is known of it.
        make_policy: from the number of steps to the policy of one block in a generation.
    """

    by_timestep = False

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        make_policy: Callable[[int], AdaCachePerLayerPolicy],
        notices: UserWarnings,
    ) -> None:
        self._model, self._notices = model, notices
        self.places = places_of(model, adapter)
        self._make_policy = make_policy

    def begin(self, num_steps: int, tally: Counters) -> None:
        self._policies = {place.key: self._make_policy(num_steps) for place in self.places}
        self._tally = tally
        self._measured: dict[Key, Tensor | None] = {}

    def branch(self, name: str) -> LayerBranch:
        return LayerBranch(name)

    def begin_step(
        self,
        step: int,
        _timestep: float | None,
        branches: Mapping[str, LayerBranch],
        *,
        guided: bool,
    ) -> None:
        self._take_measured(step - 1)
        self._step = step
        self._reused = {key for key, policy in self._policies.items() if policy.reuses(step)}
        self._leader = next(iter(branches.values()))

    def run(
        self,
        branch: LayerBranch,
        _arguments: Mapping[str, Any],
        _video: tuple[int, int],
        original: Original,
    ) -> Any:
        def visit(place: BlockVisit, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
            arguments = place.bind(args, kwargs)
            entered = place.entering(arguments)
            kept = branch.residuals.get(place.key)
            wanted = place.key in self._reused
            self._tally.count(self._step, computed=not (wanted and kept is not None))
            if wanted and kept is not None:
                streams = [
                    x if x is None or residual is None else x + residual
                    for x, residual in zip(entered, kept, strict=True)
                ]
                return place.returning(arguments, streams)
            if wanted:
                self._tally.missed(branch.name, self._step)
            return self._compute(branch, place, entered, args, kwargs)

        with visited(self._model, self.places, visit):
            return original()

    def _compute(
        self, branch: LayerBranch, place: BlockVisit, entered: Streams, args: Any, kwargs: Any
    ) -> Any:
        versions = [-1 if x is None else version(x) for x in entered]
        output = place.run(args, kwargs)
        if versions != [-1 if x is None else version(x) for x in entered]:
            self._notices.warn("in place", IN_PLACE)
            branch.residuals.pop(place.key, None)
            return output
        residuals = [
            None if x_in is None or x_out is None else x_out - x_in
            for x_in, x_out in zip(entered, place.leaving(output), strict=True)
        ]
        if branch is self._leader:
            self._measured[place.key] = self._distance(branch, place.key, residuals)
        branch.residuals[place.key] = residuals
        branch.steps[place.key] = self._step
        return output

    def _distance(self, branch: LayerBranch, key: Key, residuals: Streams) -> Tensor | None:
        old, new = branch.residuals.get(key), residuals[0]
        if old is None or old[0] is None or new is None:
            return None
        stored = old[0].float()
        apart = (stored - new.float()).abs().sum() / stored.abs().sum()
        return apart / (self._step - branch.steps[key])

    def _take_measured(self, step: int) -> None:
        """Tell the policies what the last step measured: one read for all blocks."""
        given = {key: value for key, value in self._measured.items() if value is not None}
        numbers: dict[Key, float] = {}
        if given:
            start = time.perf_counter()
            read = torch.stack(list(given.values())).tolist()
            self._tally.waits.append(time.perf_counter() - start)
            numbers = dict(zip(given, read, strict=True))
        for key in self._measured:
            self._policies[key].observe(step, numbers.get(key))
        self._measured = {}
