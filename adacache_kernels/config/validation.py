"""Checks of settings. Each message names the setting, its value, and the values it may have."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from ..memory.byte_sizes import parse_bytes
from ..options import OverBudget
from ..schedule.json_file import short
from ..schedule.profile import MOST_STEPS, Profile

Location = int | str
"""A block's index, or one of `LOCATION_NAMES`."""
ORDERS = (0, 1, 2)
"""Orders of a forecast."""
LOCATION_NAMES = ("start", "middle", "end")
_LOCATION_HELP = "it may be a block's index, 'start', 'middle', 'end', or several of them"


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Check that a setting is one of some strings.

    Raises:
        ValueError: it is not.
    """
    known = tuple(choices)
    if value not in known:
        raise ValueError(f"{name} is {value!r}; it may be one of {', '.join(map(repr, known))}")


def check_bool(name: str, value: object) -> None:
    """Check that a setting is a bool.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; it may be True or False")


def check_int(
    name: str,
    value: object,
    *,
    at_least: int,
    at_most: int = MOST_STEPS,
    optional: bool = False,
) -> None:
    """Check that a setting is an integer from `at_least` to `at_most`, or None if it is optional.

    Raises:
        TypeError: it is not an integer.
        ValueError: it is too small or too large.
    """
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}; it must be an integer >= {at_least}")
    if value < at_least:
        raise ValueError(f"{name} is {short(value)}; it must be >= {at_least}")
    if value > at_most:
        raise ValueError(f"{name} is {short(value)}; it must be <= {at_most}")


def check_finite(name: str, value: object, *, at_least: float, at_most: float = math.inf) -> None:
    """Check that a setting is a finite number from `at_least` to `at_most`.

    Raises:
        TypeError: it is not a number.
        ValueError: it is not finite, too small or too large.
    """
    expected = f">= {at_least}" + (f" and <= {at_most}" if at_most < math.inf else "")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is {value!r}; it must be a number {expected}")
    # An integer of over 308 digits is no float.
    if not at_least <= value <= min(at_most, sys.float_info.max):
        raise ValueError(f"{name} is {short(value)}; it must be finite and {expected}")


def check_order(order: object) -> None:
    """Check `forecast`, the order of a forecast.

    Raises:
        TypeError: it is not an integer.
        ValueError: it is not one of `ORDERS`.
    """
    check_int("forecast", order, at_least=0)
    if order not in ORDERS:
        raise ValueError(f"forecast is {order}; its order may be 0, 1 or 2")


def check_budget(value: object) -> None:
    """Check `max_cache_bytes`: bytes, a text such as "2GiB", a fraction from 0 to 1, or None.

    Raises:
        TypeError: it is of another type.
        ValueError: it is less than one byte, no amount of memory, or no such fraction.
    """
    if value is None:
        return
    if isinstance(value, str):
        try:
            parse_bytes(value)
        except ValueError as error:
            raise ValueError(f"max_cache_bytes: {error}") from None
    elif isinstance(value, float):
        check_finite("max_cache_bytes", value, at_least=0.0, at_most=1.0)
    else:
        check_int("max_cache_bytes", value, at_least=1, at_most=sys.maxsize)


def check_profile_settings(
    profile: Profile | None,
    computed_steps: object,
    schedule: object,
    forecast_time: str,
) -> None:
    """Check the settings that depend on whether there is a profile.

    Raises:
        TypeError: `computed_steps` is not a number.
        ValueError: `computed_steps` without a profile or below 1; a profile with both or none of
            `computed_steps` and `schedule`, or with another `forecast_time` than "step".
    """
    if profile is None:
        if computed_steps is not None:
            raise ValueError(
                f"computed_steps={computed_steps} is for the plan of a profile; give profile=, or "
                "the steps themselves with schedule="
            )
        return
    if forecast_time != "step":
        raise ValueError(
            f"forecast_time={forecast_time!r}: a profile's forecasts are fitted and use no time; "
            "leave it out"
        )
    if (computed_steps is None) == (schedule is None):
        raise ValueError(
            "a profile needs either computed_steps=, the number of steps that its plan computes, "
            "or schedule=, the steps to compute"
        )
    if computed_steps is not None:
        check_finite("computed_steps", computed_steps, at_least=1.0, at_most=MOST_STEPS)


def check_graph_mode(needs_host: Mapping[str, bool]) -> None:
    """Check that no setting needs the host to decide, for decision="graph".

    Args:
        needs_host: for each setting, True if its value needs the host.

    Raises:
        ValueError: a setting does.
    """
    names = [name for name, needed in needs_host.items() if needed]
    if names:
        raise ValueError(
            f'decision="graph" cannot do what {" and ".join(names)} asks for: the device decides '
            'by the codebook and reuses the last residual; leave them out, or use decision="async"'
        )


def parse_over_budget(value: object) -> tuple[OverBudget, ...]:
    """Return `over_budget` as a tuple.

    Raises:
        TypeError: it is not a sequence.
        ValueError: an entry is unknown, or follows "refuse".
    """
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(
            f"over_budget is {value!r}; it must be a sequence, such as ('int8', 'host')"
        )
    entries = tuple(value)
    for entry in entries:
        check_choice("over_budget", entry, get_args(OverBudget))
    if "refuse" in entries[:-1]:
        raise ValueError(f"over_budget is {entries}; nothing can come after 'refuse'")
    return entries


def parse_profile(value: object) -> Profile | None:
    """Return the profile of a `Profile`, its dict, the path of its JSON file, or None.

    Raises:
        FileNotFoundError: the file does not exist.
        TypeError: `value` is of another type.
        ValueError: the dict or the file has no profile.
    """
    if value is None or isinstance(value, Profile):
        return value
    if isinstance(value, str | Path):
        return Profile.load(value)
    if isinstance(value, Mapping):
        return Profile.from_dict(value)
    raise TypeError(f"profile is {value!r}; it may be a Profile or the path of its JSON file")


def parse_steps(value: object) -> tuple[int, ...]:
    """Return `schedule` as sorted, different steps.

    Raises:
        TypeError: it is not a sequence of integers.
        ValueError: a step is below 1.
    """
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"schedule is {value!r}; it must be a sequence of steps, counted from 1")
    steps = tuple(value)
    for step in steps:
        check_int("schedule", step, at_least=1)
    return tuple(sorted(set(steps)))


def parse_locations(value: object) -> tuple[Location, ...]:
    """Return `cache_loc`, a location or a sequence of them, as a tuple.

    Raises:
        TypeError: it is of another type.
        ValueError: it is empty, or has an unknown name.
    """
    if isinstance(value, int | str):
        given: tuple[object, ...] = (value,)
    elif isinstance(value, Iterable):
        given = tuple(value)
    else:
        raise TypeError(f"cache_loc is {value!r}; {_LOCATION_HELP}")
    if not given:
        raise ValueError(f"cache_loc is empty; {_LOCATION_HELP}")
    return tuple(parse_location(item) for item in given)


def parse_location(value: object) -> Location:
    """Return a location: a block's index, or one of `LOCATION_NAMES`.

    Raises:
        TypeError: it is of another type.
        ValueError: it is an unknown name.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value in LOCATION_NAMES:
        return value
    if isinstance(value, str):
        raise ValueError(f"cache_loc holds {value!r}; {_LOCATION_HELP}")
    raise TypeError(f"cache_loc holds {value!r}; {_LOCATION_HELP}")


def parse_strides(value: object) -> tuple[int, ...]:
    """Return `moreg_strides` as a tuple.

    Raises:
        TypeError: it is not a sequence of integers.
        ValueError: it is empty, or a stride is below 1.
    """
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"moreg_strides is {value!r}; it must be a sequence of integers >= 1")
    strides = tuple(value)
    if not strides:
        raise ValueError("moreg_strides is empty; name at least one frame stride, for example (1,)")
    for stride in strides:
        check_int("moreg_strides", stride, at_least=1)
    return strides


def parse_window(value: object) -> tuple[int, int]:
    """Return `moreg_steps` as a pair.

    Raises:
        TypeError: it is not a sequence of integers.
        ValueError: it is not a first and a last step, in this order, counted from 1.
    """
    window = _parse_tuple("moreg_steps", value, 2, "(first step, last step)")
    for step in window:
        check_int("moreg_steps", step, at_least=1)
    if window[0] > window[1]:
        raise ValueError(f"moreg_steps is {window}; its first step must not come after its last")
    return window[0], window[1]


def parse_moreg_hyp(value: object) -> tuple[float, float, float]:
    """Return `moreg_hyp` as three floats (a, b, d).

    Raises:
        TypeError: it is not a sequence of numbers.
        ValueError: it is not three finite numbers of at least 0, or a or d is 0.
    """
    given = _parse_tuple("moreg_hyp", value, 3, "three numbers (a, b, d)")
    for number in given:
        check_finite("moreg_hyp", number, at_least=0.0)
    a, b, d = (float(number) for number in given)
    if a == 0.0 or d == 0.0:
        raise ValueError(f"moreg_hyp is {given}; a and d divide, so they must not be 0")
    return a, b, d


def _parse_tuple(name: str, value: object, length: int, expected: str) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} is {value!r}; it must be {expected}")
    given = tuple(value)
    if len(given) != length:
        raise ValueError(f"{name} is {given}; it must be {expected}")
    return given
