"""The methods that can be compared, and their names on the command line.

fast                              a preset, as are slow and forecast
fast:apply_moreg=True             a preset with other settings of patch()
adacache:codebook={0.1: 3, 9: 1}  any settings of patch()
even:17                           17 evenly spread steps; even:17:forecast=1:correct=True
calibration.json                  a file of `adacache calibrate`
profile.json:computed_steps=17    a profile
profile:computed_steps=17         the demo's profile for this number of scheduler steps
refined:17                        the demo's refined schedule of 17 steps
steps:17                          no cache, 17 steps of the pipeline's own scheduler
steps:17:UniPCMultistepScheduler  no cache, 17 steps of another scheduler
FirstBlockCache:threshold=0.1     a cache of diffusers, by the name of its config
cache-dit:Fn_compute_blocks=1     DBCache of cache-dit
pab:latte-fast                    a baseline of this package, with a published preset, as are
pab:latte-fast:cross=7            t-gate, delta-dit and teacache
first-block:threshold=0.1         a baseline with settings only, as are taylorseer, interval,
                                  per-layer and mag-cache

The caches of diffusers and cache-dit run with the workarounds of `external_caches.py`; the option
help=False turns these off.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..api.patch import patch, summary, unpatch
from ..api.resolve_config import resolve_config
from ..config.calibration_file import is_calibration
from ..demo.presets import PROFILES, SCHEDULES
from ..engine.reports.summary import Summary
from ..schedule import evenly_spread
from ..schedule.presets import SETTINGS
from .baseline_spec import BASELINES, baseline_config
from .external_caches import ExternalCache, external_cache
from .option_values import literal, split_outside_brackets

FULL = "full"
FEWER_STEPS = "fewer steps"
LastSummary = Callable[[], Summary | None]


@dataclass(frozen=True)
class Method:
    """One way to generate a video.

    Args:
        name: as given on the command line.
        curve: methods with equal names are points of one curve in the plots.
        steps: of the scheduler.
        applied: from a pipeline to a context in which the pipeline runs by this method. The context
            yields a function that returns the summary of the last generation, or None.
        notes: changes to the pipeline that the method needed so far.
    """

    name: str
    curve: str
    steps: int
    applied: Callable[[Any], AbstractContextManager[LastSummary]]
    notes: list[str] = field(default_factory=list)


def full_method(steps: int) -> Method:
    """Return the method that leaves the pipeline unchanged."""
    return Method(FULL, FULL, steps, _unchanged)


def parse_methods(names: Sequence[str], steps: int) -> list[Method]:
    """Return the methods with these names, for generations of `steps` steps.

    Raises:
        ValueError: a name is wrong, or given twice.
    """
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"--methods has {twice[0]} twice")
    return [parse_method(name, steps) for name in names]


def parse_method(text: str, steps: int) -> Method:
    """Return the method with a name, for generations of `steps` steps.

    Raises:
        ValueError: there is no such method, or an option is unknown or has a wrong value.
    """
    spec = _Spec.of(text, steps)
    parsers = {"steps": _fewer_steps, "even": _even, "refined": _refined}
    parsers |= dict.fromkeys(BASELINES, _baseline)
    if spec.name in parsers:
        return parsers[spec.name](spec)
    if spec.words:
        raise ValueError(f"method {text!r}: {spec.words[0]!r} is no option; write key=value")
    if spec.name == "adacache":
        return _patched(spec, spec.curve, None, spec.options)
    if spec.name in SETTINGS:
        return _patched(spec, spec.curve, spec.name, spec.options)
    if spec.name == "profile":
        return _planned(spec, spec.curve, _demo_profile(spec), spec.options)
    if spec.name.endswith(".json") and is_calibration(spec.name):
        return _patched(spec, spec.name, spec.name, spec.options)
    if spec.name.endswith(".json"):
        return _planned(spec, spec.name, spec.name, spec.options)
    cache = external_cache(text, spec.name, spec.options, steps)
    if cache is not None:
        return Method(text, spec.curve, steps, partial(_enabled, cache), cache.notes)
    raise ValueError(
        f"method {text!r}: there are {', '.join(SETTINGS)}, adacache, even:COUNT, profile, "
        f"steps:COUNT, {', '.join(BASELINES)}, FILE.json, cache-dit and the caches of diffusers, "
        "such as FirstBlockCache; options are key=value, with colons between"
    )


@dataclass(frozen=True)
class _Spec:
    """A method's name, taken apart.

    Args:
        text: all of it.
        name: the part before the first colon.
        words: the other parts that are not key=value.
        options: those that are.
        steps: of the scheduler.
    """

    text: str
    name: str
    words: list[str]
    options: dict[str, Any]
    steps: int

    @classmethod
    def of(cls, text: str, steps: int) -> _Spec:
        name, *parts = split_outside_brackets(text, ":")
        pairs = [part.partition("=") for part in parts]
        words = [key for key, equals, _ in pairs if not equals]
        options = {key: literal(value) for key, equals, value in pairs if equals}
        return cls(text, name, words, options, steps)

    @property
    def curve(self) -> str:
        """Return the name with the options that are flags or words, or a forecast's order.

        Thresholds and numbers of steps are left out: methods that differ in them share a curve.
        """
        shown = {
            key: value
            for key, value in self.options.items()
            if isinstance(value, bool | str) or key == "forecast"
        }
        return " ".join([self.name, *(f"{key}={value}" for key, value in sorted(shown.items()))])

    def count(self, words: Sequence[str]) -> int:
        """Return the number of steps that is the only one of `words`."""
        if len(words) != 1 or not words[0].isdigit() or not 1 <= int(words[0]) <= self.steps:
            raise ValueError(
                f"method {self.text!r}: after the colon comes a number of steps, 1 to {self.steps}"
            )
        return int(words[0])


def _even(spec: _Spec) -> Method:
    schedule = evenly_spread(spec.count(spec.words), spec.steps)
    return _patched(spec, spec.curve, None, spec.options | {"schedule": schedule})


def _refined(spec: _Spec) -> Method:
    known = json.loads(SCHEDULES.read_text()).get(str(spec.steps), {})
    if len(spec.words) != 1 or spec.words[0] not in known:
        raise ValueError(
            f"method {spec.text!r}: of {spec.steps} steps there are refined schedules of "
            f"{', '.join(known) or 'none'}; write refined:COUNT, or calibrate with --refine"
        )
    options = spec.options | {"schedule": known[spec.words[0]]}
    return _planned(spec, spec.curve, _demo_profile(spec), options)


def _baseline(spec: _Spec) -> Method:
    config = baseline_config(spec.text, spec.name, spec.words, spec.options)
    return _patched(spec, spec.name, config, {})


def _fewer_steps(spec: _Spec) -> Method:
    count = spec.count(spec.words[:1])
    if spec.options or len(spec.words) > 2:
        raise ValueError(f"method {spec.text!r}: write steps:COUNT or steps:COUNT:SCHEDULER")
    if len(spec.words) == 1:
        return Method(spec.text, FEWER_STEPS, count, _unchanged)
    name = spec.words[1]
    scheduler = _diffusers_class(name)
    if scheduler is None:
        raise ValueError(f"method {spec.text!r}: diffusers has no scheduler {name}")

    @contextmanager
    def applied(pipe: Any) -> Iterator[LastSummary]:
        own = pipe.scheduler
        pipe.scheduler = scheduler.from_config(own.config)
        try:
            yield lambda: None
        finally:
            pipe.scheduler = own

    curve = f"{FEWER_STEPS}, {name.removesuffix('Scheduler')}"
    return Method(spec.text, curve, count, applied)


def _planned(spec: _Spec, curve: str, profile: str, options: Mapping[str, Any]) -> Method:
    settings = {"profile": profile, "forecast": 1, "correct": True} | dict(options)
    return _patched(spec, curve, None, settings)


def _patched(spec: _Spec, curve: str, config: Any, settings: Mapping[str, Any]) -> Method:
    try:
        resolve_config(config, dict(settings))
    except (TypeError, ValueError) as error:
        raise ValueError(f"method {spec.text!r}: {error}") from error

    @contextmanager
    def applied(pipe: Any) -> Iterator[LastSummary]:
        patch(pipe, config, **settings)
        try:
            yield lambda: summary(pipe)
        finally:
            unpatch(pipe)

    return Method(spec.text, curve, spec.steps, applied)


def _demo_profile(spec: _Spec) -> str:
    path = PROFILES / f"{spec.steps}.json"
    if not path.is_file():
        counts = sorted(int(path.stem) for path in PROFILES.glob("[0-9]*.json"))
        raise ValueError(
            f"method {spec.text!r}: no profile ships for {spec.steps} steps, only for "
            f"{', '.join(map(str, counts))}; `adacache calibrate` makes one"
        )
    return str(path)


@contextmanager
def _unchanged(_pipe: Any) -> Iterator[LastSummary]:
    yield lambda: None


@contextmanager
def _enabled(cache: ExternalCache, pipe: Any) -> Iterator[LastSummary]:
    with cache.applied(pipe):
        yield lambda: None


def _diffusers_class(name: str) -> Any:
    import diffusers

    return getattr(diffusers, name, None) if name.isidentifier() else None
