"""The methods that can be compared, and the words that name them on the command line.

fast                              a preset; so are slow and forecast
fast:apply_moreg=True             with other settings of patch()
adacache:codebook={0.1: 3, 9: 1}  any settings of patch()
even:17                           17 evenly spread steps; even:17:forecast=1:correct=True
calibration.json                  from `adacache calibrate`
profile.json:computed_steps=17    a profile
profile:computed_steps=17         the profile that ships for the demo with so many scheduler steps
refined:17                        the schedule of 17 steps that was refined for it
steps:17                          no cache, 17 steps of the pipeline's own scheduler
steps:17:UniPCMultistepScheduler  of another one
FirstBlockCache:threshold=0.1     a cache of diffusers, by the name of its config
cache-dit:Fn_compute_blocks=1     DBCache of cache-dit; both with the help of `evaluate/peers.py`,
                                  which :help=False leaves out
pab:latte-fast                    another method, run by this package, with a published preset; so
pab:latte-fast:cross=7            are t-gate, delta-dit and timestep-embedding
first-block:threshold=0.1         and, with settings only, taylorseer, interval, per-layer and
                                  mag-cache
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..api.patch import patch, summary, unpatch
from ..api.resolve_config import resolve_config
from ..config.calibration_file import is_calibration
from ..demo.presets import PROFILES, SCHEDULES
from ..engine.summary import Summary
from ..schedule import evenly_spread
from ..schedule.presets import SETTINGS
from .baseline_spec import OTHERS, other_method
from .external_caches import Peer, find_peer

FULL = "full"
Tell = Callable[[], Summary | None]


@dataclass(frozen=True)
class Method:
    """One way to make a video.

    Args:
        name: as it was given.
        curve: methods of one name are points of one curve in the plots.
        steps: that the scheduler runs.
        applied: from a pipeline to a context in which it runs by this method; what it gives tells
            the summary of the last generation, None where there is none.
        notes: what was done to the pipeline so that the method runs on it; grows as it runs.
    """

    name: str
    curve: str
    steps: int
    applied: Callable[[Any], AbstractContextManager[Tell]]
    notes: list[str] = field(default_factory=list)


def full(steps: int) -> Method:
    """The pipeline as it is."""
    return Method(FULL, FULL, steps, _untouched)


def parse(text: str, steps: int) -> Method:
    """The method that `text` names, for generations of `steps`.

    Raises:
        ValueError: no such method, or options that cannot be read.
    """
    name, *rest = _split(text)
    positional = [part for part in rest if "=" not in part]
    options = {key: literal(value) for key, value in (_pair(part) for part in rest if "=" in part)}
    if name == "steps":
        return _fewer(text, positional, options, steps)
    if name == "even":
        count = _count(text, positional, steps)
        return _patched(
            text,
            _curve(name, options),
            steps,
            None,
            options | {"schedule": evenly_spread(count, steps)},
        )
    if name == "refined":
        schedule, profile = _refined(text, positional, steps), _shipped(text, steps)
        return _planned(text, _curve(name, options), steps, profile, options | schedule)
    if name in OTHERS:
        config = other_method(text, name, positional, options)
        return _patched(text, name, steps, config, {})
    if positional:
        raise ValueError(f"method {text!r}: {positional[0]!r} is no option; write key=value")
    if name == "adacache":
        return _patched(text, _curve(name, options), steps, None, options)
    if name in SETTINGS:
        return _patched(text, _curve(name, options), steps, name, options)
    if name == "profile":
        return _planned(text, _curve(name, options), steps, _shipped(text, steps), options)
    if name.endswith(".json"):
        if is_calibration(name):
            return _patched(text, name, steps, name, options)
        return _planned(text, name, steps, name, options)
    cache = find_peer(text, name, options, steps)
    if cache is not None:
        return Method(text, _curve(name, options), steps, partial(_enabled, cache), cache.notes)
    raise ValueError(
        f"method {text!r}: there are {', '.join(SETTINGS)}, adacache, even:COUNT, profile, "
        "steps:COUNT, "
        f"{', '.join(OTHERS)}, "
        "FILE.json, cache-dit and the caches of diffusers, such as FirstBlockCache; options are "
        "key=value, with colons between"
    )


def _patched(text: str, curve: str, steps: int, config: Any, settings: Mapping[str, Any]) -> Method:
    try:
        resolve_config(config, dict(settings))
    except (TypeError, ValueError) as error:
        raise ValueError(f"method {text!r}: {error}") from error

    @contextmanager
    def applied(pipe: Any) -> Iterator[Tell]:
        patch(pipe, config, **settings)
        try:
            yield lambda: summary(pipe)
        finally:
            unpatch(pipe)

    return Method(text, curve, steps, applied)


def _planned(text: str, curve: str, steps: int, profile: str, options: Mapping[str, Any]) -> Method:
    settings = {"profile": profile, "forecast": 1, "correct": True} | dict(options)
    return _patched(text, curve, steps, None, settings)


def _shipped(text: str, steps: int) -> str:
    path = PROFILES / f"{steps}.json"
    if not path.is_file():
        counts = sorted(int(path.stem) for path in PROFILES.glob("[0-9]*.json"))
        raise ValueError(
            f"method {text!r}: no profile ships for {steps} steps, only for "
            f"{', '.join(map(str, counts))}; "
            "`adacache calibrate` makes one"
        )
    return str(path)


def _refined(text: str, positional: list[str], steps: int) -> dict[str, Any]:
    known = json.loads(SCHEDULES.read_text()).get(str(steps), {})
    if len(positional) != 1 or positional[0] not in known:
        raise ValueError(
            f"method {text!r}: of {steps} steps there are refined schedules of "
            f"{', '.join(known) or 'none'}; write refined:COUNT, or calibrate with --refine"
        )
    return {"schedule": known[positional[0]]}


def _fewer(text: str, positional: list[str], options: dict[str, Any], steps: int) -> Method:
    count = _count(text, positional[:1], steps)
    if options or len(positional) > 2:
        raise ValueError(f"method {text!r}: write steps:COUNT or steps:COUNT:SCHEDULER")
    if len(positional) == 1:
        return Method(text, "fewer steps", count, _untouched)
    scheduler = _diffusers_class(positional[1])
    if scheduler is None:
        raise ValueError(f"method {text!r}: diffusers has no scheduler {positional[1]}")

    @contextmanager
    def applied(pipe: Any) -> Iterator[Tell]:
        own = pipe.scheduler
        pipe.scheduler = scheduler.from_config(own.config)
        try:
            yield lambda: None
        finally:
            pipe.scheduler = own

    return Method(text, f"fewer steps, {positional[1].removesuffix('Scheduler')}", count, applied)


@contextmanager
def _untouched(_pipe: Any) -> Iterator[Tell]:
    yield lambda: None


@contextmanager
def _enabled(cache: Peer, pipe: Any) -> Iterator[Tell]:
    with cache.applied(pipe):
        yield lambda: None


def _diffusers_class(name: str) -> Any:
    import diffusers

    return getattr(diffusers, name, None) if name.isidentifier() else None


def _split(text: str) -> list[str]:
    """At the colons outside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == ":" and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _pair(part: str) -> tuple[str, str]:
    key, _, value = part.partition("=")
    return key, value


def literal(text: str) -> Any:
    """A Python literal, or else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _count(text: str, positional: list[str], steps: int) -> int:
    if len(positional) != 1 or not positional[0].isdigit() or not 1 <= int(positional[0]) <= steps:
        raise ValueError(f"method {text!r}: after the colon comes a number of steps, 1 to {steps}")
    return int(positional[0])


def _curve(name: str, options: Mapping[str, Any]) -> str:
    """The method with the options that make it another one; thresholds and counts do not."""
    kept = {k: v for k, v in options.items() if isinstance(v, bool | str) or k == "forecast"}
    words = [name, *(f"{key}={value}" for key, value in sorted(kept.items()))]
    return " ".join(words)
