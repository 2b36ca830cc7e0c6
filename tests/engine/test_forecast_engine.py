"""Forecasts, corrections and forecast errors of the engine, against an oracle for each block."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from tests.support.oracles.two_residuals_per_block import ForecastBlock, forecast_blocks, relative
from tests.support.rounding import close
from tests.support.tiny_models.common_models import FOUR, TINY, Tiny, denoise

STEPS = 12
EVERY = tuple(range(1, STEPS + 1))


def oracle_run(
    name: str, model: nn.Module, computed: set[int], order: int, correct: bool = False
) -> list[Tensor]:
    """Return the latents of the oracle after each step of a given schedule."""
    tiny, latents, trajectory, now = TINY[name], TINY[name].noise(), [], [0]
    with (
        forecast_blocks(name, model, tiny.lists, order, lambda: now[0], computed) as blocks,
        torch.no_grad(),
    ):
        for step in range(1, STEPS + 1):
            now[0] = step
            if correct:
                with corrected(tiny, model, blocks, step, computed):
                    latents = latents - 0.05 * tiny.call(model, latents, step)
            else:
                latents = latents - 0.05 * tiny.call(model, latents, step)
            trajectory.append(latents)
    return trajectory


def total(
    tiny: Tiny,
    blocks: Mapping[tuple[str, int], ForecastBlock],
    of_block: Callable[[ForecastBlock], Tensor],
) -> Tensor:
    """Return the sum of a tensor of each block, in the layout of the last list."""
    of_list = [
        torch.stack([of_block(b) for (attribute, _), b in blocks.items() if attribute == name]).sum(
            0
        )
        for name in tiny.lists
    ]
    if len(of_list) == 1:
        return of_list[0]
    # Latte: [F, S, C] of the spatial blocks to [S, F, C] of the temporal ones, one video.
    spatial, temporal = of_list
    return temporal + spatial.transpose(0, 1)


@contextmanager
def corrected(
    tiny: Tiny,
    model: nn.Module,
    blocks: dict[tuple[str, int], ForecastBlock],
    step: int,
    computed: set[int],
) -> Iterator[None]:
    """Add the forecast errors of all blocks to the streams that leave the last block."""
    last = getattr(model, tiny.lists[-1])[-1]

    def add(_module: nn.Module, _args: Any, output: Any) -> Any:
        if step not in computed or step - 1 in computed or step == 1:
            return output
        streams = list(output) if isinstance(output, tuple) else [output]
        for index, stream in enumerate(streams):
            streams[index] = stream + total(tiny, blocks, lambda b, i=index: b.missed(step, i))
        return tuple(streams) if isinstance(output, tuple) else streams[0]

    handle = last.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


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
    ak.patch(
        model,
        codebook={1.0: 1},
        forecast=order,
        measure="forecast-error",
        num_inference_steps=STEPS,
    )
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
        codebook={1.0: 1},
        forecast=1,
        measure="forecast-error",
        apply_moreg=True,
        moreg_steps=(1, STEPS),
        moreg_hyp=(0.5, 2.0, 1.0),
        num_inference_steps=STEPS,
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
    ak.patch(
        model,
        codebook={1.0: 1},
        forecast=order,
        measure="forecast-error",
        num_inference_steps=STEPS,
    )
    denoise(tiny, model, STEPS)
    assert ak.summary(model).cache_tensors == (order + 1) * tiny.streams


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
