"""The reasons of a generation: in its summary and in the logger, also if no warning is shown."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from typing import Any

import pytest
import torch
from torch import nn

import adacache_kernels as ak
from adacache_kernels.engine.reports.evidence_messages import conditions_changed
from adacache_kernels.engine.reports.user_warnings import NOT_STORED, UserWarnings
from tests.support.tiny_models.common_models import TINY, denoise
from tests.support.tiny_pipelines.two_experts import STEPS as EXPERTS_STEPS
from tests.support.tiny_pipelines.two_experts import by_expert, experts
from tests.support.tiny_pipelines.two_experts import run as run_experts

STEPS = 6
WAN = TINY["wan"]
TRAINING = "the model is in training mode, so every step is computed; call model.eval()"
ALL = list(range(1, STEPS + 1))
KINDS: dict[str, dict[str, Any]] = {
    "single": {"codebook": {1e9: 3}},
    "each video": {"codebook": {1e9: 3}, "batch": "each"},
    "each branch": {"codebook": {1e9: 3}, "decide_for": "branch"},
    "baseline": {"config": ak.baselines.FixedIntervalConfig()},
}


def patched(**settings: Any) -> nn.Module:
    settings = settings or KINDS["single"]
    return ak.patch(WAN.build(), num_inference_steps=STEPS, **settings)


@pytest.fixture
def silenced() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 2])
def test_a_reason_is_in_every_summary_although_its_warning_is_not_shown(
    kind: str, batch: int, silenced: None, caplog: pytest.LogCaptureFixture
) -> None:
    model = patched(**KINDS[kind]).train()
    for generation in (1, 2):
        denoise(WAN, model, STEPS, batch)
        summary = ak.summary(model)
        assert summary.reasons == [TRAINING]
        assert summary.reason_steps == {TRAINING: ALL}
        assert f"  reason    {TRAINING} (steps 1, 2, 3, 4, 5, 6)" in str(summary).splitlines()
        engines = batch if kind == "each video" else 1
        assert len(caplog.records) == generation * engines
    assert {(r.name, r.levelno) for r in caplog.records} == {("adacache_kernels", logging.WARNING)}
    assert all(TRAINING in r.getMessage() for r in caplog.records)
    values = json.loads(json.dumps(summary.to_dict()))
    assert values["reasons"] == [TRAINING] and values["reason_steps"] == {TRAINING: ALL}
    denoise(WAN, model.eval(), STEPS, batch)
    assert ak.summary(model).reasons == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_warning_is_shown_once_for_a_model(kind: str) -> None:
    model = patched(**KINDS[kind]).train()
    with pytest.warns(ak.AdaCacheWarning) as warned:
        denoise(WAN, model, STEPS, batch=2)
        denoise(WAN, model, STEPS, batch=2)
    assert len(warned) == 1


def test_an_unknown_model_in_training_mode_has_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its blocks are not watched in training mode."""
    monkeypatch.setattr("adacache_kernels.api.choose_adapter.adapter_for", lambda model: None)
    model = patched().train()
    with pytest.warns(ak.AdaCacheWarning, match="training mode"):
        denoise(WAN, model, STEPS)
    summary = ak.summary(model)
    assert summary.reason_steps == {TRAINING: ALL}
    assert "no generation yet" in str(summary) and TRAINING in str(summary)


def test_a_reset_forgets_the_reasons(silenced: None) -> None:
    model = patched().train()
    denoise(WAN, model, 3)
    ak.reset(model)
    assert ak.summary(model).reasons == []


def test_engines_of_one_model_share_the_topics_but_not_the_reasons() -> None:
    first, second = UserWarnings("Model"), UserWarnings("Model")
    first.share_topics_with(second)
    first.use_topics(set())
    with pytest.warns(ak.AdaCacheWarning) as warned:
        first.warn("topic", "a text", 1)
        second.warn("topic", "another text", 2)
    assert [str(w.message) for w in warned] == ["adacache_kernels, Model: a text (step 1)"]
    assert (first.reason_steps, second.reason_steps) == ({"a text": [1]}, {"another text": [2]})


def call(model: nn.Module, step: int, batch: int = 1) -> None:
    WAN.call(model, WAN.noise(batch, seed=step), step)


def test_another_shape_in_a_reusable_step_is_a_reason_without_a_warning() -> None:
    model = patched()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in ALL:
            call(model, step, batch=2 if step >= 4 else 1)
    summary = ak.summary(model)
    assert summary.reused_steps == [3] and 4 in summary.computed_steps
    assert summary.reason_steps == {conditions_changed("encoder_hidden_states"): [4]}


def test_a_branch_that_appears_in_a_reused_step_is_a_reason() -> None:
    model = patched()
    with torch.no_grad():
        for step in ALL:
            with ak.cache_context("cond"):
                call(model, step)
            if step >= 3:
                with ak.cache_context("uncond"):
                    call(model, step)
    summary = ak.summary(model)
    assert summary.recomputed == {"uncond": [3]}
    assert summary.reason_steps == {NOT_STORED: [3]}


def test_a_generation_that_reuses_has_no_reason() -> None:
    model = patched()
    assert ak.summary(model).computed_fraction == 1.0
    denoise(WAN, model, STEPS)
    summary = ak.summary(model)
    assert summary.reused_steps == [3, 4] and summary.reasons == []
    assert summary.computed_fraction == 4 / 6
    assert "reason" not in str(summary)


def test_the_reasons_of_experts_are_joined(silenced: None) -> None:
    pipe = ak.patch(experts(), codebook={1e9: 3})
    pipe.transformer.train()
    pipe.transformer_2.train()
    run_experts(pipe)
    first, second = by_expert(pipe)
    assert first and second
    expected = {TRAINING: list(range(1, EXPERTS_STEPS + 1))}
    assert ak.summary(pipe).reason_steps == expected


def test_nothing_is_printed_twice_and_nothing_that_is_silenced() -> None:
    code = "from adacache_kernels.messages import warn_user; warn_user('a text')"
    for flags, count in (([], 1), (["-W", "ignore"], 0)):
        command = [sys.executable, *flags, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stderr.count("a text\n") == count
