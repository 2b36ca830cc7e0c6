"""`patch`, `unpatch`, `reset` and `summary` on bare models: arguments, errors and cleaning up."""

from __future__ import annotations

import copy
import gc
import sys
import weakref
from typing import Any

import pytest
import torch
from torch import nn

import adacache_kernels as ak
from tests.support.rounding import close
from tests.support.tiny_models.common_models import TINY, denoise

STEPS = 10
EVERY_THIRD = {float("inf"): 3}


def wan() -> nn.Module:
    return TINY["wan"].build()


def test_patch_returns_the_model() -> None:
    model = wan()
    assert not ak.is_patched(model)
    assert ak.patch(model, num_inference_steps=STEPS) is model
    assert ak.is_patched(model)
    assert ak.unpatch(model) is model
    assert not ak.is_patched(model)


@pytest.mark.parametrize("config", ["slow", ak.AdaCacheConfig("slow"), None])
def test_a_config_is_a_name_an_object_or_none(config: Any) -> None:
    model = ak.patch(wan(), config, num_inference_steps=STEPS)
    expected = "fast" if config is None else "slow"
    assert ak.summary(model).config["codebook"] == expected


def test_overrides_change_a_config() -> None:
    config = ak.AdaCacheConfig(codebook={0.5: 4}, num_inference_steps=7)
    model = ak.patch(wan(), config, cache_loc="end", max_warmup_steps=3)
    found = ak.summary(model).config
    assert (found["cache_loc"], found["max_warmup_steps"]) == ("end", 3)
    assert found["num_inference_steps"] == 7


@pytest.mark.parametrize(
    ("settings", "error", "named"),
    [
        ({"num_inference_steps": 9, "treshold": 3}, TypeError, "treshold.*codebook"),
        ({"num_inference_steps": 9, "cache_loc": 3}, ValueError, "cache_loc=3.*3 blocks.*-3 to 2"),
        ({"num_inference_steps": 9, "cache_res": "t-attn"}, ValueError, "t-attn.*'s-attn'"),
        ({"num_inference_steps": 9, "config": 0.1}, TypeError, "config is 0.1"),
        ({"num_inference_steps": 9, "config": "ultra"}, ValueError, "'ultra'.*'fast', 'slow'"),
    ],
)
def test_a_failed_patch_leaves_nothing_behind(
    settings: dict[str, Any], error: type[Exception], named: str
) -> None:
    model = wan()
    before = dict(vars(model))
    with pytest.raises(error, match=named):
        ak.patch(model, **settings)
    assert vars(model) == before
    assert not ak.is_patched(model)


def test_patching_twice_is_refused() -> None:
    model = ak.patch(wan(), num_inference_steps=STEPS)
    with pytest.raises(ValueError, match="patched already"):
        ak.patch(model, num_inference_steps=STEPS)


def test_a_subclass_with_a_forward_of_its_own_is_unknown() -> None:
    from diffusers import WanTransformer3DModel

    class Inherits(WanTransformer3DModel):  # type: ignore[misc]
        pass

    class Overrides(WanTransformer3DModel):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return super().forward(*args, **kwargs)

    config = TINY["wan"].config
    ak.unpatch(ak.patch(Inherits(**config).eval(), num_inference_steps=STEPS))
    model = ak.patch(Overrides(**config).eval(), num_inference_steps=STEPS)
    assert "the first forward will show how blocks connect" in ak.summary(model).found


def test_a_string_is_no_model() -> None:
    with pytest.raises(TypeError, match=r"str is neither a torch module, nor a list"):
        ak.patch("wan")


@pytest.mark.parametrize("function", [ak.unpatch, ak.summary, ak.reset])
def test_an_unpatched_model_is_refused(function: Any) -> None:
    with pytest.raises(ValueError, match="not patched"):
        function(wan())


def test_two_calls_a_step_make_one_decision() -> None:
    """With guidance in two calls, both branches follow one schedule, each with its residuals."""
    tiny, model = TINY["wan"], wan()
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS, calls_per_step=2)
    outputs = two_calls(model, STEPS)
    summary = ak.summary(model)
    assert summary.computed_steps == [1, 2, 5, 8, 9, 10]
    assert summary.branches == ["0", "1"]
    assert summary.cache_tensors == 2 * tiny.streams + 1
    ak.unpatch(model)
    conditional = alone(model, text_seed=100)
    unconditional = alone(model, text_seed=200)
    for step, (a, b) in enumerate(outputs):
        assert torch.equal(a, conditional[step])
        assert torch.equal(b, unconditional[step])


def two_calls(model: nn.Module, steps: int, names: tuple[str, ...] = ()) -> list[tuple[Any, Any]]:
    tiny = TINY["wan"]
    outputs = []
    with torch.no_grad():
        for step in range(1, steps + 1):
            latents = tiny.noise(seed=step)
            pair = []
            for index, text_seed in enumerate((100, 200)):
                if names:
                    with ak.cache_context(names[index]):
                        pair.append(tiny.call(model, latents, step, text_seed))
                else:
                    pair.append(tiny.call(model, latents, step, text_seed))
            outputs.append((pair[0], pair[1]))
    return outputs


def alone(model: nn.Module, text_seed: int) -> list[Any]:
    """Run one branch alone, on the schedule that a codebook with one rate gives to every branch."""
    tiny = TINY["wan"]
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS)
    with torch.no_grad():
        outputs = [
            tiny.call(model, tiny.noise(seed=step), step, text_seed) for step in range(1, STEPS + 1)
        ]
    ak.unpatch(model)
    return outputs


def test_named_contexts_need_no_number_of_calls() -> None:
    model = wan()
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS, calls_per_step=2)
    by_order = two_calls(model, STEPS)
    ak.unpatch(model)
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS)
    by_name = two_calls(model, STEPS, ("cond", "uncond"))
    assert ak.summary(model).branches == ["cond", "uncond"]
    for (a, b), (c, d) in zip(by_order, by_name, strict=True):
        assert torch.equal(a, c) and torch.equal(b, d)


def test_the_models_own_cache_context_names_the_branch() -> None:
    model = wan()
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS)
    tiny = TINY["wan"]
    with torch.no_grad():
        for step in range(1, 4):
            for name in ("cond", "uncond"):
                with model.cache_context(name):
                    tiny.call(model, tiny.noise(), step)
    assert ak.summary(model).branches == ["cond", "uncond"]
    assert ak.summary(model).computed_steps == [1, 2]
    ak.unpatch(model)
    assert "cache_context" not in vars(model)


def test_a_branch_that_appears_late_is_computed() -> None:
    """If guidance begins in the middle, nothing is stored for the second branch yet."""
    tiny, model = TINY["wan"], wan()
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS)
    with torch.no_grad():
        for step in range(1, 5):
            with ak.cache_context("cond"):
                tiny.call(model, tiny.noise(), step)
            if step >= 3:
                with ak.cache_context("uncond"):
                    late = tiny.call(model, tiny.noise(), step, text_seed=200)
                    if step == 3:
                        first = late
    summary = ak.summary(model)
    assert summary.reused_steps == [3, 4]
    assert summary.recomputed == {"uncond": [3]}
    ak.unpatch(model)
    with torch.no_grad():
        assert torch.equal(first, tiny.call(model, tiny.noise(), 3, text_seed=200))


def test_a_deep_copy_is_not_patched_and_runs_its_own_blocks() -> None:
    tiny, model = TINY["wan"], wan()
    plain = denoise(tiny, model, 6)
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=6)
    denoise(tiny, model, 3)
    other = copy.deepcopy(model)
    assert not ak.is_patched(other)
    nn.init.zeros_(model.proj_out.weight)
    assert close(denoise(tiny, other, 6)[-1], plain[-1])


def test_a_branch_that_paused_does_not_reuse_outdated_residuals() -> None:
    """The second branch has no call in step 5, so its residual of step 2 is too old at step 6."""
    tiny, model = TINY["wan"], wan()
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS)
    with torch.no_grad():
        for step in range(1, 8):
            with ak.cache_context("cond"):
                tiny.call(model, tiny.noise(seed=step), step)
            if step not in (4, 5):
                with ak.cache_context("uncond"):
                    tiny.call(model, tiny.noise(seed=step), step, text_seed=200)
    summary = ak.summary(model)
    assert summary.reused_steps == [3, 4, 6, 7]
    assert summary.recomputed == {"uncond": [6]}


def test_state_dict_and_blocks_stay_as_they_are() -> None:
    model = wan()
    keys, blocks = list(model.state_dict()), model.blocks
    ak.patch(model, num_inference_steps=STEPS)
    assert list(model.state_dict()) == keys
    assert model.blocks is blocks


def test_an_instance_forward_of_another_library_is_restored() -> None:
    model = wan()
    original = model.forward

    def theirs(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs)

    model.forward = theirs
    ak.patch(model, num_inference_steps=STEPS)
    ak.unpatch(model)
    assert model.forward is theirs


def test_a_wrapper_that_comes_after_patch_stays_after_unpatch_with_a_warning() -> None:
    tiny, model = TINY["wan"], wan()
    plain = denoise(tiny, model, 4)
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=4)
    ours = model.forward
    model.forward = lambda *args, **kwargs: ours(*args, **kwargs)
    with pytest.warns(ak.AdaCacheWarning, match="wrapped this model's forward"):
        ak.unpatch(model)
    assert torch.equal(denoise(tiny, model, 4)[-1], plain[-1])


def test_unpatch_frees_the_engine() -> None:
    model = ak.patch(wan(), codebook=EVERY_THIRD, num_inference_steps=STEPS)
    denoise(TINY["wan"], model, STEPS)
    slots = weakref.ref(
        next(
            iter(vars(model)["_adacache_installation"].router.engine._memory._plan.tensors.values())
        )
    )
    ak.unpatch(model)
    gc.collect()
    assert slots() is None


def test_the_summary_is_text_and_json() -> None:
    import json

    tiny, model = TINY["latte"], TINY["latte"].build()
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS)
    assert "no generation yet" in str(ak.summary(model))
    denoise(tiny, model, STEPS)
    summary = ak.summary(model)
    assert "6 of 10 steps computed" in str(summary)
    loaded = json.loads(json.dumps(summary.to_dict(), allow_nan=False))
    assert loaded["computed_steps"] == [1, 2, 5, 8, 9, 10]
    assert loaded["rates"][:3] == [1, 3, 3]
    assert len(loaded["distances"]) == len(loaded["motion_scores"]) == 6


def test_patch_refuses_a_package_that_was_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    from adacache_kernels import _native

    _native.module.cache_clear()
    monkeypatch.setitem(sys.modules, "adacache_kernels._C", None)
    monkeypatch.delattr(ak, "_C", raising=False)
    with pytest.raises(ImportError, match="pip install"):
        ak.patch(wan(), num_inference_steps=STEPS)
    monkeypatch.undo()
    _native.module.cache_clear()
