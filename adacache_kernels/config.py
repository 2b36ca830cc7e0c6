"""`AdaCacheConfig`: what a user can set, checked once, when it is made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from .byte_sizes import parse_bytes
from .codebook import Codebook, parse_codebook, plain_pairs
from .presets import PRESETS, moreg_window, preset_codebook
from .profile import Profile
from .types import CacheDtype, CacheRes, ForecastTime, Measure, Metric, OverBudget

Location = int | str
ORDERS = (0, 1, 2)
RELEASED_MOREG, RELEASED_GRADIENT = (0.385, 8.0, 1.0), 10.0
LOCATION_NAMES = ("start", "middle", "end")


@dataclass(frozen=True)
class AdaCacheConfig:
    """Settings of Adaptive Caching (arXiv 2411.02397); the names are the paper's.

        distance = ||c - p||_1 / ||c||_1 / k * (score + |grad|)
        next computed step = this step + rate(codebook, distance)

    with `p` the residual of the metric block now, `c` the one `k` steps ago, and `score`, `grad` of
    motion regularisation (1 and 0 without it).

    Args:
        codebook: a preset's name ("fast", "slow"), or `{threshold: rate}` as a dict or as a
            sequence of pairs, thresholds rising, rates integers >= 1. The rate of the first
            threshold that the distance is below holds, else the last one.
        cache_loc: metric block(s): an index (negative ones count from the end), "start", "middle",
            "end", or several of them, whose distances are averaged.
        cache_res: residual that is measured: "t-attn", "s-attn" (the gated attention residual),
            "ca-mlp" (cross attention plus gated MLP), "block" (the whole block). None: the first of
            t-attn, s-attn, block that the model has.
        metric: "l1", "l2" or "cosine".
        apply_moreg: motion regularisation.
        moreg_strides: frame distances of the motion score, averaged.
        moreg_steps: first and last step, counted from 1, of the window in which the score is
            measured. None: steps 4 to 26 at 30 steps, 10 to 90 at 100, in between linear.
        moreg_hyp: (a, b, d) of `score = (motion / a) ** b / d`. None: the profile's, else those of
            the released code, (0.385, 8, 1).
        mograd_mul: factor of the motion gradient. None: 0 with a profile, else 10, as released.
        num_inference_steps: steps of a generation. A pipeline tells it by itself, a bare model
            cannot do so.
        calls_per_step: forward calls that make one step of a bare model (2 for guidance in two
            calls). Named cache contexts need none.
        forecast: order of the forecast of a residual in reused steps: 0 repeats the last one (the
            paper), 1 goes on along a straight line, 2 along a parabola, at one more tensor per
            stream each.
        forecast_time: along what the forecast is drawn: "step", or the scheduler's "timestep",
            "sigma" or "log-snr", which only a pipeline has. With a profile the forecast is fitted.
        correct: computed steps make up for what the forecasts before them missed, at one more
            tensor per stream.
        measure: what decides about the next computed step: the "distance" of the metric block's
            residual to the one before (the paper), or the "forecast-error", the distance of the
            residual of all blocks to its forecast; cache_loc and cache_res then do not matter.
        schedule: steps to compute, counted from 1, whatever the video; nothing is measured, so that
            residuals that are not finite go unnoticed.
        profile: a `Profile`, or the JSON file of one: the schedule that it plans, stretched or
            shortened by the error of this video's forecasts; the forecasts fitted to it.
        computed_steps: how many steps the profile's plan computes; videos differ from it.
        adaptivity: 0 to 1, how much a profile's plan gives way to this video.
        max_cache_bytes: most bytes that the cache may take on the model's device: a number of them,
            "2GiB", or a fraction (0.25) of the memory that is free at the first generation. None:
            what the device has. The plan is made from the shapes of the first forward.
        cache_dtype: "int8" or "fp8" stores residuals in eight bits with one scale a token; None:
            in the model's dtype. What distances are measured to stays in the model's dtype.
        over_budget: what to do if the plan does not fit, in this order: store in "int8" or "fp8",
            in "host" memory (which is copied to the device piece by piece), or "refuse" with a
            `CacheBudgetError` that has the plan, as always if nothing else helps.
        max_warmup_steps: first steps that are always computed (the paper: 1).
        max_continuous_cached_steps: most reused steps in a row. None: what the codebook says.

    Raises:
        TypeError, ValueError: name the field, its value and what it may be.
    """

    codebook: str | Mapping[float, int] | Iterable[tuple[float, int]] = "fast"
    cache_loc: Location | Iterable[Location] = "middle"
    cache_res: CacheRes | None = None
    metric: Metric = "l1"
    apply_moreg: bool = False
    moreg_strides: Iterable[int] = (1,)
    moreg_steps: tuple[int, int] | None = None
    moreg_hyp: tuple[float, float, float] | None = None
    mograd_mul: float | None = None
    num_inference_steps: int | None = None
    calls_per_step: int | None = None
    forecast: int = 0
    forecast_time: ForecastTime = "step"
    correct: bool = False
    measure: Measure = "distance"
    schedule: Iterable[int] | None = None
    profile: Profile | Mapping[str, Any] | str | Path | None = None
    computed_steps: float | None = None
    adaptivity: float = 1.0
    max_cache_bytes: int | float | str | None = None
    cache_dtype: CacheDtype | None = None
    over_budget: Iterable[OverBudget] = ("refuse",)
    max_warmup_steps: int = 1
    max_continuous_cached_steps: int | None = None
    _locations: tuple[Location, ...] = field(init=False, repr=False, compare=False)
    _profile: Profile | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.codebook, str):
            _check_choice("codebook", self.codebook, PRESETS)
        else:
            _set(self, "codebook", parse_codebook(self.codebook))
        _set(self, "_locations", _parse_locations(self.cache_loc))
        _set(
            self, "cache_loc", self._locations[0] if len(self._locations) == 1 else self._locations
        )
        if self.cache_res is not None:
            _check_choice("cache_res", self.cache_res, get_args(CacheRes))
        _check_choice("metric", self.metric, get_args(Metric))
        _check_bool("apply_moreg", self.apply_moreg)
        _set(self, "moreg_strides", _parse_strides(self.moreg_strides))
        if self.moreg_steps is not None:
            _set(self, "moreg_steps", _parse_window(self.moreg_steps))
        if self.moreg_hyp is not None:
            _set(self, "moreg_hyp", _parse_moreg_hyp(self.moreg_hyp))
        if self.mograd_mul is not None:
            _check_finite("mograd_mul", self.mograd_mul, at_least=0.0)
        _check_int("num_inference_steps", self.num_inference_steps, at_least=1, optional=True)
        _check_int("calls_per_step", self.calls_per_step, at_least=1, optional=True)
        _check_order(self.forecast)
        _check_choice("forecast_time", self.forecast_time, get_args(ForecastTime))
        _check_bool("correct", self.correct)
        if self.schedule is not None:
            _set(self, "schedule", _parse_steps(self.schedule))
        _set(self, "_profile", _parse_profile(self.profile))
        _check_profile_settings(self)
        if self._profile is not None:
            # The plan is made for the error of forecasts.
            _set(self, "measure", "forecast-error")
        _check_choice("measure", self.measure, get_args(Measure))
        _check_finite("adaptivity", self.adaptivity, at_least=0.0, at_most=1.0)
        _check_memory(self)
        _check_int("max_warmup_steps", self.max_warmup_steps, at_least=1)
        _check_int(
            "max_continuous_cached_steps",
            self.max_continuous_cached_steps,
            at_least=0,
            optional=True,
        )

    @property
    def locations(self) -> tuple[Location, ...]:
        """`cache_loc` as a tuple, however it was given."""
        return self._locations

    @property
    def loaded_profile(self) -> Profile | None:
        """`profile`, however it was given."""
        return self._profile

    @property
    def measured_metric(self) -> Metric:
        """`metric`, or with a profile the one that its errors are known in."""
        return "l2" if self._profile is not None else self.metric

    @property
    def moreg(self) -> tuple[float, float, float, float]:
        """(a, b, d) and the gradient's factor, as they are in force."""
        profile = self._profile
        hyp = self.moreg_hyp or (RELEASED_MOREG if profile is None else profile.moreg_hyp)
        by_default = RELEASED_GRADIENT if profile is None else 0.0
        return (*hyp, by_default if self.mograd_mul is None else self.mograd_mul)

    @property
    def strides(self) -> tuple[int, ...]:
        """Frame strides of the motion score; empty without motion regularisation."""
        return tuple(self.moreg_strides) if self.apply_moreg else ()

    def codebook_for(self, num_steps: int) -> Codebook:
        """The codebook for a generation of `num_steps`, capped by `max_continuous_cached_steps`."""
        if isinstance(self.codebook, str):
            codebook = preset_codebook(self.codebook, num_steps)
        else:
            codebook = parse_codebook(self.codebook)
        cap = self.max_continuous_cached_steps
        return codebook if cap is None else codebook.capped(cap + 1)

    def window_for(self, num_steps: int) -> tuple[int, int]:
        """First and last step in which the motion score is measured."""
        return moreg_window(num_steps) if self.moreg_steps is None else self.moreg_steps

    def to_dict(self) -> dict[str, Any]:
        """Numbers, strings and lists, for JSON; `AdaCacheConfig(**d)` gives the config back."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        if isinstance(self.codebook, Codebook):
            values["codebook"] = plain_pairs(self.codebook)
        for name in _TUPLES:
            if isinstance(values[name], tuple):
                values[name] = list(values[name])
        if isinstance(self.profile, Path):
            values["profile"] = str(self.profile)
        elif self._profile is not None and not isinstance(self.profile, str):
            values["profile"] = self._profile.to_dict()
        return values


_TUPLES = ("cache_loc", "moreg_strides", "moreg_steps", "moreg_hyp", "schedule", "over_budget")


def _set(config: AdaCacheConfig, name: str, value: object) -> None:
    object.__setattr__(config, name, value)


def _check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    known = tuple(choices)
    if value not in known:
        raise ValueError(f"{name} is {value!r}; it may be one of {', '.join(map(repr, known))}")


def _check_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; it may be True or False")


def _check_int(name: str, value: object, *, at_least: int, optional: bool = False) -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}; it must be an integer >= {at_least}")
    if value < at_least:
        raise ValueError(f"{name} is {value}; it must be >= {at_least}")


def _check_finite(name: str, value: object, *, at_least: float, at_most: float = math.inf) -> None:
    expected = f">= {at_least}" + (f" and <= {at_most}" if at_most < math.inf else "")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is {value!r}; it must be a number {expected}")
    if not math.isfinite(value) or not at_least <= value <= at_most:
        raise ValueError(f"{name} is {value}; it must be finite and {expected}")


def _check_order(order: object) -> None:
    _check_int("forecast", order, at_least=0)
    if order not in ORDERS:
        raise ValueError(f"forecast is {order}; its order may be 0, 1 or 2")


def _check_profile_settings(config: AdaCacheConfig) -> None:
    if config.loaded_profile is None:
        if config.computed_steps is not None:
            raise ValueError(
                f"computed_steps={config.computed_steps} is for a profile's plan; give profile=, "
                "or the steps themselves with schedule="
            )
        return
    if config.forecast_time != "step":
        raise ValueError(
            f"forecast_time={config.forecast_time!r}: a profile's forecasts are fitted and know "
            "no time; leave it out"
        )
    if (config.computed_steps is None) == (config.schedule is None):
        raise ValueError(
            "a profile needs either computed_steps=, how many steps its plan is to compute, or "
            "schedule=, which ones to compute"
        )
    if config.computed_steps is not None:
        _check_finite("computed_steps", config.computed_steps, at_least=1.0)


def _check_budget(value: object) -> None:
    if value is None:
        return
    if isinstance(value, str):
        try:
            parse_bytes(value)
        except ValueError as error:
            raise ValueError(f"max_cache_bytes: {error}") from None
    elif isinstance(value, float):
        _check_finite("max_cache_bytes", value, at_least=0.0, at_most=1.0)
    else:
        _check_int("max_cache_bytes", value, at_least=1)


def _check_memory(config: AdaCacheConfig) -> None:
    _check_budget(config.max_cache_bytes)
    if config.cache_dtype is not None:
        _check_choice("cache_dtype", config.cache_dtype, get_args(CacheDtype))
    given: object = config.over_budget
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(
            f"over_budget is {given!r}; it must be a sequence, such as ('int8', 'host')"
        )
    ways = tuple(given)
    for way in ways:
        _check_choice("over_budget", way, get_args(OverBudget))
    if "refuse" in ways[:-1]:
        raise ValueError(f"over_budget is {ways}; nothing can come after 'refuse'")
    _set(config, "over_budget", ways)


def _parse_profile(value: object) -> Profile | None:
    if value is None or isinstance(value, Profile):
        return value
    if isinstance(value, str | Path):
        return Profile.load(value)
    if isinstance(value, Mapping):
        return Profile.from_dict(value)
    raise TypeError(f"profile is {value!r}; it may be a Profile or the path of its JSON file")


def _parse_steps(value: object) -> tuple[int, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"schedule is {value!r}; it must be a sequence of steps, counted from 1")
    steps = tuple(value)
    for step in steps:
        _check_int("schedule", step, at_least=1)
    return tuple(sorted(set(steps)))


def _parse_locations(value: object) -> tuple[Location, ...]:
    if isinstance(value, int | str):
        given: tuple[object, ...] = (value,)
    elif isinstance(value, Iterable):
        given = tuple(value)
    else:
        raise TypeError(f"cache_loc is {value!r}; {_LOCATION_HELP}")
    if not given:
        raise ValueError(f"cache_loc is empty; {_LOCATION_HELP}")
    return tuple(_parse_location(item) for item in given)


_LOCATION_HELP = "it may be a block's index, 'start', 'middle', 'end', or several of them"


def _parse_location(value: object) -> Location:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value in LOCATION_NAMES:
        return value
    if isinstance(value, str):
        raise ValueError(f"cache_loc holds {value!r}; {_LOCATION_HELP}")
    raise TypeError(f"cache_loc holds {value!r}; {_LOCATION_HELP}")


def _parse_strides(value: object) -> tuple[int, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"moreg_strides is {value!r}; it must be a sequence of integers >= 1")
    strides = tuple(value)
    if not strides:
        raise ValueError("moreg_strides is empty; name at least one frame stride, for example (1,)")
    for stride in strides:
        _check_int("moreg_strides", stride, at_least=1)
    return strides


def _parse_window(value: object) -> tuple[int, int]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"moreg_steps is {value!r}; it must be (first step, last step)")
    window = tuple(value)
    if len(window) != 2:
        raise ValueError(f"moreg_steps is {window}; it must be (first step, last step)")
    for step in window:
        _check_int("moreg_steps", step, at_least=1)
    if window[0] > window[1]:
        raise ValueError(f"moreg_steps is {window}; its first step must not come after its last")
    return window[0], window[1]


def _parse_moreg_hyp(value: object) -> tuple[float, float, float]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"moreg_hyp is {value!r}; it must be three numbers (a, b, d)")
    given = tuple(value)
    if len(given) != 3:
        raise ValueError(f"moreg_hyp is {given}; it must be three numbers (a, b, d)")
    for number in given:
        _check_finite("moreg_hyp", number, at_least=0.0)
    a, b, d = (float(number) for number in given)
    if a == 0.0 or d == 0.0:
        raise ValueError(f"moreg_hyp is {given}; a and d divide, so they must not be 0")
    return a, b, d
