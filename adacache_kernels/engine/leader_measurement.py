"""Measure the computed forwards of the leading branch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..config.adacache_config import AdaCacheConfig
from ..memory.residual_store import ResidualStore
from ..models import Adapter
from ..options import Metric
from .clocks.clock import EngineClock
from .decision.decider import Decider
from .decision.distance_meter import DistanceMeter
from .decision.metric_blocks import MetricBlocks
from .guidance_rows import videos_of
from .ranks.ranks import Ranks
from .ranks.shard import Shard
from .reports.user_warnings import METRIC_BLOCK, UserWarnings
from .residuals.block_stand_ins import Observer
from .residuals.guidance_branch import GuidanceBranch
from .step_recorder import StepRecorder


class LeaderMeasurement:
    """The measurement of the leading branch: by metric blocks, or by the errors of forecasts.

    Args:
        model: the transformer.
        adapter: the description of the model.
        config: the settings.
        clock: reports whether there is guidance.
        memory: the residual store.
        warnings: the user warnings of the model.
        ranks: the ranks that decide together with this one.
    """

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        config: AdaCacheConfig,
        clock: EngineClock,
        memory: ResidualStore,
        warnings: UserWarnings,
        ranks: Ranks,
    ) -> None:
        self._adapter = adapter
        self._config = config
        self._clock = clock
        self._user_warnings = warnings
        self._metric_blocks = MetricBlocks(model, adapter, config)
        self.decider = Decider(config)
        blocks = self._metric_blocks.measurable()
        self.meter = DistanceMeter(blocks, config, memory, self.decider, ranks)

    def comparison(self, shard: Shard) -> tuple[Sequence[int], Metric] | None:
        """Return the frame strides and the metric of forecast errors, or None if not measured."""
        config = self._config
        return (shard.strides, config.measured_metric) if config.compares_forecasts else None

    def begin(
        self, step: int, shard: Shard, recorder: StepRecorder | None
    ) -> dict[str, dict[int, list[Observer]]]:
        """Begin the measurement of a computed forward.

        Args:
            step: counted from 1.
            shard: batch rows and frames, and the frame strides.
            recorder: receives the residuals of the metric blocks.

        Returns:
            The observers of the metric blocks, by block list and index.

        Raises:
            ValueError: no frame stride is shorter than the video; `guidance_rows` does not divide
                the batch.
        """
        self.meter.use_blocks(self._metric_blocks.measurable())
        if self._metric_blocks.warning:
            self._user_warnings.warn("compiled", self._metric_blocks.warning)
        rows = shard.video[0] * self._adapter.parts
        videos = videos_of(rows, self._config, self._adapter, self._clock)
        self.meter.begin(step, shard, videos, recorder, self._adapter.frames.unknown)
        names = [blocks.attribute for blocks in self._adapter.lists]
        return {
            name: {index: list(of_block) for index, of_block in self.meter.observers(name).items()}
            for name in names
        }

    def end(self, branch: GuidanceBranch, *, is_storing: bool) -> None:
        """End the measurement of a computed forward, whose residuals may have been stored."""
        if self._config.compares_forecasts:
            if is_storing:
                needs_residuals = self.meter.needs_boundary
                residuals = branch.recorded().values() if needs_residuals else ()
                self.meter.take(branch.compared(), list(residuals))
        elif not self.meter.is_complete:
            self.meter.forget()
            self._user_warnings.warn("metric block", METRIC_BLOCK)
