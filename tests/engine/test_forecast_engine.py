"""Forecasts and corrections of the engine, against an oracle for each block."""

from __future__ import annotations

import random
import warnings
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from tests.support.oracles.forecast_run import EVERY, STEPS, oracle_run
from tests.support.oracles.two_residuals_per_block import relative
from tests.support.rounding import close
from tests.support.tiny_models.common_models import FOUR, TINY, denoise


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("correct", [False, True])
@pytest.mark.parametrize("name", TINY)
def test_one_forecast_a_span_equals_one_a_block(
    name: str, order: int, correct: bool, seed: int
) -> None:
    """The forecast is linear, so the two differ by rounding only, far below 1e-5.

    Without the forecast, or with another order, they differ by 1e-3 and more.
    """
    draw = random.Random(seed)
    computed = {1, *(step for step in range(2, STEPS + 1) if draw.random() < 0.45)}
    if seed == 2:
        # The last step is corrected, but no reused step follows it.
        computed = computed - {STEPS - 1} | {STEPS}
    tiny = TINY[name]
    model = tiny.build()
    # The oracle runs first, because stand-ins would call its hook on the last block too.
    expected = oracle_run(name, model, computed, order, correct)
    ak.patch(
        model,
        forecast=order,
        correct=correct,
        schedule=sorted(computed),
        num_inference_steps=STEPS,
    )
    found = denoise(tiny, model, STEPS)
    summary = ak.summary(model)
    assert summary.computed_steps == sorted(computed)
    after_a_gap = [s for s in sorted(computed) if s > 1 and s - 1 not in computed]
    assert summary.corrected == ({"0": after_a_gap} if correct and after_a_gap else {})
    assert max(relative(a, b) for a, b in zip(found, expected, strict=True)) < 1e-5


class Ramp(nn.Module):
    """A block whose residual is a polynomial of the step and independent of its input."""

    def __init__(self, shape: tuple[int, ...], order: int, seed: int, step: list[int]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.parts = torch.randn(order + 1, *shape, generator=generator)
        self.step = step
        # The adapter of Wan applies only to blocks that have these.
        self.attn1 = nn.ModuleDict({"to_out": nn.Identity()})
        self.attn2, self.ffn = nn.Identity(), nn.Identity()
        self.scale_shift_table = nn.Parameter(torch.zeros(1))

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Any, temb: Any, rotary_emb: Any
    ) -> Tensor:
        t = self.step[0] / STEPS
        return hidden_states + sum(part * t**power for power, part in enumerate(self.parts))


@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_residual_of_its_order_is_exact(order: int) -> None:
    """Order 0 is exact for a constant residual, 1 for a linear and 2 for a quadratic one.

    Bound: coefficients up to 15 for a parabola, and each product is rounded to eps / 2.
    """
    tiny = TINY["wan"]
    model, now = tiny.build(), [0]
    model.blocks = nn.ModuleList([Ramp((1, 48, 24), order, seed, now) for seed in range(3)])
    latents = [tiny.noise(seed=seed) for seed in range(STEPS)]

    def run() -> list[Tensor]:
        outputs = []
        for step, x in enumerate(latents, start=1):
            now[0] = step
            with torch.no_grad():
                outputs.append(tiny.call(model, x, step))
        return outputs

    expected = run()
    schedule = [1, 2, 3, 6, 9, 12]
    ak.patch(model, forecast=order, schedule=schedule, num_inference_steps=STEPS)
    found = run()
    assert ak.summary(model).reused_steps == [4, 5, 7, 8, 10, 11]
    eps = torch.finfo(torch.float32).eps
    assert max(relative(a, b) for a, b in zip(found, expected, strict=True)) < 64 * eps
    if order:
        ak.unpatch(model)
        ak.patch(model, forecast=order - 1, schedule=schedule, num_inference_steps=STEPS)
        assert max(relative(a, b) for a, b in zip(run(), expected, strict=True)) > 1e-3


@pytest.mark.parametrize("measure", ["distance", "forecast-error"])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", TINY)
def test_rate_1_is_bit_equal(name: str, order: int, measure: Any) -> None:
    tiny = TINY[name]
    model = tiny.build()
    plain = denoise(tiny, model, STEPS)
    ak.patch(
        model,
        codebook={1.0: 1},
        forecast=order,
        correct=True,
        measure=measure,
        num_inference_steps=STEPS,
    )
    patched = denoise(tiny, model, STEPS)
    assert all(torch.equal(a, b) for a, b in zip(plain, patched, strict=True))


@pytest.mark.parametrize("name", FOUR)
def test_memory_is_one_slot_for_each_stored_step(name: str) -> None:
    tiny = TINY[name]
    model = tiny.build()
    for settings, slots in (
        ({"forecast": 0}, 1),
        ({"forecast": 1}, 2),
        ({"forecast": 2}, 3),
        ({"forecast": 1, "correct": True}, 3),
    ):
        ak.patch(model, schedule=[1, 2, 3, 5, 7], num_inference_steps=8, **settings)
        denoise(tiny, model, 8)
        assert ak.summary(model).cache_tensors == slots * tiny.streams
        ak.unpatch(model)


def test_reused_steps_with_too_little_history_are_counted() -> None:
    tiny = TINY["wan"]
    model = tiny.build()
    ak.patch(model, forecast=2, schedule=[1, 3, 5, 8], num_inference_steps=8)
    denoise(tiny, model, 8)
    summary = ak.summary(model)
    assert summary.lower_order == {"0": [2, 4]}
    assert "lower order 2 4" in str(summary)


def test_each_guidance_branch_has_its_own_ring() -> None:
    """Two named branches of one model give the outputs of two models with one branch each."""
    tiny = TINY["wan"]
    settings: dict[str, Any] = dict(
        forecast=1, correct=True, schedule=[1, 2, 5, 8, 9, 12], num_inference_steps=STEPS
    )

    def run(model: nn.Module, names: list[str]) -> dict[str, list[Tensor]]:
        outputs: dict[str, list[Tensor]] = {name: [] for name in names}
        with torch.no_grad():
            for step in EVERY:
                for name in names:
                    latents = tiny.noise(seed=step + 100 * ("uncond" in name))
                    with ak.cache_context(name):
                        outputs[name].append(tiny.call(model, latents, step))
        return outputs

    together = run(ak.patch(tiny.build(), **settings), ["cond", "uncond"])
    for name in together:
        alone = run(ak.patch(tiny.build(), **settings), [name])
        assert close(together[name], alone[name])


def test_another_number_of_steps_starts_with_an_empty_ring() -> None:
    tiny = TINY["wan"]
    model = tiny.build()
    ak.patch(model, codebook={1e9: 3, 2e9: 1}, forecast=2, correct=True, num_inference_steps=STEPS)
    first = denoise(tiny, model, STEPS)
    again = denoise(tiny, model, STEPS)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", FOUR)
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    """The forecast is computed in float32 and rounded once; the slots have the model's dtype."""
    tiny = TINY[name]
    model = tiny.build().to(dtype)
    latents = tiny.noise().to(dtype)
    ak.patch(model, forecast=1, correct=True, schedule=[1, 2, 4, 6], num_inference_steps=6)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(1, 7):
            latents = latents - 0.05 * tiny.call(model, latents, step)
    assert latents.isfinite().all()
    single = tiny.build()
    ak.patch(single, forecast=1, correct=True, schedule=[1, 2, 4, 6], num_inference_steps=6)
    exact = denoise(tiny, single, 6)[-1]
    assert relative(latents.float(), exact) < 64 * torch.finfo(dtype).eps


@pytest.mark.parametrize("settings", [{"correct": True}, {"measure": "forecast-error"}, {}])
def test_a_list_that_does_not_run_gives_a_warning_if_it_is_needed(settings: dict[str, Any]) -> None:
    """Latte without its temporal blocks still forecasts the residuals of the spatial ones."""
    tiny = TINY["latte"]
    model, latents = tiny.build(), tiny.noise()
    needed = bool(settings)
    if "measure" not in settings:
        settings = settings | {"schedule": [1, 2, 5, 8, 12]}
    ak.patch(model, forecast=1, num_inference_steps=STEPS, **settings)
    warns = pytest.warns(ak.AdaCacheWarning, match="temporal_transformer_blocks did not run")
    with warns if needed else nullcontext(), torch.no_grad():
        for step in EVERY:
            latents = (
                latents
                - 0.05
                * model(
                    hidden_states=latents,
                    encoder_hidden_states=tiny.text(1),
                    timestep=torch.full((1,), 930 - 30 * step),
                    enable_temporal_attentions=False,
                    return_dict=False,
                )[0]
            )
    reused = 0 if "measure" in settings else 7
    assert len(ak.summary(model).reused_steps) == reused
    assert latents.isfinite().all()


def test_a_time_that_a_bare_model_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match=r"forecast_time='sigma'.*bare model"):
        ak.patch(TINY["wan"].build(), forecast=1, forecast_time="sigma", num_inference_steps=STEPS)


def test_a_schedule_beyond_the_last_step_is_refused() -> None:
    with pytest.raises(ValueError, match="schedule computes step 20"):
        ak.patch(TINY["wan"].build(), schedule=[1, 20], num_inference_steps=STEPS)
