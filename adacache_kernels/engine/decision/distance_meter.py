"""Measure the residuals of the metric blocks: from residuals to partial sums on the device.

If the forecast error is measured instead, there are no metric blocks. A guidance branch then
compares the residuals of whole spans with their forecasts, and passes the sums to `take`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ... import ops
from ...config.adacache_config import AdaCacheConfig
from ...memory.plan import metric_key
from ...memory.residual_store import ResidualStore
from ...models import BlockRun
from ...options import CacheRes
from ..ranks.ranks import Ranks
from ..ranks.shard import Shard
from ..residuals.block_stand_ins import Observer
from ..step_recorder import StepRecorder
from .decider import Decider
from .metric_blocks import MetricBlock


class DistanceMeter:
    """The measurement of the metric blocks of one guidance branch.

    Args:
        blocks: the metric blocks.
        config: the settings.
        memory: holds the stored residual of each metric block.
        decider: receives the sums of a forward when its last metric block has run.
        ranks: the ranks that decide together with this one.
    """

    def __init__(
        self,
        blocks: tuple[MetricBlock, ...],
        config: AdaCacheConfig,
        memory: ResidualStore,
        decider: Decider,
        ranks: Ranks,
    ) -> None:
        self._blocks = blocks
        self._config = config
        self._memory = memory
        self._decider = decider
        self._ranks = ranks
        self._has_previous = False
        self._sums: list[Tensor] = []
        self._step = 0
        self._shard = Shard((0, 0), ())
        self._videos = 1
        self._recorder: StepRecorder | None = None

    @property
    def is_complete(self) -> bool:
        """Return True if every metric block of this forward has run."""
        return len(self._sums) == len(self._blocks)

    @property
    def residuals(self) -> tuple[CacheRes, ...]:
        """Return the names of the measured residuals, each once."""
        return tuple(dict.fromkeys(block.name for block in self._blocks))

    @property
    def positions(self) -> tuple[tuple[str, int], ...]:
        """Return block list and index of each metric block."""
        return tuple(block.position for block in self._blocks)

    def forget(self) -> None:
        """Drop what is stored: the next distance has nothing to compare with."""
        self._has_previous = False

    def use_blocks(self, blocks: tuple[MetricBlock, ...]) -> None:
        """Measure these blocks from now on; if they are new, forget what is stored."""
        if blocks != self._blocks:
            self._blocks = blocks
            self.forget()

    def begin(
        self,
        step: int,
        shard: Shard,
        videos: int,
        recorder: StepRecorder | None = None,
        unknown: str = "",
    ) -> None:
        """Begin a computed forward.

        Args:
            step: the step, counted from 1.
            shard: rows and frames of the forward, and the frame strides.
            videos: the number of videos that the rows belong to.
            recorder: receives every measured residual.
            unknown: the reason why the frames of the model are not known; empty if they are.

        Raises:
            ValueError: a stride of `moreg_strides` is not shorter than the video.
        """
        frames = shard.video[1]
        if not self._ranks.are_several and any(stride >= frames for stride in shard.strides):
            raise ValueError(_too_long(shard.strides, frames, unknown))
        self._step, self._shard, self._videos, self._recorder = step, shard, videos, recorder
        self._sums = []

    def observers(self, attribute: str) -> dict[int, list[MetricBlockObserver]]:
        """Return the observers for the block list `attribute`, by index of the block."""
        return {
            block.index: [MetricBlockObserver(self, block)]
            for block in self._blocks
            if block.blocks.attribute == attribute
        }

    def measure(self, block: MetricBlock, run: BlockRun) -> None:
        """Compare the residual of one metric block with the stored one, and store the new one.

        After the last metric block of the forward, the device decides.

        Args:
            block: the metric block.
            run: its inputs and outputs; streams in the layout of the block list.
        """
        value = block.residual.value
        x_out, x_in = (run.x_out, run.x_in) if value is None else (value(run), None)
        # Wan gates in float32; the residual is stored, and compared, as the model's own dtype.
        slot = self._memory.tensor(metric_key(*block.position))
        sums = ops.distance_update(
            self._split(block, slot),
            self._split(block, x_out),
            None if x_in is None else self._split(block, x_in),
            strides=self._shard.strides,
            metric=self._config.measured_metric,
            slot_holds="previous" if self._has_previous else "nothing",
        )
        self._add_boundary(sums, self._split(block, slot))
        if self._recorder is not None:
            self._recorder.take_metric(block.position, self._split(block, slot))
        self._sums.append(sums)
        if self.is_complete:
            self._decide()

    @property
    def needs_boundary(self) -> bool:
        """Return True if this step measures motion between tokens of two ranks."""
        first, last = self._decider.motion_window
        return self._shard.boundary is not None and first <= self._step <= last

    def take(self, sums: Sequence[Tensor], residuals: Sequence[Tensor] = ()) -> None:
        """Decide by sums that were measured elsewhere.

        Args:
            sums: float32 `[rows, partials, 3 + 2 * strides]` for each location; empty if nothing
                was compared.
            residuals: with `needs_boundary`, the residual `[B, F, S, C]` of each location.
        """
        for of_location, residual in zip(sums, residuals, strict=False):
            self._add_boundary(of_location, residual)
        self._has_previous = bool(sums)
        columns = 3 + 2 * len(self._shard.strides)
        device = self._memory.device
        self._sums = list(sums) or [torch.zeros(self._shard.video[0], 1, columns, device=device)]
        self._decide()

    def _split(self, block: MetricBlock, x: Tensor) -> Tensor:
        """Return `x`, in the layout of the list, as a view `[B, F, S, C]` without padding."""
        whole = block.blocks.split(x, 0, self._shard.video)
        padding = self._shard.padding
        return whole.narrow(2, 0, whole.shape[2] - padding) if padding else whole

    def _add_boundary(self, sums: Tensor, residual: Tensor) -> None:
        """Add the motion between tokens of two ranks to the sums of a residual `[B, F, S, C]`."""
        if self._shard.boundary is not None and self.needs_boundary:
            sums[:, 0, 3:] += self._shard.boundary.sums(residual.flatten(1, 2))

    def _decide(self) -> None:
        # torch.stack copies even a single tensor.
        one = len(self._sums) == 1
        sums = self._sums[0].unsqueeze(0) if one else torch.stack(self._sums)
        videos, has_previous = self._videos, self._has_previous
        sums, videos = self._ranks.agreed(sums, videos, has_previous=has_previous)
        self._decider.decide(sums, self._step, videos, has_previous=has_previous)
        self._has_previous = True


def _too_long(strides: Sequence[int], frames: int, unknown: str) -> str:
    """Return the message for frame strides that are not shorter than the video."""
    if unknown and frames == 1:
        return (
            f"moreg_strides={strides}: MoReg compares frames of tokens, and those of this model "
            f"are not known: {unknown}; or set apply_moreg=False"
        )
    if frames == 1:
        return f"moreg_strides={strides}: the video has 1 frame of tokens; set apply_moreg=False"
    return (
        f"moreg_strides={strides}: the video has {frames} frames of tokens, so a stride may be 1 "
        f"to {frames - 1}"
    )


class MetricBlockObserver(Observer):
    """The observer of a metric block: passes each run of the block to the meter."""

    def __init__(self, meter: DistanceMeter, block: MetricBlock) -> None:
        self._meter = meter
        self._block = block

    @property
    def taps(self) -> tuple[str, ...]:
        """Return the submodules of the block whose outputs are needed."""
        return self._block.residual.taps

    def after(self, run: BlockRun) -> None:
        """Measure the block."""
        self._meter.measure(self._block, run)
