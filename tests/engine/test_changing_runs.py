"""Runs of one patched model that differ from the last one in size, batch, precision or length.

Each run equals the run of a freshly patched model, up to rounding: that model has other addresses.
"""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from tests.support.rounding import BOUND, ONE_CODE, close, close_summaries
from tests.support.tiny_models.common_models import TINY, Tiny, denoise
from tests.support.tiny_pipelines.latte_and_wan import run_wan
from tests.support.tiny_pipelines.latte_and_wan import wan as wan_pipeline

STEPS = 7
EVERY_THIRD = {float("inf"): 3}
COMPUTED = [1, 2, 5, 6, 7]


def patch(model: nn.Module, **settings: Any) -> nn.Module:
    return ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS, **settings)


def run(tiny: Tiny, model: nn.Module, batch: int = 1) -> Tensor:
    """Run a generation in the model's precision and return the last latents."""
    if next(model.parameters()).dtype == torch.float32:
        return denoise(tiny, model, STEPS, batch)[-1]
    latents = tiny.noise(batch).to(torch.bfloat16)
    with torch.no_grad():
        for step in range(1, STEPS + 1):
            latents = latents - 0.05 * tiny.call(model, latents, step)
    return latents


def same_summaries(model: object, fresh: object, bound: float = BOUND) -> bool:
    """Compare two summaries, except for the figures of the arena, which cover all runs."""
    found, expected = ak.summary(model), ak.summary(fresh)
    return close_summaries(replace(found, memory=expected.memory), expected, bound)


@pytest.mark.parametrize("settings", [{}, {"forecast": 1}, {"cache_dtype": "int8"}])
@pytest.mark.parametrize("name", ["wan", "cogvideox", "latte"])
def test_runs_that_differ_from_the_last_one(name: str, settings: dict[str, Any]) -> None:
    tiny = TINY[name]
    frames, height = (0, 2) if name == "cogvideox" else (1, 2)
    sizes = [list(tiny.latents), list(tiny.latents)]
    sizes[1][height] //= 2
    others = [replace(tiny, latents=tuple(size)) for size in sizes]
    if name == "wan":
        longer = (tiny.latents[0], tiny.latents[frames] + 2, *tiny.latents[2:])
        others.append(replace(tiny, latents=longer))
    model = patch(tiny.build(), **settings)
    bound = ONE_CODE if "cache_dtype" in settings else BOUND
    for other in [*others, tiny]:
        for batch in (1, 2):
            fresh = patch(tiny.build(), **settings)
            assert close(run(other, model, batch), run(other, fresh, batch), bound)
            assert same_summaries(model, fresh, bound)
            assert ak.summary(model).computed_steps == COMPUTED


@pytest.mark.parametrize("name", ["wan", "cogvideox"])
def test_another_precision_between_runs(name: str) -> None:
    tiny = TINY[name]
    model = patch(tiny.build().to(torch.bfloat16))
    for dtype in (torch.float32, torch.bfloat16, torch.float32):
        model.to(dtype)
        fresh = patch(tiny.build().to(torch.bfloat16).to(dtype))
        assert torch.equal(run(tiny, model), run(tiny, fresh)), (
            "both are at the addresses of the cast"
        )
        assert same_summaries(model, fresh)
        assert ak.summary(model).computed_steps == COMPUTED


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])
def test_a_block_that_is_interrupted_on_a_bare_model(at: int, error: type[BaseException]) -> None:
    """The interruption comes after the blocks, in computed and in reused steps."""
    tiny, model = TINY["wan"], patch(TINY["wan"].build())
    expected = run(tiny, model)
    calls = [0]

    def interrupt(*_: Any) -> None:
        calls[0] += 1
        if calls[0] == at:
            raise error

    handle = model.norm_out.register_forward_pre_hook(interrupt)
    with pytest.raises(error):
        run(tiny, model)
    handle.remove()
    assert "blocks" not in vars(model)
    assert ak.summary(model).cache_bytes == 0
    assert torch.equal(run(tiny, model), expected)
    assert ak.summary(model).computed_steps == COMPUTED


def test_an_unknown_model_that_is_interrupted_in_its_first_forward() -> None:
    """After the failed forward, which was watched, the next one is the first step again."""
    from diffusers import WanTransformer3DModel

    class Unknown(WanTransformer3DModel):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return super().forward(*args, **kwargs)

    def build() -> nn.Module:
        torch.manual_seed(0)
        return Unknown(**tiny.config).eval()

    tiny = TINY["wan"]
    fresh, model = (patch(build()) for _ in "12")
    expected = run(tiny, fresh)
    handle = model.norm_out.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        run(tiny, model)
    handle.remove()
    assert close(run(tiny, model), expected)
    assert ak.summary(model).computed_steps == ak.summary(fresh).computed_steps


def stop(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_scheduler_that_fails_leaves_nothing_behind() -> None:
    pipe = ak.patch(wan_pipeline(), codebook=EVERY_THIRD)
    expected = run_wan(pipe)
    convert, calls = pipe.scheduler.convert_model_output, [0]

    def fail(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == 4:
            raise RuntimeError("diverged")
        return convert(*args, **kwargs)

    pipe.scheduler.convert_model_output = fail
    with pytest.raises(RuntimeError, match="diverged"):
        run_wan(pipe)
    del pipe.scheduler.convert_model_output
    assert torch.equal(run_wan(pipe), expected)


@pytest.mark.parametrize("other", [{"guidance": 1.0}, {"steps": 5}, {"steps": 11}])
def test_a_pipeline_run_in_another_way_and_back(other: dict[str, Any]) -> None:
    pipe, fresh = (ak.patch(wan_pipeline(), codebook=EVERY_THIRD) for _ in "12")
    expected = run_wan(pipe)
    assert close(run_wan(pipe, **other), run_wan(fresh, **other))
    assert same_summaries(pipe, fresh)
    assert torch.equal(run_wan(pipe), expected)


def test_inference_mode_and_no_grad_give_the_same() -> None:
    tiny, model = TINY["wan"], patch(TINY["wan"].build())
    expected = run(tiny, model)
    with torch.inference_mode():
        assert torch.equal(run(tiny, model), expected)
        latents = tiny.noise()
        for step in range(1, STEPS + 1):
            latents = latents - 0.05 * tiny.call(model, latents, step)
        assert latents.is_inference() and torch.equal(latents, expected)
    assert torch.equal(run(tiny, model), expected)


def test_a_copy_of_the_scheduler_does_not_keep_the_pipeline() -> None:
    import copy

    pipe = ak.patch(wan_pipeline(), codebook=EVERY_THIRD)
    theirs = copy.deepcopy(pipe.scheduler)
    model = weakref.ref(pipe.transformer)
    del pipe
    gc.collect()
    assert model() is None
    theirs.set_timesteps(4)
    assert len(theirs.timesteps) == 4
