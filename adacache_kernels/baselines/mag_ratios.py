"""What MagCache must know beforehand: how the residual's size changes from step to step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..models import Adapter
from .base import BaselineConfig
from .counters import Counters
from .mechanisms.block_visits import places_of, visited
from .mechanisms.chain_residuals import (
    BlockBranch,
    BlockForward,
    Chain,
    ResidualCapture,
    ResidualReplay,
)
from .mechanisms.reuse_modules import Original


@dataclass(frozen=True, kw_only=True)
class RecordRatiosConfig(BaselineConfig):
    """Every step runs; the mechanism's `ratios` are those of the last generation."""


class RatioRecording:
    """Measures in every step, and reuses nothing.

    ratios[s] = mean over tokens of ||R_s|| / ||R_(s-1)||;  ratios[0] = 1

    with R what the blocks add to the video in the first branch of guidance, one norm a token.

    Args:
        model: the transformer.
        adapter: what is known of it.
    """

    by_timestep = False

    def __init__(self, model: nn.Module, adapter: Adapter) -> None:
        self._model = model
        self.places = places_of(model, adapter)
        self._keys = frozenset(place.key for place in self.places)
        self._measured: list[Tensor] = []

    @property
    def ratios(self) -> tuple[float, ...]:
        """One a step."""
        return tuple(float(ratio) for ratio in self._measured)

    def begin(self, _num_steps: int, tally: Counters) -> None:
        self._tally = tally

    def branch(self, name: str) -> BlockBranch:
        return BlockBranch(name)

    def begin_step(
        self,
        step: int,
        _timestep: float | None,
        branches: Mapping[str, BlockBranch],
        *,
        guided: bool,
    ) -> None:
        self._step = step
        self._leader = next(iter(branches.values()))

    def run(
        self,
        branch: BlockBranch,
        _arguments: Mapping[str, Any],
        video: tuple[int, int],
        original: Original,
    ) -> Any:
        recording = ResidualCapture(self._keys, video)
        forward = BlockForward(self._tally, self._step, recording, ResidualReplay({}, video), ())
        with visited(self._model, self.places, forward.visit):
            output = original()
        chains = recording.chains()
        if chains is None:
            raise ValueError(
                f"a block of this {type(self._model).__name__} writes into its input, so that what "
                "it adds cannot be told"
            )
        if branch is self._leader:
            # Not at the beginning: the last generation's hold until they are replaced.
            if self._step == 1:
                self._measured = []
            self._measured.append(_ratio(chains, branch.chains))
        branch.chains = chains
        return output


def _ratio(now: Mapping[int, Chain], before: Mapping[int, Chain]) -> Tensor:
    if not before:
        return torch.ones(())
    pairs = [(now[segment].residuals[0], before[segment].residuals[0]) for segment in now]
    each = [
        (new.float().norm(dim=-1) / old.float().norm(dim=-1)).flatten()
        for new, old in pairs
        if new is not None and old is not None
    ]
    return torch.cat(each).mean()
