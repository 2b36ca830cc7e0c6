"""The lifecycle that every engine has: a generation, an exception, a reset, lost steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

import adacache_kernels as ak
from adacache_kernels.api.target import attached_engine, installed_engines
from adacache_kernels.baselines.engine import BaselineEngine
from adacache_kernels.engine.base import EngineBase
from adacache_kernels.engine.clocks.clock import Reason
from adacache_kernels.engine.clocks.generation_track import GenerationTrack
from adacache_kernels.engine.engine import Engine
from adacache_kernels.engine.graph_engine import GraphEngine
from adacache_kernels.engine.per_branch_engine import PerBranchEngine
from adacache_kernels.engine.per_video_engine import PerVideoEngine
from adacache_kernels.engine.probing_engine import ProbingEngine
from adacache_kernels.engine.reports.evidence_messages import LOST_STEPS
from tests.support.graph_closures import Closures
from tests.support.rounding import close
from tests.support.tiny_models.common_models import TINY, denoise

STEPS = 8
WAN = TINY["wan"]

Make = Callable[[], nn.Module]

KINDS: dict[type[EngineBase[Any]], dict[str, Any]] = {
    Engine: {"codebook": {1e9: 3}},
    GraphEngine: {"codebook": {1e9: 3}, "decision": "graph"},
    PerVideoEngine: {"codebook": {1e9: 3}, "batch": "each"},
    PerBranchEngine: {"codebook": {1e9: 3}, "decide_for": "branch"},
    ProbingEngine: {"codebook": {1e9: 3}},
    BaselineEngine: {"config": ak.baselines.FixedIntervalConfig()},
}


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[EngineBase[Any]]:
    """A class of engines; the patches that lead to it are in force."""
    monkeypatch.setattr(
        "adacache_kernels.engine.decision.step_graphs.make_capture", lambda device: Closures()
    )
    if request.param is ProbingEngine:
        monkeypatch.setattr("adacache_kernels.api.choose_adapter.adapter_for", lambda model: None)
    return request.param


@pytest.fixture
def make(kind: type[EngineBase[Any]]) -> Make:
    """Makes models that are patched with an engine of the class."""
    return lambda: ak.patch(WAN.build(), num_inference_steps=STEPS, **KINDS[kind])


def engine_of(model: nn.Module) -> EngineBase[Any]:
    (engine,) = installed_engines(model)
    return engine


def has_forgotten(model: nn.Module) -> bool:
    summary = ak.summary(model)
    return not (summary.computed_steps or summary.reused_steps or summary.cache_bytes)


def generates_as_new(model: nn.Module, make: Make) -> bool:
    """Compare the next generation of `model` with the first one of a new model."""
    new = make()
    if type(engine_of(model)) is not type(engine_of(new)):
        # The first forward of an unknown model stores nothing, but shows how its blocks connect.
        denoise(WAN, new, 1)
        ak.reset(new)
    expected, outputs = denoise(WAN, new, STEPS), denoise(WAN, model, STEPS)
    assert ak.summary(model).computed_steps == ak.summary(new).computed_steps
    assert ak.summary(new).reused_steps
    return close(outputs, expected)


def test_every_class_is_complete(kind: type[EngineBase[Any]], make: Make) -> None:
    model = make()
    engine = engine_of(model)
    assert type(engine) is kind
    assert engine.model is model
    assert engine.config.num_inference_steps == engine.clock.num_steps == STEPS
    assert not engine.user_warnings.given
    assert engine.summary().config == engine.config.to_dict()
    assert has_forgotten(model)


def test_only_a_single_engine_is_attached(kind: type[EngineBase[Any]], make: Make) -> None:
    model = make()
    engine = engine_of(model)
    if isinstance(engine, Engine):
        assert engine.reason_not_single is None
        assert attached_engine(model) is engine
        return
    assert engine.reason_not_single
    with pytest.raises(ValueError) as raised:
        attached_engine(model)
    assert str(raised.value) == engine.reason_not_single


@pytest.mark.parametrize("failing", [1, 2, 5])
def test_an_exception_loses_the_residuals_and_their_memory(make: Make, failing: int) -> None:
    model = make()
    denoise(WAN, model, failing - 1)

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    # A module that runs in computed and in reused steps.
    handle = model.proj_out.register_forward_pre_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        denoise(WAN, model, 1)
    handle.remove()
    assert ak.summary(model).cache_bytes == 0
    assert generates_as_new(model, make)


@pytest.mark.parametrize("failing", [2, 3, 5])
def test_a_call_that_is_repeated_after_an_exception_keeps_its_step(
    make: Make, failing: int
) -> None:
    model = make()
    calls = [0]

    def fail_once(*_: Any) -> None:
        calls[0] += 1
        if calls[0] == failing:
            raise RuntimeError("out of memory")

    handle = model.proj_out.register_forward_pre_hook(fail_once)
    run = model.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        try:
            return run(*args, **kwargs)
        except RuntimeError:
            return run(*args, **kwargs)

    model.forward = forward  # type: ignore[method-assign]
    denoise(WAN, model, STEPS)
    handle.remove()
    summary = ak.summary(model)
    assert sorted([*summary.computed_steps, *summary.reused_steps]) == list(range(1, STEPS + 1))
    if not isinstance(engine_of(model), BaselineEngine):
        assert {STEPS - 1, STEPS} <= set(summary.computed_steps)
    assert failing in {*summary.computed_steps, *summary.recomputed.get("0", ())}


@pytest.mark.parametrize("steps", [0, 1, 5, STEPS])
def test_reset_forgets(make: Make, steps: int) -> None:
    model = make()
    denoise(WAN, model, steps)
    ak.reset(model)
    assert has_forgotten(model)
    assert generates_as_new(model, make)


def test_calls_without_a_step_are_computed_with_one_warning(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, plain = make(), denoise(WAN, WAN.build(), 2)
    reason = Reason("lost steps", LOST_STEPS)
    monkeypatch.setattr(GenerationTrack, "_reason_of_step", lambda _track: reason)
    with pytest.warns(ak.AdaCacheWarning, match="cannot be assigned to the calls") as warned:
        outputs = denoise(WAN, model, 2)
    assert len(warned) == 1
    assert close(outputs, plain)
    summary = ak.summary(model)
    assert (summary.computed_steps, summary.cache_bytes) == ([1, 2], 0)
