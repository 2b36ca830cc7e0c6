"""The settings of Adaptive Caching: `AdaCacheConfig`, and the values that follow from it."""

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
from ..schedule.calibrated_for import CalibratedFor, parse_calibrated_for
from ..schedule.codebook import Codebook, parse_codebook, plain_pairs
from ..schedule.presets import PRESETS, moreg_window, preset_codebook
from ..schedule.profile import Profile
from .validation import (
    Location,
    check_bool,
    check_budget,
    check_choice,
    check_finite,
    check_graph_mode,
    check_int,
    check_order,
    check_profile_settings,
    parse_locations,
    parse_moreg_hyp,
    parse_over_budget,
    parse_profile,
    parse_steps,
    parse_strides,
    parse_window,
)

ASSUMED_STEPS = 50
"""Steps of a generation for which presets are made if the number is not known."""
RELEASED_MOREG = (0.385, 8.0, 1.0)
"""(a, b, d) of the released code."""
RELEASED_GRADIENT = 10.0
"""Factor of the motion gradient in the released code."""


@dataclass(frozen=True)
class AdaCacheConfig:
    """Settings of Adaptive Caching (arXiv 2411.02397); the names are those of the released code.

        distance = ||p - c||_1 / ||c||_1 / k * (score + |grad|)
        next computed step = this step + rate(codebook, distance)

    with `p` the residual of the metric block in this step, `c` the one stored `k` steps ago, and
    `score` and `grad` of motion regularization (MoReg), 1 and 0 without it:

        score = (motion / a) ** b / d
        grad = mograd_mul * (score - previous score) / k

    Decision by distance:

    Args:
        codebook: name of a preset, "fast" (default) or "slow", or pairs {threshold: rate}, as a
            dict or a sequence. Thresholds rise; rates are integers of at least 1. The first
            threshold above the distance gives the rate; if there is none, the last rate.
        cache_loc: metric block: its index (a negative one counts from the end), "start", "middle"
            (default) or "end", or a sequence of these. Their distances are averaged.
        cache_res: measured residual: "t-attn" or "s-attn" (gated temporal or spatial attention),
            "ca-mlp" (cross attention and gated MLP) or "block" (the whole block). Default None: the
            first of t-attn, s-attn and block that the model has.
        metric: metric of the distance: "l1" (default), "l2" or "cosine".
        apply_moreg: True applies motion regularization. Default False.
        moreg_strides: frame strides of the motion score, which is averaged over them. Default (1,).
        moreg_steps: first and last step, counted from 1, in which the motion score is measured.
            Default None: 4 to 26 of 30 steps, 10 to 90 of 100, and interpolated in between.
        moreg_hyp: (a, b, d) of the motion score. Default None: those of the profile, or without one
            those of the released code, (0.385, 8, 1).
        mograd_mul: factor of the motion gradient. Default None: 10 as in the released code, or 0
            with a profile.
        num_inference_steps: number of steps of a generation. Default None: the pipeline's. A bare
            model does not know it. Then presets are those for 50 steps, and the engine recognises a
            new generation by timesteps on the CPU, or by `reset`.
        calls_per_step: number of forward calls that make one step of a bare model; 2 for guidance
            in two calls. Default None: 1. Named cache contexts do not need it.
        batch: decision for several videos in a batch. "any" (default): the largest distance
            decides. "mean": the mean distance decides. "each": every video has its own schedule and
            its own calls of the model, which must accept single rows.
        guidance_rows: number of batch rows that each video has in one call. Their sums are added,
            as in the released code; row `r` belongs to video `r % videos`. Default None: 2 if a
            pipeline uses guidance with both branches in one call, else 1. For a bare model, or a
            pipeline that does not report guidance: 2 if such models have both branches in one
            call, a step is one call, and the batch is even. Set 1 for a batch without guidance.
        decide_for: "step" (default): one decision for all guidance branches, made by the first call
            of a step, or by the conditional call if the names show which one it is. "branch": one
            decision for each branch, which stores one more metric residual each.

    Forecasts and fixed schedules:

    Args:
        forecast: order of the forecast of residuals. 0 (default) repeats the last one, as the paper
            does; 1 is a straight line, 2 a parabola. Each order stores one more residual a stream.
        forecast_time: time variable of the forecast: "step" (default), or "timestep", "sigma" or
            "log-snr" of the scheduler, for pipelines only. Not with a profile.
        correct: True lets computed steps compensate for the errors of the forecasts before them.
            It stores one more residual a stream. Default False.
        measure: quantity that decides. "distance" (default): from the metric block's residual to
            the stored one, as in the paper. "forecast-error": from the residual of all blocks to
            its forecast; cache_loc and cache_res do not matter then.
        schedule: steps to compute, counted from 1, for every video. Nothing is measured then, so
            residuals that are not finite go unnoticed. Default None.
        profile: a `Profile`, its dict, or the path of its JSON file. The profile plans the schedule
            and fits the forecasts; the plan adapts to the forecast errors of the video. Default
            None.
        computed_steps: number of steps that the plan of the profile computes on average. Default
            None.
        adaptivity: 0 to 1, how far the plan adapts to the video. Default 1.
        calibrated_for: model, scheduler and number of steps that a calibration is for, or the dict
            of them. Another one raises ValueError. Default None: no check.

    Memory:

    Args:
        max_cache_bytes: most bytes of the cache on the model's device: an integer, a text such as
            "2GiB", or a fraction (0.25) of the memory that is free at the first generation. Default
            None: all memory of the device. The plan is made at the first forward call.
        cache_dtype: "int8" or "fp8" stores residuals in eight bits, with one scale for each token.
            Default None: the model's dtype. Residuals of metric blocks keep the model's dtype.
        over_budget: alternatives to try, in this order, if the plan does not fit. "int8", "fp8": in
            eight bits. "host": in host memory, copied to the device in chunks. "refuse": none. If
            no alternative fits, `CacheBudgetError` is raised with the plan. Default ("refuse",).

    Decision on host or device, and limits:

    Args:
        decision: "async" (default): the device writes the decision to pinned host memory, and the
            host reads it at the next step. "sync": the host waits for it, for debugging. "graph":
            the device decides, in a CUDA graph of the step. No difference on a CPU, except "graph".
        max_warmup_steps: number of first steps that are always computed. Default 1, as the paper.
        max_continuous_cached_steps: most reused steps in a row. Default None: no limit besides the
            codebook.

    Raises:
        TypeError, ValueError: a setting is wrong. The message names it, its value and the values
            that it may have.
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
    calibrated_for: CalibratedFor | None = None
    max_cache_bytes: int | float | str | None = None
    cache_dtype: CacheDtype | None = None
    over_budget: Iterable[OverBudget] = ("refuse",)
    decision: DecisionMode = "async"
    max_warmup_steps: int = 1
    max_continuous_cached_steps: int | None = None
    _locations: tuple[Location, ...] = field(init=False, repr=False, compare=False)
    _profile: Profile | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._check_decision_by_distance()
        self._check_steps_and_calls()
        self._check_forecast()
        self._check_memory()
        self._check_decision_mode()

    def _check_decision_by_distance(self) -> None:
        if isinstance(self.codebook, str):
            check_choice("codebook", self.codebook, PRESETS)
        else:
            _set(self, "codebook", parse_codebook(self.codebook))
        locations = parse_locations(self.cache_loc)
        _set(self, "_locations", locations)
        _set(self, "cache_loc", locations[0] if len(locations) == 1 else locations)
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

    def _check_steps_and_calls(self) -> None:
        for name in ("num_inference_steps", "calls_per_step", "guidance_rows"):
            check_int(name, getattr(self, name), at_least=1, optional=True)
        check_choice("batch", self.batch, get_args(BatchPolicy))
        check_choice("decide_for", self.decide_for, get_args(DecideFor))
        check_int("max_warmup_steps", self.max_warmup_steps, at_least=1)
        most = self.max_continuous_cached_steps
        check_int("max_continuous_cached_steps", most, at_least=0, optional=True)

    def _check_forecast(self) -> None:
        check_order(self.forecast)
        check_choice("forecast_time", self.forecast_time, get_args(ForecastTime))
        check_bool("correct", self.correct)
        if self.schedule is not None:
            _set(self, "schedule", parse_steps(self.schedule))
        profile = parse_profile(self.profile)
        _set(self, "_profile", profile)
        check_profile_settings(profile, self.computed_steps, self.schedule, self.forecast_time)
        if profile is not None:
            # The plan minimises the errors of forecasts.
            _set(self, "measure", "forecast-error")
        check_choice("measure", self.measure, get_args(Measure))
        check_finite("adaptivity", self.adaptivity, at_least=0.0, at_most=1.0)
        _set(self, "calibrated_for", parse_calibrated_for(self.calibrated_for))

    def _check_memory(self) -> None:
        check_budget(self.max_cache_bytes)
        if self.cache_dtype is not None:
            check_choice("cache_dtype", self.cache_dtype, get_args(CacheDtype))
        _set(self, "over_budget", parse_over_budget(self.over_budget))

    def _check_decision_mode(self) -> None:
        check_choice("decision", self.decision, get_args(DecisionMode))
        if self.decision == "graph":
            check_graph_mode(
                {
                    "schedule": self.schedule is not None,
                    "profile": self._profile is not None,
                    "forecast": self.forecast > 0,
                    "correct": self.correct,
                    "measure": self.measure != "distance",
                    "over_budget": "host" in self.over_budget,
                }
            )

    @property
    def locations(self) -> tuple[Location, ...]:
        """Return `cache_loc` as a tuple."""
        return self._locations

    @property
    def loaded_profile(self) -> Profile | None:
        """Return `profile` as a `Profile`."""
        return self._profile

    @property
    def measured_metric(self) -> Metric:
        """Return the metric of the distance: "l2" with a profile, else `metric`."""
        return "l2" if self._profile is not None else self.metric

    @property
    def decides_by_measurement(self) -> bool:
        """Return True if measurements decide, False for a fixed `schedule`."""
        return self.schedule is None

    @property
    def decides_by_codebook(self) -> bool:
        """Return True if the codebook decides, and neither a schedule nor a profile."""
        return self.decides_by_measurement and self._profile is None

    @property
    def compares_forecasts(self) -> bool:
        """Return True if forecast errors are measured instead of metric blocks."""
        return self.decides_by_measurement and self.measure == "forecast-error"

    @property
    def moreg(self) -> tuple[float, float, float, float]:
        """Return (a, b, d) of the motion score, and the factor of the motion gradient."""
        profile = self._profile
        hyp = self.moreg_hyp or (RELEASED_MOREG if profile is None else profile.moreg_hyp)
        by_default = RELEASED_GRADIENT if profile is None else 0.0
        return (*hyp, by_default if self.mograd_mul is None else self.mograd_mul)

    @property
    def strides(self) -> tuple[int, ...]:
        """Return the frame strides of the motion score; () without motion regularization."""
        return tuple(self.moreg_strides) if self.apply_moreg else ()

    def codebook_for(self, num_steps: int) -> Codebook:
        """Return the codebook, with no rate above `max_continuous_cached_steps` + 1.

        Args:
            num_steps: number of steps of the generation; 0 or less if it is not known.
        """
        if isinstance(self.codebook, str):
            codebook = preset_codebook(self.codebook, num_steps if num_steps > 0 else ASSUMED_STEPS)
        else:
            codebook = parse_codebook(self.codebook)
        cap = self.max_continuous_cached_steps
        return codebook if cap is None else codebook.capped(cap + 1)

    def window_for(self, num_steps: int) -> tuple[int, int]:
        """Return the first and last step in which the motion score is measured.

        Args:
            num_steps: number of steps of the generation; 0 or less if it is not known.
        """
        steps = num_steps if num_steps > 0 else ASSUMED_STEPS
        return moreg_window(steps) if self.moreg_steps is None else self.moreg_steps

    def to_dict(self) -> dict[str, Any]:
        """Return numbers, strings and lists, for JSON; `AdaCacheConfig(**d)` reads them."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        for name, value in values.items():
            if isinstance(value, tuple):
                values[name] = list(value)
        if isinstance(self.codebook, Codebook):
            values["codebook"] = plain_pairs(self.codebook)
        if isinstance(self.profile, Path):
            values["profile"] = str(self.profile)
        elif self._profile is not None and not isinstance(self.profile, str):
            values["profile"] = self._profile.to_dict()
        if self.calibrated_for is not None:
            values["calibrated_for"] = self.calibrated_for.to_dict()
        return values


def _set(config: AdaCacheConfig, name: str, value: object) -> None:
    object.__setattr__(config, name, value)
