"""Checks of settings: each names the setting, the value, and what it may be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..memory.byte_sizes import parse_bytes
from ..schedule.profile import Profile

Location = int | str
ORDERS = (0, 1, 2)
LOCATION_NAMES = ("start", "middle", "end")
_LOCATION_HELP = "it may be a block's index, 'start', 'middle', 'end', or several of them"


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    known = tuple(choices)
    if value not in known:
        raise ValueError(f"{name} is {value!r}; it may be one of {', '.join(map(repr, known))}")


def check_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; it may be True or False")


def check_int(name: str, value: object, *, at_least: int, optional: bool = False) -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}; it must be an integer >= {at_least}")
    if value < at_least:
        raise ValueError(f"{name} is {value}; it must be >= {at_least}")


def check_finite(name: str, value: object, *, at_least: float, at_most: float = math.inf) -> None:
    expected = f">= {at_least}" + (f" and <= {at_most}" if at_most < math.inf else "")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is {value!r}; it must be a number {expected}")
    if not math.isfinite(value) or not at_least <= value <= at_most:
        raise ValueError(f"{name} is {value}; it must be finite and {expected}")


def check_order(order: object) -> None:
    check_int("forecast", order, at_least=0)
    if order not in ORDERS:
        raise ValueError(f"forecast is {order}; its order may be 0, 1 or 2")


def check_budget(value: object) -> None:
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
        check_int("max_cache_bytes", value, at_least=1)


def parse_profile(value: object) -> Profile | None:
    if value is None or isinstance(value, Profile):
        return value
    if isinstance(value, str | Path):
        return Profile.load(value)
    if isinstance(value, Mapping):
        return Profile.from_dict(value)
    raise TypeError(f"profile is {value!r}; it may be a Profile or the path of its JSON file")


def parse_steps(value: object) -> tuple[int, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"schedule is {value!r}; it must be a sequence of steps, counted from 1")
    steps = tuple(value)
    for step in steps:
        check_int("schedule", step, at_least=1)
    return tuple(sorted(set(steps)))


def parse_locations(value: object) -> tuple[Location, ...]:
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
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value in LOCATION_NAMES:
        return value
    if isinstance(value, str):
        raise ValueError(f"cache_loc holds {value!r}; {_LOCATION_HELP}")
    raise TypeError(f"cache_loc holds {value!r}; {_LOCATION_HELP}")


def parse_strides(value: object) -> tuple[int, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"moreg_strides is {value!r}; it must be a sequence of integers >= 1")
    strides = tuple(value)
    if not strides:
        raise ValueError("moreg_strides is empty; name at least one frame stride, for example (1,)")
    for stride in strides:
        check_int("moreg_strides", stride, at_least=1)
    return strides


def parse_window(value: object) -> tuple[int, int]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"moreg_steps is {value!r}; it must be (first step, last step)")
    window = tuple(value)
    if len(window) != 2:
        raise ValueError(f"moreg_steps is {window}; it must be (first step, last step)")
    for step in window:
        check_int("moreg_steps", step, at_least=1)
    if window[0] > window[1]:
        raise ValueError(f"moreg_steps is {window}; its first step must not come after its last")
    return window[0], window[1]


def parse_moreg_hyp(value: object) -> tuple[float, float, float]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"moreg_hyp is {value!r}; it must be three numbers (a, b, d)")
    given = tuple(value)
    if len(given) != 3:
        raise ValueError(f"moreg_hyp is {given}; it must be three numbers (a, b, d)")
    for number in given:
        check_finite("moreg_hyp", number, at_least=0.0)
    a, b, d = (float(number) for number in given)
    if a == 0.0 or d == 0.0:
        raise ValueError(f"moreg_hyp is {given}; a and d divide, so they must not be 0")
    return a, b, d
