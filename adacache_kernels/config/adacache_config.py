"""`AdaCacheConfig`: what a user can set, checked once, when it is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from ..options import (
    BatchPolicy,
    CacheDtype,
    CacheRes,
    DecideFor,
    DecisionMode,
    ForecastTime,
    Measure,
    Metric,
    OverBudget,
)
from ..schedule.calibrated_for import MadeFor, parse_made_for
from ..schedule.codebook import Codebook, parse_codebook, plain_pairs
from ..schedule.presets import PRESETS, moreg_window, preset_codebook
from ..schedule.profile import Profile
from .validation import (
    Location,
    check_bool,
    check_budget,
    check_choice,
    check_finite,
    check_int,
    check_order,
    parse_locations,
    parse_moreg_hyp,
    parse_profile,
    parse_steps,
    parse_strides,
    parse_window,
)

ASSUMED_STEPS = 50
RELEASED_MOREG, RELEASED_GRADIENT = (0.385, 8.0, 1.0), 10.0


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
        num_inference_steps: steps of a generation. A pipeline tells it by itself. A bare model
            cannot: without it presets are those for 50 steps, and the end of a generation is told
            by timesteps if they are on the CPU, else by `reset`.
        calls_per_step: forward calls that make one step of a bare model (2 for guidance in two
            calls). Named cache contexts need none.
        batch: of several videos in one batch: "any" goes by the largest of their distances, so that
            a step is computed if one of them needs it; "mean" by the mean; with "each", every video
            has its own schedule and its own calls of the model, which must take its rows alone.
        guidance_rows: rows of guidance that each video has in the batch of one call; their sums are
            pooled, as in the released code. Row `r` is of video `r % videos`. None: 2 where a
            pipeline says that there is guidance and its rows share a call, else 1; 2 on a bare
            model, and in a pipeline that does not say, if guidance of such models shares a call, a
            step is one call, and the batch is even. Unguided batches then need a 1.
        decide_for: "step" makes one decision for all branches of guidance, by the first call of a
            step, or by a conditional one where names tell that the first is not; "branch" lets each
            decide for itself, at one metric residual more for each.
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
        made_for: what a calibration's settings hold for, see `Calibration`: other runs are refused.
        max_cache_bytes: most bytes that the cache may take on the model's device: a number of them,
            "2GiB", or a fraction (0.25) of the memory that is free at the first generation. None:
            what the device has. The plan is made from the shapes of the first forward.
        cache_dtype: "int8" or "fp8" stores residuals in eight bits with one scale a token; None:
            in the model's dtype. What distances are measured to stays in the model's dtype.
        decision: how it is learnt which steps to compute. "async": the device writes to pinned host
            memory, and the host looks there when the next step begins; "sync": the host reads it
            where it is made, to find faults by; "graph": the device chooses by itself in a CUDA
            graph of a step, see the README. On a CPU the decision is there at once.
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
    batch: BatchPolicy = "any"
    guidance_rows: int | None = None
    decide_for: DecideFor = "step"
    forecast: int = 0
    forecast_time: ForecastTime = "step"
    correct: bool = False
    measure: Measure = "distance"
    schedule: Iterable[int] | None = None
    profile: Profile | Mapping[str, Any] | str | Path | None = None
    computed_steps: float | None = None
    adaptivity: float = 1.0
    made_for: MadeFor | Mapping[str, Any] | None = None
    max_cache_bytes: int | float | str | None = None
    cache_dtype: CacheDtype | None = None
    over_budget: Iterable[OverBudget] = ("refuse",)
    decision: DecisionMode = "async"
    max_warmup_steps: int = 1
    max_continuous_cached_steps: int | None = None
    _locations: tuple[Location, ...] = field(init=False, repr=False, compare=False)
    _profile: Profile | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.codebook, str):
            check_choice("codebook", self.codebook, PRESETS)
        else:
            _set(self, "codebook", parse_codebook(self.codebook))
        _set(self, "_locations", parse_locations(self.cache_loc))
        _set(
            self, "cache_loc", self._locations[0] if len(self._locations) == 1 else self._locations
        )
        if self.cache_res is not None:
            check_choice("cache_res", self.cache_res, get_args(CacheRes))
        check_choice("metric", self.metric, get_args(Metric))
        check_bool("apply_moreg", self.apply_moreg)
        _set(self, "moreg_strides", parse_strides(self.moreg_strides))
        if self.moreg_steps is not None:
            _set(self, "moreg_steps", parse_window(self.moreg_steps))
        if self.moreg_hyp is not None:
            _set(self, "moreg_hyp", parse_moreg_hyp(self.moreg_hyp))
        if self.mograd_mul is not None:
            check_finite("mograd_mul", self.mograd_mul, at_least=0.0)
        check_int("num_inference_steps", self.num_inference_steps, at_least=1, optional=True)
        check_int("calls_per_step", self.calls_per_step, at_least=1, optional=True)
        check_choice("batch", self.batch, get_args(BatchPolicy))
        check_int("guidance_rows", self.guidance_rows, at_least=1, optional=True)
        check_choice("decide_for", self.decide_for, get_args(DecideFor))
        check_order(self.forecast)
        check_choice("forecast_time", self.forecast_time, get_args(ForecastTime))
        check_bool("correct", self.correct)
        if self.schedule is not None:
            _set(self, "schedule", parse_steps(self.schedule))
        _set(self, "_profile", parse_profile(self.profile))
        _check_profile_settings(self)
        if self._profile is not None:
            # The plan is made for the error of forecasts.
            _set(self, "measure", "forecast-error")
        check_choice("measure", self.measure, get_args(Measure))
        check_finite("adaptivity", self.adaptivity, at_least=0.0, at_most=1.0)
        _set(self, "made_for", parse_made_for(self.made_for))
        _check_memory(self)
        _check_decision(self)
        check_int("max_warmup_steps", self.max_warmup_steps, at_least=1)
        check_int(
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
    def calibrated_for(self) -> MadeFor | None:
        """`made_for`, however it was given."""
        return parse_made_for(self.made_for)

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

    @property
    def decides_by_measurement(self) -> bool:
        """Return whether measurements decide. A given schedule needs none."""
        return self.schedule is None

    @property
    def decides_by_codebook(self) -> bool:
        """Return whether the codebook decides, and neither a schedule nor a profile."""
        return self.decides_by_measurement and self.loaded_profile is None

    @property
    def compares_forecasts(self) -> bool:
        """Return whether the errors of forecasts are measured instead of metric blocks."""
        return self.decides_by_measurement and self.measure == "forecast-error"

    def codebook_for(self, num_steps: int) -> Codebook:
        """The codebook for a generation of `num_steps`, capped by `max_continuous_cached_steps`.

        Where no number is known (0 or less), a preset is that for `ASSUMED_STEPS`.
        """
        if isinstance(self.codebook, str):
            codebook = preset_codebook(self.codebook, num_steps if num_steps > 0 else ASSUMED_STEPS)
        else:
            codebook = parse_codebook(self.codebook)
        cap = self.max_continuous_cached_steps
        return codebook if cap is None else codebook.capped(cap + 1)

    def window_for(self, num_steps: int) -> tuple[int, int]:
        """First and last step in which the motion score is measured."""
        steps = num_steps if num_steps > 0 else ASSUMED_STEPS
        return moreg_window(steps) if self.moreg_steps is None else self.moreg_steps

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
        if isinstance(self.made_for, MadeFor):
            values["made_for"] = self.made_for.to_dict()
        return values


_TUPLES = ("cache_loc", "moreg_strides", "moreg_steps", "moreg_hyp", "schedule", "over_budget")


def _set(config: AdaCacheConfig, name: str, value: object) -> None:
    object.__setattr__(config, name, value)


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
        check_finite("computed_steps", config.computed_steps, at_least=1.0)


def _check_memory(config: AdaCacheConfig) -> None:
    check_budget(config.max_cache_bytes)
    if config.cache_dtype is not None:
        check_choice("cache_dtype", config.cache_dtype, get_args(CacheDtype))
    given: object = config.over_budget
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(
            f"over_budget is {given!r}; it must be a sequence, such as ('int8', 'host')"
        )
    ways = tuple(given)
    for way in ways:
        check_choice("over_budget", way, get_args(OverBudget))
    if "refuse" in ways[:-1]:
        raise ValueError(f"over_budget is {ways}; nothing can come after 'refuse'")
    _set(config, "over_budget", ways)


def _check_decision(config: AdaCacheConfig) -> None:
    check_choice("decision", config.decision, get_args(DecisionMode))
    on_host = {
        "schedule": config.schedule is not None,
        "profile": config.loaded_profile is not None,
        "forecast": config.forecast > 0,
        "correct": config.correct,
        "measure": config.measure != "distance",
        "over_budget": "host" in config.over_budget,
    }
    wanted = [name for name, needs_host in on_host.items() if needs_host]
    if config.decision == "graph" and wanted:
        raise ValueError(
            f'decision="graph" cannot do what {" and ".join(wanted)} asks for: the device goes by '
            'the codebook, and reuses the last residual; leave them out, or use decision="async"'
        )
