"""Calibrations: settings that reach a speedup or a quality, and their result on held-out cases."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..schedule.calibrated_for import CalibratedFor, parse_calibrated_for
from ..schedule.files import is_file, write_whole
from ..schedule.json_file import parse_dataclass, read_json, without_infinities
from ..schedule.profile import Profile
from .adacache_config import AdaCacheConfig

FORMAT = 2
WHAT = "calibration of adacache_kernels"
"""The entry "what" of a calibration file."""

Kind = Literal["profile", "codebook"]
"""The settings of a calibration: a plan with forecasts, or the paper's codebook."""
Measured = Literal["speedup", "psnr"]
"""The quantity of a target."""


@dataclass(frozen=True)
class Target:
    """The target of a calibration.

    Args:
        of: "speedup" of the time in the transformer, or "psnr", a mean PSNR.
        value: speedup as a factor, or PSNR in dB.
    """

    of: Measured
    value: float

    def __str__(self) -> str:
        return f"{self.value:g}x" if self.of == "speedup" else f"{self.value:g} dB"


@dataclass(frozen=True)
class HeldOutResult:
    """The result of the settings on held-out cases, which nothing was fitted to.

    Args:
        cases: number of held-out cases.
        speedup: speedup of the time in the transformer: steps / (computed * c + reused * r). Here
            `computed` and `reused` are the mean numbers of steps, and `c` and `r` the cost of one
            such step in unpatched steps of a generation that runs next to it, median of the cases.
        slowest: lowest ratio of unpatched to patched seconds of a case.
        psnr: mean PSNR against the unpatched outcome, in dB.
        psnr_error: standard error of that mean, in dB; 0 for one case.
        worst_psnr: lowest PSNR of a case, in dB.
        computed_steps: mean number of computed steps.
    """

    cases: int
    speedup: float
    slowest: float
    psnr: float
    psnr_error: float
    worst_psnr: float
    computed_steps: float


@dataclass(frozen=True, eq=False, repr=False)
class Calibration:
    """Settings for `patch`, for one model, scheduler and number of steps.

    Args:
        kind: "profile" for a plan with forecasts, "codebook" for the paper's schedule.
        settings: settings for `patch`, without the profile.
        calibrated_for: model, scheduler and number of steps.
        target: the target of the calibration.
        held_out: result on cases that nothing was fitted to.
        profile: profile of the kind "profile", else None.
        notes: notes on the calibration, for people.
    """

    kind: Kind
    settings: Mapping[str, Any]
    calibrated_for: CalibratedFor
    target: Target
    held_out: HeldOutResult
    profile: Profile | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Calibration({self.kind}, {self.target}, {self.calibrated_for.num_steps} steps)"

    def __str__(self) -> str:
        held, model = self.held_out, self.calibrated_for.model["class"]
        return (
            f"{model}, {self.calibrated_for.num_steps} steps, {self.kind} for "
            f"{self.target}: {self._missed_text} on {held.cases} held-out cases\n"
            f"  speedup {held.speedup:.2f}x (least {held.slowest:.2f}x), PSNR {held.psnr:.1f} dB "
            f"+- {held.psnr_error:.1f} (worst {held.worst_psnr:.1f}), "
            f"{held.computed_steps:.1f} steps computed"
        )

    @property
    def missed(self) -> float:
        """Return the result minus the target: a fraction of a speedup, or dB of a PSNR."""
        if self.target.of == "speedup":
            return self.held_out.speedup / self.target.value - 1
        return self.held_out.psnr - self.target.value

    @property
    def _missed_text(self) -> str:
        if self.target.of == "speedup":
            return f"{100 * self.missed:+.1f} %"
        return f"{self.missed:+.2f} dB"

    def config(self) -> AdaCacheConfig:
        """Return the config that `patch` uses."""
        return AdaCacheConfig(
            **self.settings, profile=self.profile, calibrated_for=self.calibrated_for
        )

    def to_dict(self) -> dict[str, Any]:
        """Return numbers, strings and lists, for JSON."""
        return {
            "what": WHAT,
            "format": FORMAT,
            "kind": self.kind,
            "target": asdict(self.target),
            "held_out": asdict(self.held_out),
            "settings": self._plain_settings(),
            "calibrated_for": self.calibrated_for.to_dict(),
            "profile": None if self.profile is None else self.profile.to_dict(),
            "notes": without_infinities(self.notes),
        }

    def _plain_settings(self) -> dict[str, Any]:
        """Return the settings as `AdaCacheConfig.to_dict` writes them."""
        plain = self.config().to_dict()
        return {name: plain[name] for name in self.settings}

    def save(self, path: str | Path) -> None:
        """Write the calibration to a JSON file, as a whole or not at all.

        Raises:
            OSError: the file cannot be written.
        """
        write_whole(path, json.dumps(self.to_dict(), allow_nan=False) + "\n")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Return the calibration of a dict that `to_dict` returned.

        Raises:
            ValueError: the dict is no calibration, has another format, or an entry is missing,
                unknown or wrong. The message names it.
        """
        if not isinstance(values, Mapping) or values.get("what") != WHAT:
            raise ValueError(_no_calibration(values))
        if values.get("format") != FORMAT:
            raise ValueError(
                f"its format is {values.get('format')!r}, this version reads {FORMAT}; calibrate "
                "again, or use the version that wrote it"
            )
        try:
            return _parsed(parse_dataclass(_CalibrationFile, values))
        except (TypeError, ValueError) as error:
            raise ValueError(f"this calibration is broken: {error}") from error

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read the calibration of a JSON file that `save` wrote.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: the file has no calibration. The message names the file.
        """
        if not is_file(path):
            raise FileNotFoundError(
                f"there is no calibration at {path}; make one with `adacache calibrate`, or "
                "ak.calibrate"
            )
        try:
            return cls.from_dict(read_json(path))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


@dataclass(frozen=True)
class _CalibrationFile:
    """The entries of a calibration's JSON object."""

    what: str
    format: int
    kind: Kind
    target: Mapping[str, Any]
    held_out: Mapping[str, Any]
    settings: Mapping[str, Any]
    calibrated_for: Mapping[str, Any]
    profile: Mapping[str, Any] | None
    notes: Mapping[str, Any] = field(default_factory=dict)


def _parsed(file: _CalibrationFile) -> Calibration:
    calibrated_for = parse_calibrated_for(file.calibrated_for)
    target = parse_dataclass(Target, file.target, "target.")
    if target.value <= 0:
        raise ValueError(f"target.value is {target.value}; it must be above 0")
    assert calibrated_for is not None
    calibration = Calibration(
        kind=file.kind,
        settings=file.settings,
        calibrated_for=calibrated_for,
        target=target,
        held_out=parse_dataclass(HeldOutResult, file.held_out, "held_out."),
        profile=None if file.profile is None else Profile.from_dict(file.profile),
        notes=file.notes,
    )
    calibration.config()  # Checks the settings.
    return calibration


def _no_calibration(values: object) -> str:
    if isinstance(values, Mapping) and {"gram", "sensitivity"} <= set(values):
        return (
            "this is a profile alone, without the number of steps to compute; patch with "
            "profile=, computed_steps=, forecast=1, correct=True"
        )
    return f"this is no {WHAT}"


def is_calibration(path: str | Path) -> bool:
    """Return True if a file is a calibration, False also if it cannot be read."""
    try:
        values = read_json(path)
    except (OSError, ValueError):
        return False
    return isinstance(values, Mapping) and values.get("what") == WHAT
