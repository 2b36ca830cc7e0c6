"""A calibration: settings that reach a speedup or a quality, and what they were seen to reach."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ..schedule.calibrated_for import MadeFor, parse_made_for
from ..schedule.profile import Profile, read_json
from .adacache_config import AdaCacheConfig

FORMAT = 1
WHAT = "calibration of adacache_kernels"

Kind = Literal["profile", "codebook"]
Measured = Literal["speedup", "psnr"]


@dataclass(frozen=True)
class Target:
    """What is to be reached: a speedup (of the transformer's time), or a mean PSNR in dB."""

    of: Measured
    value: float

    def __str__(self) -> str:
        return f"{self.value:g}x" if self.of == "speedup" else f"{self.value:g} dB"


@dataclass(frozen=True)
class HeldOutResult:
    """What the held-out cases reached.

    Args:
        cases: how many.
        speedup: of the seconds in the transformer, all cases together: steps / (computed * c +
            reused * r), with the means of computed and reused steps of a case, and what one costs
            in unpatched steps of the generation next to it, medians of the cases.
        slowest: the least of unpatched over patched seconds of a case.
        psnr: mean over the cases, in dB, against the unpatched outcome.
        psnr_error: standard error of that mean; 0 for one case.
        worst_psnr: the least of them.
        computed_steps: mean over the cases.
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
        kind: "profile", a plan with forecasts; or "codebook", the paper's.
        settings: for `patch`, the profile aside.
        made_for: model, scheduler and number of steps.
        target: what was asked for.
        held_out: what was reached on cases that nothing was fitted to.
        profile: for the kind "profile".
        notes: how it was made, for people to read.
    """

    kind: Kind
    settings: Mapping[str, Any]
    made_for: MadeFor
    target: Target
    held_out: HeldOutResult
    profile: Profile | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Calibration({self.kind}, {self.target}, {self.made_for.num_steps} steps)"

    def __str__(self) -> str:
        held = self.held_out
        return (
            f"{self.made_for.model['class']}, {self.made_for.num_steps} steps, {self.kind} for "
            f"{self.target}: {self.told_missed} on {held.cases} held-out cases\n"
            f"  speedup {held.speedup:.2f}x (least {held.slowest:.2f}x), PSNR {held.psnr:.1f} dB "
            f"+- {held.psnr_error:.1f} (worst {held.worst_psnr:.1f}), "
            f"{held.computed_steps:.1f} steps computed"
        )

    @property
    def missed(self) -> float:
        """Held-out cases less the target: of a speedup as a part of it, of a PSNR in dB."""
        if self.target.of == "speedup":
            return self.held_out.speedup / self.target.value - 1
        return self.held_out.psnr - self.target.value

    @property
    def told_missed(self) -> str:
        """`missed` in words."""
        if self.target.of == "speedup":
            return f"{100 * self.missed:+.1f} %"
        return f"{self.missed:+.2f} dB"

    def config(self) -> AdaCacheConfig:
        """What `patch` runs."""
        return AdaCacheConfig(**self.settings, profile=self.profile, made_for=self.made_for)

    def to_dict(self) -> dict[str, Any]:
        """Numbers, strings and lists, for JSON."""
        return {
            "what": WHAT,
            "format": FORMAT,
            "kind": self.kind,
            "target": asdict(self.target),
            "held_out": asdict(self.held_out),
            "settings": self._plain_settings(),
            "made_for": self.made_for.to_dict(),
            "profile": None if self.profile is None else self.profile.to_dict(),
            "notes": dict(self.notes),
        }

    def _plain_settings(self) -> dict[str, Any]:
        """As `AdaCacheConfig.to_dict` gives them, those that were set."""
        plain = self.config().to_dict()
        return {name: plain[name] for name in self.settings}

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        Path(path).write_text(json.dumps(self.to_dict()) + "\n")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """The calibration that `to_dict` gave.

        Raises:
            ValueError: it is none, of another format, or something is missing or wrong.
        """
        if not isinstance(values, Mapping) or values.get("what") != WHAT:
            raise ValueError(_no_calibration(values))
        if values.get("format") != FORMAT:
            raise ValueError(
                f"its format is {values.get('format')!r}, this version reads {FORMAT}; calibrate "
                "again, or use the version that made it"
            )
        try:
            made_for = parse_made_for(values["made_for"])
            if made_for is None or values["kind"] not in get_args(Kind):
                raise ValueError(f"kind is {values['kind']!r}, made_for {made_for!r}")
            profile = values["profile"]
            found = cls(
                kind=values["kind"],
                settings=dict(values["settings"]),
                made_for=made_for,
                target=Target(**values["target"]),
                held_out=HeldOutResult(**values["held_out"]),
                profile=None if profile is None else Profile.from_dict(profile),
                notes=values.get("notes", {}),
            )
            found.config()
        except KeyError as missing:
            raise ValueError(f"this calibration is broken: it has no {missing}") from missing
        except (TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"this calibration is broken: {error}") from error
        return found

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file holds no calibration; names the file.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"there is no calibration at {path}; make one with `adacache calibrate`, or "
                "ak.calibrate"
            )
        try:
            return cls.from_dict(read_json(path))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def _no_calibration(values: object) -> str:
    if isinstance(values, Mapping) and {"gram", "sensitivity"} <= set(values):
        return (
            "this is a profile alone, which says nothing of how many steps to compute; patch with "
            "profile=, computed_steps=, forecast=1, correct=True"
        )
    return f"this is no {WHAT}"


def is_calibration(path: str | Path) -> bool:
    """Whether a file says that it is one; False where it cannot be read."""
    try:
        values = read_json(path)
    except (OSError, ValueError):
        return False
    return isinstance(values, Mapping) and values.get("what") == WHAT
