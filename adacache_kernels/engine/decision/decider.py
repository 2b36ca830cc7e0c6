"""Let the device turn partial sums into a decision, and read the decision on the host."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ... import ops
from ...config.adacache_config import AdaCacheConfig
from ...options import DecisionMode
from ...schedule import Decision
from ...schedule.codebook import Codebook
from .mailbox import make_mailbox


class Decider:
    """The decisions of one model, made on the device.

    The device decides in the middle of a computed step. The host reads the decision when the next
    step begins.

    Args:
        config: the settings.
    """

    def __init__(self, config: AdaCacheConfig) -> None:
        self._mode = config.decision
        self._settings = _settings_of(config)
        self._codebook = config.codebook_for(0)
        self._window = (1, 0)
        self._on_device: DeviceState | None = None
        self._is_fresh = True
        self._is_unread = False
        self._sequence = 0
        self.step_state: Tensor | None = None
        """float32 `[3]` as `ops.begin_step` writes it. It then replaces the step, `has_previous`
        and the window that the host knows. None: the host's values are used."""

    @property
    def codebook(self) -> Codebook:
        """Return the codebook of this generation."""
        return self._codebook

    @property
    def motion_window(self) -> tuple[int, int]:
        """Return the first and the last step in which motion is measured."""
        return self._window

    def restart(self, codebook: Codebook, window: tuple[int, int]) -> None:
        """Begin a generation: no step was computed, and the motion score is 1.

        Args:
            codebook: pairs of distance threshold and rate.
            window: first and last step in which motion is measured.
        """
        self._codebook, self._window = codebook, window
        self._is_fresh = True
        self._is_unread = False

    def state_on(self, device: torch.device) -> DeviceState:
        """Return the state on `device`, reset once in every generation."""
        # Inference mode is off: a tensor made inside it could not be written outside later.
        with torch.inference_mode(False):
            if self._on_device is None or self._on_device.device != device:
                self._on_device = DeviceState(device, self._mode)
            elif self._is_fresh:
                self._on_device.reset()
            self._is_fresh = False
            # Made here, because a tensor made during a capture has no values before a launch.
            self._on_device.codebook_tensor(self._codebook)
            return self._on_device

    def decide(self, sums: Tensor, step: int, videos: int, *, has_previous: bool) -> None:
        """Make the decision of one computed step on the device of `sums`, and post it to the host.

        Args:
            sums: float32 `[locations, rows, partials, 3 + 2 * strides]`.
            step: the computed step, counted from 1.
            videos: the number of videos that the rows belong to.
            has_previous: True if the residuals were compared with stored ones.
        """
        on_device = self.state_on(sums.device)
        self._sequence = (self._sequence + 1) % ops.SEQUENCES
        self._launch(on_device, sums, step, videos, has_previous)
        on_device.mailbox.post(on_device.state, self._sequence)
        self._is_unread = True

    def read(self) -> tuple[Decision, float] | None:
        """Return the unread decision, and the seconds for which the host waited for it.

        Returns:
            None if no decision was made since the last call, or if decisions stay on the device.

        Raises:
            RuntimeError: the mailbox contains another decision.
        """
        if not self._is_unread or self._on_device is None:
            return None
        self._is_unread = False
        message = self._on_device.mailbox.collect(self._sequence)
        return None if message is None else (decision_of(message.state), message.waited)

    def _launch(
        self, on_device: DeviceState, sums: Tensor, step: int, videos: int, has_previous: bool
    ) -> None:
        first, last = self._window
        has_motions = videos > 1 and self._settings.apply_moreg
        ops.decide(
            on_device.state,
            sums,
            on_device.codebook_tensor(self._codebook),
            self._settings,
            step,
            has_previous=has_previous,
            in_window=first <= step <= last,
            sequence=self._sequence,
            clock=self.step_state,
            videos=videos,
            motions=on_device.motions(videos) if has_motions else None,
        )


class DeviceState:
    """The tensors of a decider on one device.

    Captured graphs contain their addresses, so no tensor is replaced while the device stays.

    Args:
        device: the device.
        mode: how the host gets decisions.
    """

    def __init__(self, device: torch.device, mode: DecisionMode) -> None:
        self.device = device
        self.state = ops.new_state(device)
        """float32 `[10]` as `ops.State` orders it."""
        self.mailbox = make_mailbox(device, mode)
        self._codebooks: dict[Codebook, Tensor] = {}
        self._motions: dict[int, Tensor] = {}

    def reset(self) -> None:
        """Set all values as at the start of a generation."""
        ops.reset_state(self.state)
        for motions in self._motions.values():
            motions.fill_(1.0)

    def codebook_tensor(self, codebook: Codebook) -> Tensor:
        """Return a codebook as float32 `[2, n]`: thresholds, rates."""
        if codebook not in self._codebooks:
            with torch.inference_mode(False):
                self._codebooks[codebook] = _tensor_of(codebook, self.device)
        return self._codebooks[codebook]

    def motions(self, videos: int) -> Tensor:
        """Return the previous motion scores of several videos, float32 `[videos]`."""
        if videos not in self._motions:
            with torch.inference_mode(False):
                self._motions[videos] = torch.ones(videos, device=self.device)
        return self._motions[videos]


def decision_of(state: Sequence[float]) -> Decision:
    """Return the decision that a state of the decide op contains, ordered as `ops.State`."""
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


def _settings_of(config: AdaCacheConfig) -> ops.DecideSettings:
    a, b, d, gradient = config.moreg
    return ops.DecideSettings(
        metric=config.measured_metric,
        apply_moreg=config.apply_moreg,
        moreg_a=a,
        moreg_b=b,
        moreg_d=d,
        mograd_mul=gradient,
        batch="mean" if config.batch == "mean" else "any",
    )


def _tensor_of(codebook: Codebook, device: torch.device) -> Tensor:
    # Written on the device value by value: a copy of pageable host memory would make the host wait.
    rows = torch.empty(2, len(codebook.rates), device=device)
    for row, values in zip(rows, (codebook.thresholds, codebook.rates), strict=True):
        for index, value in enumerate(values):
            row[index].fill_(value)
    return rows


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
