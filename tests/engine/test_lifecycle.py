"""Generations that follow each other, are aborted, change their inputs, or give warnings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import adacache_kernels as ak
from adacache_kernels.engine.decision.distance_meter import DistanceMeter
from tests.support.oracles.two_residuals_per_block import relative
from tests.support.tiny_models.common_models import TINY, denoise

STEPS = 10
EVERY_THIRD = {float("inf"): 3}


def wan() -> nn.Module:
    return TINY["wan"].build()


def test_a_new_generation_starts_again() -> None:
    tiny, model = TINY["latte"], TINY["latte"].build()
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS)
    first = denoise(tiny, model, STEPS)
    one = ak.summary(model)
    second = denoise(tiny, model, STEPS)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert ak.summary(model) == one


def test_reset_after_an_aborted_run() -> None:
    tiny, model = TINY["latte"], TINY["latte"].build()
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS)
    whole = denoise(tiny, model, STEPS)
    denoise(tiny, model, 4)
    ak.reset(model)
    assert ak.summary(model).cache_bytes == 0
    again = denoise(tiny, model, STEPS)
    assert torch.equal(whole[-1], again[-1])


def test_an_error_inside_the_model_ends_the_generation() -> None:
    tiny, model = TINY["cogvideox"], TINY["cogvideox"].build()
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS)
    whole = denoise(tiny, model, STEPS)
    denoise(tiny, model, 4)
    handle = model.transformer_blocks[1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        denoise(tiny, model, 1)
    handle.remove()
    assert "transformer_blocks" not in vars(model)
    assert not model.transformer_blocks[1].attn1._forward_hooks
    assert torch.equal(denoise(tiny, model, STEPS)[-1], whole[-1])


def fail(*_: Any) -> None:
    raise RuntimeError("out of memory")


@pytest.mark.parametrize("name", ["latte", "cogvideox"])
def test_another_shape_in_the_middle_of_a_run_is_computed(name: str) -> None:
    tiny = TINY[name]
    model = tiny.build()
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS)
    with torch.no_grad():
        for step in (1, 2):
            tiny.call(model, tiny.noise(), step)
        bigger = [tiny.call(model, tiny.noise(batch=2), step) for step in (3, 4, 5)]
    summary = ak.summary(model)
    assert (summary.computed_steps, summary.reused_steps) == ([1, 2, 3, 4], [5])
    assert summary.distances[2] is None
    ak.unpatch(model)
    with torch.no_grad():
        for step, output in zip((3, 4), bigger, strict=False):
            assert torch.equal(output, tiny.call(model, tiny.noise(batch=2), step))


def test_training_mode_computes_with_one_warning() -> None:
    tiny, model = TINY["wan"], wan()
    plain = denoise(tiny, model, STEPS)
    model.train()
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS)
    with pytest.warns(ak.AdaCacheWarning, match="training mode") as warned:
        patched = denoise(tiny, model, STEPS)
    assert len(warned) == 1
    assert torch.equal(plain[-1], patched[-1])
    assert ak.summary(model).cache_bytes == 0


def test_gradients_flow_with_one_warning() -> None:
    tiny, model = TINY["wan"], wan()
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS)
    with pytest.warns(ak.AdaCacheWarning, match="gradients are enabled") as warned:
        for step in range(1, STEPS + 1):
            tiny.call(model, tiny.noise(), step).sum().backward()
    assert len(warned) == 1
    assert model.blocks[0].attn1.to_q.weight.grad is not None
    assert ak.summary(model).cache_tensors == 0


def test_inference_mode_and_no_grad_may_follow_each_other() -> None:
    tiny, model = TINY["wan"], wan()
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS)
    with torch.inference_mode():
        for step in (1, 2, 3):
            tiny.call(model, tiny.noise(), step)
    with torch.no_grad():
        for step in range(4, STEPS + 1):
            tiny.call(model, tiny.noise(), step)
    assert ak.summary(model).reused_steps == [3, 4, 6, 7]


def test_a_generation_without_reuse_gives_a_warning() -> None:
    tiny, model = TINY["wan"], wan()
    ak.patch(model, codebook={1e-9: 4, 1.0: 1}, num_inference_steps=STEPS)
    with pytest.warns(ak.AdaCacheWarning, match=r"no step of 10 was reused.*below 1e-09"):
        denoise(tiny, model, STEPS)


def test_a_distance_that_is_not_finite_gives_a_warning_and_a_computed_step() -> None:
    tiny, model = TINY["wan"], wan()
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS)
    poison = {"on": True}

    def spoil(_module: Any, _args: Any, output: torch.Tensor) -> torch.Tensor:
        return output * float("nan") if poison["on"] else output

    handle = model.blocks[1].attn1.register_forward_hook(spoil)
    with pytest.warns(ak.AdaCacheWarning, match="not finite"), torch.no_grad():
        for step in range(1, STEPS + 1):
            poison["on"] = step == 2
            tiny.call(model, tiny.noise(), step)
    handle.remove()
    summary = ak.summary(model)
    assert summary.computed_steps[:4] == [1, 2, 3, 4]
    assert summary.rates[1] == 1


def test_a_metric_block_that_does_not_run_gives_a_warning_and_no_distance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In step 2 only the first of two metric blocks is measured, so its slot is newer."""
    tiny, model = TINY["wan"], wan()
    measure, now = DistanceMeter.measure, {"step": 0}

    def measure_unless_skipped(meter: DistanceMeter, block: Any, run: Any) -> None:
        if (now["step"], block.index) != (2, 2):
            measure(meter, block, run)

    monkeypatch.setattr(DistanceMeter, "measure", measure_unless_skipped)
    ak.patch(model, codebook=EVERY_THIRD, cache_loc=["start", "end"], num_inference_steps=STEPS)
    with pytest.warns(ak.AdaCacheWarning, match="metric block did not run"), torch.no_grad():
        for step in range(1, 5):
            now["step"] = step
            tiny.call(model, tiny.noise(seed=step), step)
    summary = ak.summary(model)
    assert summary.computed_steps == [1, 2, 3, 4]
    assert [distance is None for distance in summary.distances] == [True, True, True, False]


def test_a_residual_of_zeros_gives_a_warning() -> None:
    tiny, model = TINY["latte"], TINY["latte"].build()
    attention = model.temporal_transformer_blocks[1].attn1.to_out[0]
    nn.init.zeros_(attention.weight)
    nn.init.zeros_(attention.bias)
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=4)
    with pytest.warns(ak.AdaCacheWarning, match="zero throughout"):
        denoise(tiny, model, 4)


def test_a_block_that_writes_into_its_input_gives_a_warning_and_is_cached() -> None:
    tiny, model = TINY["wan"], wan()
    model.blocks[0].register_forward_pre_hook(write_in_place)
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=6)
    with pytest.warns(ak.AdaCacheWarning, match="wrote into the input of the first block"):
        denoise(tiny, model, 6)
    assert ak.summary(model).computed_steps == [1, 2, 3, 5, 6]


def write_in_place(_module: Any, args: Any) -> None:
    args[0].mul_(1.0)


def test_strides_beyond_the_video_are_refused() -> None:
    tiny, model = TINY["wan"], wan()
    ak.patch(model, apply_moreg=True, moreg_strides=[1, 3], num_inference_steps=4)
    with pytest.raises(ValueError, match=r"moreg_strides=\(1, 3\).*3 frames.*1 to 2"):
        denoise(tiny, model, 1)


def test_max_warmup_and_cap() -> None:
    tiny, model = TINY["wan"], wan()
    ak.patch(
        model,
        codebook=EVERY_THIRD,
        num_inference_steps=STEPS,
        max_warmup_steps=4,
        max_continuous_cached_steps=1,
    )
    denoise(tiny, model, STEPS)
    assert ak.summary(model).computed_steps == [1, 2, 3, 4, 6, 8, 9, 10]


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_generations_compute_everything(steps: int) -> None:
    tiny, model = TINY["cogvideox"], TINY["cogvideox"].build()
    plain = denoise(tiny, model, steps)
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=steps)
    assert torch.equal(denoise(tiny, model, steps)[-1], plain[-1])
    assert ak.summary(model).computed_steps == list(range(1, steps + 1))


def test_reuse_differs_from_computing_only_a_little_on_smooth_paths() -> None:
    tiny, model = TINY["latte"], TINY["latte"].build()
    plain = denoise(tiny, model, STEPS, scale=1e-4)
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS)
    patched = denoise(tiny, model, STEPS, scale=1e-4)
    assert 0 < relative(patched[-1], plain[-1]) < 1e-3
