"""The meter: takes the residual of the metric blocks, lets the decide op turn it into a rate.

Where the forecast's error is measured instead, there are no metric blocks: the branch compares the
residuals of whole spans with their forecasts and hands the sums over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ... import ops
from ...config.adacache_config import AdaCacheConfig
from ...memory.plan import metric_key
from ...memory.residual_store import ResidualStore
from ...models import BlockRun
from ...options import CacheRes
from ...schedule import Decision
from ...schedule.codebook import Codebook
from ..step_recorder import StepRecorder
from .mailbox import Mailbox, make_mailbox
from .metric_blocks import MetricBlock


class DistanceMeter:
    """Measures the metric blocks of one branch and decides, on the device; `restart` comes first.

    The decision is made in the middle of a computed step and read when the next step begins.
    """

    def __init__(
        self, sites: tuple[MetricBlock, ...], config: AdaCacheConfig, memory: ResidualStore
    ) -> None:
        self._sites = sites
        self._config = config
        self._memory = memory
        self._mailbox: Mailbox | None = None
        self._state: Tensor | None = None
        # By number of videos, and kept: graphs have their addresses in them.
        self._motions: dict[int, Tensor] = {}
        self._sequence = 0
        self.codebook: Codebook | None = None
        self._codebook_tensor: Tensor | None = None
        self.clock: Tensor | None = None
        """Tells the device which step it is, as `ops.begin_step` keeps it; None: the host does."""

    def restart(self, codebook: Codebook, window: tuple[int, int]) -> None:
        """A generation begins: nothing is stored, the motion score is 1."""
        if self.codebook != codebook:
            self._codebook_tensor = None
        self.codebook, self._window = codebook, window
        self._is_fresh = True
        self._has_previous = False
        self._undecided = False
        self._sums: list[Tensor] = []

    def look_at(self, sites: tuple[MetricBlock, ...]) -> None:
        """Measure these from now on; where they are others, there is nothing to compare with."""
        if sites != self._sites:
            self._sites = sites
            self.forget()

    def forget(self) -> None:
        """What is stored no longer holds: the next distance has nothing to compare with."""
        self._has_previous = False

    def begin(
        self,
        step: int,
        shape: tuple[int, int],
        videos: int,
        recorder: StepRecorder | None = None,
    ) -> None:
        """A computed forward of (rows, frames) begins, the rows being those of `videos`.

        `recorder` is shown what is measured.

        Raises:
            ValueError: no frame stride is shorter than the video.
        """
        too_long = [stride for stride in self._config.strides if stride >= shape[1]]
        if too_long:
            raise ValueError(
                f"moreg_strides={self._config.strides}: the video has {shape[1]} frames of tokens, "
                f"so a stride may be 1 to {shape[1] - 1}; with one frame, set apply_moreg=False"
            )
        self._step, self._shape, self._videos, self._recorder = step, shape, videos, recorder
        self._sums = []

    def observers(self, attribute: str) -> dict[int, list[MetricBlockObserver]]:
        """What watches the blocks of the list `attribute`, by index."""
        return {
            site.index: [MetricBlockObserver(self, site)]
            for site in self._sites
            if site.blocks.attribute == attribute
        }

    @property
    def measured(self) -> bool:
        """Whether every metric block of this forward ran."""
        return len(self._sums) == len(self._sites)

    @property
    def residuals(self) -> tuple[CacheRes, ...]:
        """Names of the residuals that are measured, each once."""
        return tuple(dict.fromkeys(site.name for site in self._sites))

    @property
    def places(self) -> tuple[tuple[str, int], ...]:
        """Attribute and index of the metric blocks."""
        return tuple((site.blocks.attribute, site.index) for site in self._sites)

    def take(self, sums: Sequence[Tensor]) -> None:
        """Sums that others have made, one row a location; none where nothing was compared."""
        self._has_previous = bool(sums)
        columns = 3 + 2 * len(self._config.strides)
        device = self._memory.device
        self._sums = list(sums) or [torch.zeros(self._shape[0], 1, columns, device=device)]
        self._decide()

    def measure(self, site: MetricBlock, run: BlockRun) -> None:
        """The distance update of one metric block; after the last one, the decision."""
        value = site.residual.value
        x_out, x_in = (run.x_out, run.x_in) if value is None else (value(run), None)
        # Wan gates in float32; the residual is stored, and compared, as the model's own dtype.
        slot = self._memory.tensor(metric_key(site.blocks.attribute, site.index))
        sums = ops.distance_update(
            self._split(site, slot),
            self._split(site, x_out),
            None if x_in is None else self._split(site, x_in),
            strides=self._config.strides,
            metric=self._config.measured_metric,
            slot_holds="previous" if self._has_previous else "nothing",
        )
        if self._recorder is not None:
            place = site.blocks.attribute, site.index
            self._recorder.take_metric(place, self._split(site, slot))
        self._sums.append(sums)
        if self.measured:
            self._decide()

    def _split(self, site: MetricBlock, x: Tensor) -> Tensor:
        return site.blocks.split(x, 0, self._shape)

    def _decide(self) -> None:
        # To stack one is a copy.
        one = len(self._sums) == 1
        sums = self._sums[0].unsqueeze(0) if one else torch.stack(self._sums)
        state = self.on_device(sums.device)
        assert self._codebook_tensor is not None and self._mailbox is not None
        first, last = self._window
        self._sequence = (self._sequence + 1) % ops.SEQUENCES
        ops.decide(
            state,
            sums,
            self._codebook_tensor,
            self._decide_settings(),
            self._step,
            has_previous=self._has_previous,
            in_window=first <= self._step <= last,
            sequence=self._sequence,
            clock=self.clock,
            videos=self._videos,
            motions=self._motions_of(self._videos),
        )
        self._mailbox.post(state, self._sequence)
        self._has_previous = True
        self._undecided = True

    def _decide_settings(self) -> ops.DecideSettings:
        a, b, d, gradient = self._config.moreg
        return ops.DecideSettings(
            metric=self._config.measured_metric,
            apply_moreg=self._config.apply_moreg,
            moreg_a=a,
            moreg_b=b,
            moreg_d=d,
            mograd_mul=gradient,
            batch="mean" if self._config.batch == "mean" else "any",
        )

    def _motions_of(self, videos: int) -> Tensor | None:
        """Their previous motion scores; a single one is in the state."""
        if videos == 1 or not self._config.apply_moreg:
            return None
        if videos not in self._motions:
            assert self._state is not None
            with torch.inference_mode(False):
                self._motions[videos] = torch.ones(videos, device=self._state.device)
        return self._motions[videos]

    def on_device(self, device: torch.device) -> Tensor:
        """The state of the decide op; with it, codebook and mailbox are there."""
        assert self.codebook is not None
        # Outside of inference mode: what is made inside could not be written outside later.
        with torch.inference_mode(False):
            if self._state is None or self._state.device != device:
                self._state = ops.new_state(device)
                self._motions = {}
                self._mailbox = make_mailbox(device, self._config.decision)
                self._codebook_tensor = None
            elif self._is_fresh:
                self.reset_state()
            self._is_fresh = False
            if self._codebook_tensor is None:
                self._codebook_tensor = _tensor_of(self.codebook, device)
        return self._state

    def reset_state(self) -> None:
        """The state as at the start of a generation."""
        assert self._state is not None
        ops.reset_state(self._state)
        for motions in self._motions.values():
            motions.fill_(1.0)

    def read(self) -> tuple[Decision, float] | None:
        """The decision made since the last reading, and the seconds for which the host has waited
        for it; None where there is none."""
        if not self._undecided or self._mailbox is None:
            return None
        self._undecided = False
        letter = self._mailbox.collect(self._sequence)
        return None if letter is None else (decision_of(letter.state), letter.waited)


def decision_of(state: Sequence[float]) -> Decision:
    """What the state of the decide op says."""
    flags = int(state[ops.State.FLAGS])
    return Decision(
        step=int(state[ops.State.STEP]),
        rate=int(state[ops.State.RATE]),
        distance=_finite(state[ops.State.DISTANCE]),
        raw_distance=_finite(state[ops.State.RAW_DISTANCE]),
        motion=state[ops.State.MOTION],
        not_finite=bool(flags & ops.Flag.NOT_FINITE),
        zero_denominator=bool(flags & ops.Flag.ZERO_DENOMINATOR),
    )


class MetricBlockObserver:
    """Hands a metric block's run to the meter."""

    def __init__(self, meter: DistanceMeter, site: MetricBlock) -> None:
        self._meter = meter
        self._site = site

    @property
    def taps(self) -> tuple[str, ...]:
        return self._site.residual.taps

    def before(self, run: BlockRun) -> None:
        """Nothing is needed from before the block."""

    def after(self, run: BlockRun) -> None:
        self._meter.measure(self._site, run)


def _tensor_of(codebook: Codebook, device: torch.device) -> Tensor:
    """Written on the device value by value: a copy of ordinary host memory would wait for it."""
    rows = torch.empty(2, len(codebook.rates), device=device)
    for row, values in zip(rows, (codebook.thresholds, codebook.rates), strict=True):
        for index, value in enumerate(values):
            row[index].fill_(value)
    return rows


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
