"""The methods to compare with: patch and unpatch, runs, memory, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from adacache_kernels.options import AdaCacheWarning
from tests.support.baseline_runs import STEPS, assert_equal, run_patched
from tests.support.oracles.baselines import blocks_of
from tests.support.rounding import close
from tests.support.tiny_models.common_models import TINY, denoise

REAL = [
    ak.baselines.PABConfig(spatial=2, window=(0, 1000)),
    ak.baselines.FixedIntervalConfig(interval=3),
    ak.baselines.FirstBlockCacheConfig(threshold=9.0),
    ak.baselines.AdaCachePerLayerConfig(codebook={9.0: 3}),
]


@pytest.mark.parametrize("config", REAL, ids=lambda config: type(config).__name__)
def test_unpatch_gives_the_model_back(config: Any) -> None:
    tiny = TINY["latte"]
    model = tiny.build()
    plain, attributes = denoise(tiny, model, STEPS), dict(vars(model))
    blocks = [dict(vars(block)) for block in blocks_of(tiny, model)]
    forward = model.forward
    ak.patch(model, config, num_inference_steps=STEPS)
    assert ak.is_patched(model)
    assert not torch.equal(denoise(tiny, model, STEPS)[-1], plain[-1])
    ak.unpatch(model)
    assert not ak.is_patched(model) and model.forward == forward
    assert vars(model) == attributes
    assert [dict(vars(block)) for block in blocks_of(tiny, model)] == blocks
    assert_equal(denoise(tiny, model, STEPS), plain)


@pytest.mark.parametrize("config", REAL, ids=lambda config: type(config).__name__)
def test_another_shape_in_the_middle_is_computed(config: Any) -> None:
    tiny = TINY["wan"]
    model, plain = ak.patch(tiny.build(), config, num_inference_steps=STEPS), tiny.build()
    with torch.no_grad():
        for step in (1, 2, 3):
            tiny.call(model, tiny.noise(1), step)
        found, expected = (tiny.call(m, tiny.noise(2), 4) for m in (model, plain))
    assert close(found, expected)
    assert 4 in ak.summary(model).computed_steps


@pytest.mark.parametrize("config", REAL, ids=lambda config: type(config).__name__)
def test_two_generations_are_alike_also_after_one_that_was_broken_off(config: Any) -> None:
    tiny = TINY["cogvideox"]
    model = ak.patch(tiny.build(), config, num_inference_steps=STEPS)
    first = denoise(tiny, model, STEPS)
    assert_equal(denoise(tiny, model, STEPS), first)
    denoise(tiny, model, 4)
    ak.reset(model)
    assert_equal(denoise(tiny, model, STEPS), first)
    summary = ak.summary(model)
    assert (
        summary.num_steps == STEPS and len(summary.computed_steps + summary.reused_steps) == STEPS
    )


@pytest.mark.parametrize("config", REAL, ids=lambda config: type(config).__name__)
def test_gradients_and_training_are_computed(config: Any) -> None:
    tiny = TINY["wan"]
    model, plain = ak.patch(tiny.build(), config, num_inference_steps=STEPS), tiny.build()
    with pytest.warns(AdaCacheWarning, match="gradients are enabled"):
        outputs = [tiny.call(model, tiny.noise(), step) for step in (1, 2, 3, 4)]
    expected = [tiny.call(plain, tiny.noise(), step) for step in (1, 2, 3, 4)]
    assert close([x.detach() for x in outputs], [x.detach() for x in expected])
    assert outputs[-1].requires_grad
    assert ak.summary(model).cache_bytes == 0


@pytest.mark.parametrize("config", REAL, ids=lambda config: type(config).__name__)
def test_a_step_after_one_with_gradients_is_computed(config: Any) -> None:
    tiny = TINY["wan"]
    model, plain = ak.patch(tiny.build(), config, num_inference_steps=STEPS), tiny.build()
    with torch.no_grad():
        for step in (1, 2):
            tiny.call(model, tiny.noise(), step)
    with pytest.warns(AdaCacheWarning, match="gradients are enabled"):
        tiny.call(model, tiny.noise(seed=1), 3)
    with torch.no_grad():
        found, expected = (tiny.call(each, tiny.noise(seed=2), 4) for each in (model, plain))
    assert close(found, expected)


def test_bytes_of_what_is_kept_are_reported() -> None:
    # 1 video of 3 frames of 16 tokens of 24 channels in float32.
    residual = 3 * 16 * 24 * 4
    _, summary = run_patched("wan", ak.baselines.FixedIntervalConfig(interval=3))
    assert (summary.cache_bytes, summary.cache_tensors) == (residual, 1)
    _, summary = run_patched("wan", ak.baselines.AdaCachePerLayerConfig(codebook={9.0: 3}))
    assert (summary.cache_bytes, summary.cache_tensors) == (3 * residual, 3)
    _, summary = run_patched("wan", ak.baselines.PABConfig(spatial=2, cross=2, window=(0, 1000)))
    assert (summary.cache_bytes, summary.cache_tensors) == (6 * residual, 6)
    _, summary = run_patched("wan", ak.baselines.FirstBlockCacheConfig(threshold=9.0))
    assert (summary.cache_bytes, summary.cache_tensors) == (2 * residual, 2)


def test_the_summary_tells_the_share_of_blocks_that_ran() -> None:
    import json

    _, summary = run_patched("wan", ak.baselines.FirstBlockCacheConfig(threshold=9.0))
    assert "11 of 27 blocks or modules computed" in str(summary)
    values = json.loads(json.dumps(summary.to_dict()))
    assert values["computed_fraction"] == 11 / 27
    assert values["config"]["method"] == "FirstBlock"
    _, whole = run_patched("wan", ak.AdaCacheConfig(codebook={9e9: 3}))
    steps = len(whole.computed_steps)
    assert whole.units == (steps, STEPS) and whole.computed_fraction == steps / STEPS
    assert "blocks or modules" not in str(whole)


def writes_into_its_input(original: Any) -> Any:
    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        output: Tensor = original(hidden_states, *args, **kwargs)
        return hidden_states.mul_(1.01) + output

    return forward


def test_a_block_that_writes_into_its_input_is_never_reused() -> None:
    tiny = TINY["wan"]
    model = tiny.build()
    block = model.blocks[0]
    block.forward = writes_into_its_input(block.forward)
    plain = denoise(tiny, model, STEPS)
    ak.patch(model, ak.baselines.FixedIntervalConfig(interval=2), num_inference_steps=STEPS)
    with pytest.warns(AdaCacheWarning, match="wrote into its input"):
        found = denoise(tiny, model, STEPS)
    assert_equal(found, plain)


def chunked() -> nn.Module:
    model = TINY["latte"].build()
    for block in model.transformer_blocks:
        block.set_chunk_feed_forward(2, 1)
    return model


def compiled() -> nn.Module:
    model = TINY["wan"].build()
    model.blocks[0].compile()
    return model


REFUSED: list[tuple[Any, Any, str]] = [
    (
        "wan",
        ak.baselines.PABConfig(temporal=3),
        r"temporal=3: WanTransformer3DModel has no attention over ti",
    ),
    (
        "cogvideox",
        ak.baselines.PABConfig(cross=6),
        r"cross=6: CogVideoX.* has no cross attention; it has spat",
    ),
    ("cogvideox", ak.baselines.PABConfig.preset("latte-slow"), r"temporal=3: CogVideoX"),
    (
        "cogvideox",
        ak.baselines.TGATEConfig(gate_step=7),
        r"gate_step=7: CogVideoX.* has no cross attention",
    ),
    ("wan", ak.baselines.MagCacheConfig(ratios=(1.0,) * 8), r"ratios has 8 numbers.* 9 steps"),
    ("wan", ak.baselines.DeltaDiTConfig(front=(0, 4)), r"front is \(0, 4\); Wan.* has 3 blocks"),
    (
        "wan",
        ak.baselines.DeltaDiTConfig(front=None, back=(3, None)),
        r"back is \(3, None\); Wan.* has 3 blocks",
    ),
    (compiled, ak.baselines.PABConfig(), r"blocks of this WanTransformer3DModel are compiled"),
]


@pytest.mark.parametrize(("build", "config", "message"), REFUSED)
def test_what_a_model_cannot_do_is_refused(build: Any, config: Any, message: str) -> None:
    model = build() if callable(build) else TINY[build].build()
    attributes = dict(vars(model))
    with pytest.raises(ValueError, match=message):
        ak.patch(model, config, num_inference_steps=STEPS)
    assert not ak.is_patched(model) and vars(model) == attributes


def test_a_chunked_mlp_is_told() -> None:
    tiny = TINY["latte"]
    model = ak.patch(chunked(), ak.baselines.PABConfig(), num_inference_steps=STEPS)
    with pytest.raises(RuntimeError, match=r"ff ran more than once.*chunking"):
        denoise(tiny, model, STEPS)


def test_settings_are_checked_by_patch() -> None:
    model = TINY["wan"].build()
    with pytest.raises(ValueError, match="FixedIntervalConfig needs the number of steps"):
        ak.patch(model, ak.baselines.FixedIntervalConfig())
    with pytest.raises(TypeError, match=r"unknown setting codebook; there are .*interval"):
        ak.patch(model, ak.baselines.FixedIntervalConfig(), codebook="fast")
    with pytest.raises(ValueError, match="FixedIntervalConfig stores plain tensors"):
        ak.patch(
            model,
            ak.baselines.FixedIntervalConfig(),
            arena=ak.CacheArena("cpu", 1 << 20),
            num_inference_steps=4,
        )
    with pytest.raises(ValueError, match=r"threshold is -1"):
        ak.patch(model, ak.baselines.FirstBlockCacheConfig(), threshold=-1, num_inference_steps=4)
    with pytest.raises(TypeError, match="the config of a baseline"):
        ak.patch(model, 3)  # type: ignore[arg-type]
