"""What settings were calibrated for: a model, a scheduler, a number of steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class MadeFor:
    """A model, a scheduler and a number of steps, to be compared with those of a run.

    Args:
        model: class and config of the transformer.
        scheduler: class and config of the scheduler; None for a bare model.
        num_steps: steps of a generation.
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
        """Refuse a run that `what` was not made for.

        Args:
            model, scheduler, num_steps: of the run.
            what: was made, for the message.
            without: how to do without it.

        Raises:
            ValueError: another model, scheduler or number of steps; names what differs.
        """
        help_ = f"calibrate for this one, or {without}"
        _check_same(f"{what} was made for another model", self.model, model, help_)
        if self.scheduler is not None and scheduler is not None:
            _check_same(f"{what} was made for another scheduler", self.scheduler, scheduler, help_)
        if num_steps != self.num_steps:
            raise ValueError(
                f"{what} was made for {self.num_steps} steps and this generation has "
                f"{num_steps}; calibrate for that number, or {without}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Numbers, strings and lists, for JSON; `parse_made_for` gives it back."""
        return asdict(self)


def parse_made_for(value: object) -> MadeFor | None:
    """From a `MadeFor`, the dict of one, or None.

    Raises:
        TypeError: something else.
        ValueError: a dict without model, scheduler and num_steps.
    """
    if value is None or isinstance(value, MadeFor):
        return value
    if not isinstance(value, Mapping):
        raise TypeError(
            f"made_for is {value!r}; it may be what a calibration was made for, or None"
        )
    try:
        made = MadeFor(value["model"], value["scheduler"], value["num_steps"])
    except KeyError as missing:
        raise ValueError(f"made_for has no {missing}; it has model, scheduler, num_steps") from None
    for part in (made.model, made.scheduler):
        if part is not None and not (isinstance(part, Mapping) and "class" in part):
            raise ValueError(f"made_for holds {part!r}, expected a class and its config")
    if isinstance(made.num_steps, bool) or not isinstance(made.num_steps, int):
        raise ValueError(f"made_for has num_steps={made.num_steps!r}, expected an integer")
    return made


def identity(part: object) -> dict[str, Any]:
    """Class and config of a model or scheduler, without what changes from copy to copy."""
    config = getattr(part, "config", None)
    plain = {
        name: value
        for name, value in (dict(config) if isinstance(config, Mapping) else {}).items()
        if not name.startswith("_")
    }
    text = json.dumps(plain, default=str, sort_keys=True)
    return {"class": type(part).__name__, "config": json.loads(text)}


def _check_same(
    what: str, made_for: Mapping[str, Any], found: Mapping[str, Any], help_: str
) -> None:
    ours, theirs = _flat(made_for), _flat(found)
    if ours["class"] != theirs["class"]:
        ours, theirs = {"class": ours["class"]}, {"class": theirs["class"]}
    differing = sorted(name for name in ours | theirs if ours.get(name) != theirs.get(name))
    if differing:
        told = ", ".join(f"{n} {ours.get(n)!r}, here {theirs.get(n)!r}" for n in differing[:4])
        raise ValueError(f"{what}: {told}; {help_}")


def _flat(part: Mapping[str, Any]) -> dict[str, Any]:
    return {"class": part.get("class"), **part.get("config", {})}
