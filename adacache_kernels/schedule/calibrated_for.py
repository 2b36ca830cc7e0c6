"""The model, the scheduler and the number of steps that settings were calibrated for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .json_file import short


@dataclass(frozen=True)
class CalibratedFor:
    """A model, a scheduler and a number of steps, to compare with those of a generation.

    Args:
        model: class and config of the transformer, as `identity` returns them.
        scheduler: class and config of the scheduler; None for a bare model.
        num_steps: number of steps of a generation.
    """

    model: Mapping[str, Any]
    scheduler: Mapping[str, Any] | None
    num_steps: int

    def check(
        self,
        model: Mapping[str, Any],
        scheduler: Mapping[str, Any] | None,
        num_steps: int,
        what: str,
        without: str,
    ) -> None:
        """Raise if a generation differs from what the settings were calibrated for.

        Args:
            model: class and config of the transformer.
            scheduler: class and config of the scheduler; None for a bare model, which fits any.
            num_steps: number of steps of the generation.
            what: name of the settings in the message, such as "the profile".
            without: advice in the message besides a new calibration, such as "patch without
                profile=".

        Raises:
            ValueError: model, scheduler or number of steps differ. The message names the
                difference.
        """
        advice = f"calibrate for this one, or {without}"
        _check_same(f"{what} is for another model", self.model, model, advice)
        if self.scheduler is not None and scheduler is not None:
            other = f"{what} is for another scheduler"
            _check_same(other, self.scheduler, scheduler, advice)
        if num_steps != self.num_steps:
            raise ValueError(
                f"{what} is for {self.num_steps} steps and this generation has "
                f"{num_steps}; calibrate for that number, or {without}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return numbers, strings and lists, for JSON; `parse_calibrated_for` reads them."""
        return asdict(self)


def parse_calibrated_for(value: object) -> CalibratedFor | None:
    """Return the `CalibratedFor` of a `CalibratedFor`, of the dict of one, or of None.

    Raises:
        TypeError: `value` is of another type.
        ValueError: a dict has no model, scheduler and num_steps, or has wrong ones.
    """
    if value is None or isinstance(value, CalibratedFor):
        return value
    if not isinstance(value, Mapping):
        raise TypeError(
            f"calibrated_for is {value!r}; it must be a dict of model, scheduler and "
            "num_steps, as a calibration has it, or None"
        )
    try:
        parsed = CalibratedFor(value["model"], value["scheduler"], value["num_steps"])
    except KeyError as missing:
        raise ValueError(
            f"calibrated_for has no {missing}; it has model, scheduler, num_steps"
        ) from None
    _check_part("model", parsed.model)
    if parsed.scheduler is not None:
        _check_part("scheduler", parsed.scheduler)
    steps = parsed.num_steps
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ValueError(f"calibrated_for has num_steps={short(steps)}, expected an integer >= 0")
    return parsed


def _check_part(name: str, part: object) -> None:
    is_part = (
        isinstance(part, Mapping)
        and isinstance(part.get("class"), str)
        and isinstance(part.get("config", {}), Mapping)
    )
    if not is_part:
        raise ValueError(
            f"calibrated_for holds {short(part)} as its {name}, expected a class and its config"
        )


def identity(part: object) -> dict[str, Any]:
    """Return class and config of a model or scheduler, without private entries of the config."""
    config = getattr(part, "config", None)
    plain = {
        name: value
        for name, value in (dict(config) if isinstance(config, Mapping) else {}).items()
        if not name.startswith("_")
    }
    text = json.dumps(plain, default=str, sort_keys=True)
    return {"class": type(part).__name__, "config": json.loads(text)}


def _check_same(
    message: str, calibrated: Mapping[str, Any], present: Mapping[str, Any], advice: str
) -> None:
    ours, theirs = _flat(calibrated), _flat(present)
    if ours["class"] != theirs["class"]:
        ours, theirs = {"class": ours["class"]}, {"class": theirs["class"]}
    differing = sorted(name for name in ours | theirs if ours.get(name) != theirs.get(name))
    if differing:
        first = ", ".join(f"{n} {ours.get(n)!r}, here {theirs.get(n)!r}" for n in differing[:4])
        raise ValueError(f"{message}: {first}; {advice}")


def _flat(part: Mapping[str, Any]) -> dict[str, Any]:
    return {"class": part.get("class"), **part.get("config", {})}
