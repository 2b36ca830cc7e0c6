"""The measured forecast error of the engine: its value, its motion score, its codebook."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

import adacache_kernels as ak
from tests.support.oracles.forecast_run import EVERY, STEPS, total
from tests.support.oracles.two_residuals_per_block import forecast_blocks
from tests.support.tiny_models.common_models import FOUR, TINY, denoise

# Settings with which every step is computed and its forecast error measured.
EVERY_ERROR: dict[str, Any] = {
    "codebook": {1.0: 1},
    "measure": "forecast-error",
    "num_inference_steps": STEPS,
}


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("name", FOUR)
def test_the_forecast_error_is_that_of_the_spans(name: str, order: int) -> None:
    """The error is ||R - F||_1 / ||F||_1 / k of all blocks, within 1e-3.

    R - F is 30 times smaller than R, so a rounding of R by 6e-8 shows as 2e-6; sums are float32.
    """
    tiny, now = TINY[name], [0]
    model = tiny.build()
    latents = tiny.noise()
    with (
        forecast_blocks(name, model, tiny.lists, order, lambda: now[0], set(EVERY)) as blocks,
        torch.no_grad(),
    ):
        for step in EVERY:
            now[0] = step
            latents = latents - 0.05 * tiny.call(model, latents, step)
    expected = []
    for step in EVERY[1:]:
        known = [s for s in EVERY if s < step][-order - 1 :]
        truth = total(tiny, blocks, lambda b, s=step: b.residuals[s][0].double())
        forecast = total(tiny, blocks, lambda b, s=step, k=known: b.through(k, s, 0).double())
        expected.append(float((truth - forecast).abs().sum() / forecast.abs().sum()))
    ak.patch(model, forecast=order, **EVERY_ERROR)
    denoise(tiny, model, STEPS)
    found = ak.summary(model).distances
    # No reused step can follow the last steps, so they are not measured.
    assert found[0] is None
    measured = [(f, e) for f, e in zip(found[1:], expected, strict=True) if f is not None]
    assert len(measured) >= STEPS - 4
    for f, e in measured:
        assert f == pytest.approx(e, rel=1e-3)


@pytest.mark.parametrize("name", FOUR)
def test_motion_is_that_of_the_last_span(name: str) -> None:
    """The score is (||R[1:] - R[:-1]|| / (||R[1:]|| + ||R[:-1]||) / a)^b, over the frames."""
    tiny, now = TINY[name], [0]
    model, latents = tiny.build(), tiny.noise()
    with (
        forecast_blocks(name, model, tiny.lists, 1, lambda: now[0], set(EVERY)) as blocks,
        torch.no_grad(),
    ):
        for step in EVERY:
            now[0] = step
            latents = latents - 0.05 * tiny.call(model, latents, step)
    scores = []
    for step in range(2, 8):
        whole = total(tiny, blocks, lambda b, s=step: b.residuals[s][0].double())
        in_batch = tiny.lists[-1] == "temporal_transformer_blocks"
        video = (
            whole.transpose(0, 1) if in_batch else whole.reshape(tiny.frames, -1, whole.shape[-1])
        )
        later, earlier = video[1:], video[:-1]
        motion = (later - earlier).abs().sum() / (later.abs().sum() + earlier.abs().sum())
        scores.append(float(motion / 0.5) ** 2)
    ak.patch(
        model,
        forecast=1,
        apply_moreg=True,
        moreg_steps=(1, STEPS),
        moreg_hyp=(0.5, 2.0, 1.0),
        **EVERY_ERROR,
    )
    denoise(tiny, model, STEPS)
    assert ak.summary(model).motion_scores[1:7] == pytest.approx(scores, rel=1e-4)


def test_a_codebook_on_the_forecast_error_decides() -> None:
    tiny = TINY["wan"]
    model = tiny.build()
    counts = []
    warns = pytest.warns(ak.AdaCacheWarning, match="no step of 12 was reused")
    for threshold, warned in ((1e-9, warns), (1e9, nullcontext())):
        ak.patch(
            model,
            codebook={threshold: 4, threshold * 2: 1},
            forecast=1,
            measure="forecast-error",
            num_inference_steps=STEPS,
        )
        with warned:
            denoise(tiny, model, STEPS)
        counts.append(len(ak.summary(model).computed_steps))
        ak.unpatch(model)
    assert counts[0] == STEPS
    assert counts[1] == 6  # 1, 2, 6, 10, and the last two


@pytest.mark.parametrize("name", ["wan", "cogvideox"])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_measuring_the_forecast_needs_no_memory(name: str, order: int) -> None:
    """The pass that compares the new residual with the oldest one also overwrites that one."""
    tiny = TINY[name]
    model = tiny.build()
    ak.patch(model, forecast=order, **EVERY_ERROR)
    denoise(tiny, model, STEPS)
    assert ak.summary(model).cache_tensors == (order + 1) * tiny.streams


@pytest.mark.parametrize(("order", "measure"), [(1, "forecast-error"), (2, "distance")])
def test_a_residual_that_is_not_finite_is_in_no_forecast(order: int, measure: Any) -> None:
    """A step with a residual of NaN gives a warning and is in no later forecast.

    With order 2, it would still be among the last three computed steps when reuse resumes.
    """
    tiny = TINY["wan"]
    model = tiny.build()
    ak.patch(
        model,
        codebook={1e9: 2, 2e9: 1},
        forecast=order,
        measure=measure,
        num_inference_steps=STEPS,
    )
    finite = []
    with torch.no_grad(), pytest.warns(ak.AdaCacheWarning, match="not finite"):
        for step in EVERY:
            latents = tiny.noise(seed=step)
            if step == 4:
                latents = latents * float("nan")
            finite.append(bool(tiny.call(model, latents, step).isfinite().all()))
    summary = ak.summary(model)
    assert 4 in summary.computed_steps and 5 in summary.computed_steps
    assert finite == [step != 4 for step in EVERY]
    assert summary.reused_steps[-1] > 6
