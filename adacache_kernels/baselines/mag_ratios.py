"""Measure what MagCache must know beforehand: the ratios of the residual from step to step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..engine.reports.user_warnings import UserWarnings
from ..models import Adapter
from .base import BaselineConfig
from .mechanisms.chain_residuals import (
    BlockBranch,
    BlockForward,
    Chain,
    ChainMechanism,
    ResidualCapture,
    ResidualReplay,
)
from .mechanisms.mechanism import Original, Step, Video


@dataclass(frozen=True, kw_only=True)
class RecordRatiosConfig(BaselineConfig):
    """Settings of a run in which every step is computed and its ratio measured."""


class RatioRecording(ChainMechanism):
    """A mechanism that measures a ratio in every step, and reuses nothing.

        ratios[s] = mean over tokens of ||R_s|| / ||R_(s-1)||;  ratios[0] = 1

    R is what the blocks add to the video in the first guidance branch, with one norm per token.

    Args:
        model: the transformer.
        adapter: the adapter of its class.
        warnings: the warnings of the model.
    """

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        _config: RecordRatiosConfig,
        warnings: UserWarnings,
    ) -> None:
        super().__init__(model, adapter, warnings)
        self._leader: BlockBranch | None = None
        self._ratios: list[Tensor] = []

    @property
    def ratios(self) -> tuple[float, ...]:
        """Return the ratios of the last generation, one for each step."""
        return tuple(float(ratio) for ratio in self._ratios)

    def begin_step(self, step: Step, branches: Mapping[str, BlockBranch]) -> None:
        """Begin a step; the first branch is measured."""
        super().begin_step(step, branches)
        self._leader = next(iter(branches.values()))

    def run(self, branch: BlockBranch, video: Video, original: Original) -> Any:
        """Run one forward call and return the model's output.

        Raises:
            ValueError: a block wrote into its input.
        """
        capture = ResidualCapture([block.key for block in self.blocks], video)
        replay = ResidualReplay({}, video)
        forward = BlockForward(self._counters, self._step, capture, replay)
        output = self._visit_blocks(forward, original)
        chains = capture.chains()
        if chains is None:
            raise ValueError(
                f"a block of this {type(self._model).__name__} writes into its input, so its "
                "residual cannot be measured"
            )
        if branch is self._leader:
            # The ratios of the last generation stay until the next one has run its first step.
            if self._step == 1:
                self._ratios = []
            self._ratios.append(_ratio(chains, branch.chains))
        branch.chains = chains
        return output


def _ratio(now: Mapping[int, Chain], before: Mapping[int, Chain]) -> Tensor:
    """Return the mean over all tokens of ||R|| / ||R before||, 1 if there is nothing before."""
    if not before:
        return torch.ones(())
    pairs = [(now[number].residuals[0], before[number].residuals[0]) for number in now]
    ratios = [
        (new.float().norm(dim=-1) / old.float().norm(dim=-1)).flatten()
        for new, old in pairs
        if new is not None and old is not None
    ]
    return torch.cat(ratios).mean()
