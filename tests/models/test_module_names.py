"""The modules that baselines can reuse in each model, and the inputs that they can watch."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

import adacache_kernels as ak
from adacache_kernels.api.target import installed_engines
from adacache_kernels.baselines.mechanisms.reuse_modules import units_of
from adacache_kernels.models.block_calls import Parameters
from adacache_kernels.models.module_names import MODULE_NAMES, module_names_for
from tests.support.oracles.baselines import Steps, StoredModule, installed
from tests.support.tiny_models import chained_models as tiny_chained
from tests.support.tiny_models import common_models as tiny
from tests.support.tiny_models import tiny_class

STEPS = 5
MODELS: dict[str, Any] = {
    name: each
    for family in (tiny.TINY, tiny_chained.VIDEOS, tiny_chained.IMAGES)
    for name, each in family.items()
    if getattr(each, "cls", getattr(each, "name", None)) in MODULE_NAMES
}


CROSS = "cross=attn2:3 mlp=ff:3 spatial=attn1:3"
WAN = "cross=attn2:3 mlp=ffn:3 spatial=attn1:3"
JOINT = "mlp=ff:3 spatial=attn1:3"
# "kind=module:count" in three blocks, or three pairs. Mochi's last block has no MLP for the text.
MODULES_BY_KIND = {
    "latte": "cross=attn2:3 mlp=ff:6 spatial=attn1:3 temporal=attn1:3",
    "allegro": CROSS,
    "wan": WAN,
    "cogvideox": JOINT,
    "cogvideox15": JOINT,
    "chronoedit": WAN,
    "skyreels": WAN,
    "ltx": CROSS,
    "mochi": "mlp=ff:3 mlp=ff_context:2 spatial=attn1:3",
    "cosmos": CROSS,
    "hunyuan15": "mlp=ff:3 mlp=ff_context:3 spatial=attn:3",
    "sana": CROSS,
    "pixart": CROSS,
}


@pytest.mark.parametrize("name", MODELS)
def test_modules_by_kind(name: str) -> None:
    counts = Counter(f"{unit.kind}={unit.name}" for unit in units_of(MODELS[name].build(), {}))
    text = " ".join(f"{module}:{count}" for module, count in sorted(counts.items()))
    assert text == MODULES_BY_KIND[name]


def denoise(name: str, model: Any) -> list[torch.Tensor]:
    """Return the latents after each step."""
    module = tiny if name in tiny.TINY else tiny_class
    return module.denoise(MODELS[name], model, STEPS)


@pytest.mark.parametrize("name", MODELS)
def test_reused_modules_return_their_last_output(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MODELS[name].build()
    names = module_names_for(model)
    assert names is not None
    steps = Steps(model)
    reused = {"spatial": {2, 4}, "temporal": {2, 4}, "cross": {2, 3, 5}, "mlp": {3, 4}}
    wrappers = [
        StoredModule(getattr(block, module), steps, reused[kind])
        for kind, pairs in names.modules.items()
        for attribute, module in pairs
        for block in getattr(model, attribute)
        if getattr(block, module, None) is not None
    ]
    with installed(wrappers, steps):
        expected = denoise(name, model)
    ranges = {"temporal": 2, "cross": 3}
    ranges = {kind: count for kind, count in ranges.items() if kind in names.modules}
    config = ak.baselines.PABConfig(
        spatial=2, **ranges, window=(0, 1000), mlp_timesteps=(870,), mlp_blocks=tuple(range(9))
    )
    timesteps = iter((900, 870, 840, 810, 780))
    ak.patch(model, config, num_inference_steps=STEPS)
    # The models' timesteps have several units.
    monkeypatch.setattr(installed_engines(model)[0], "_timestep", lambda *_: next(timesteps))
    actual = denoise(name, model)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
    ran, called = ak.summary(model).units
    assert called == STEPS * len(wrappers)
    assert called - ran == sum(len(wrapper.reused) for wrapper in wrappers)


@pytest.mark.parametrize("name", MODELS)
def test_the_watched_input_equals_the_input_of_the_first_attention(name: str) -> None:
    model, inputs = MODELS[name].build(), []
    names = module_names_for(model)
    assert names is not None
    if names.modulated is None:
        with pytest.raises(ValueError, match=r"not known how .* set watched=\"timestep\""):
            ak.patch(model, ak.baselines.TeaCacheConfig(), num_inference_steps=STEPS)
        return
    attribute, attention = names.modules["spatial"][0]
    block = getattr(model, attribute)[0]
    parameters = Parameters(block)

    def compute(_block: Any, args: Any, kwargs: Any) -> None:
        inputs.append(names.modulated(block, parameters.bind(args, kwargs)))

    def record(_module: Any, args: Any, kwargs: Any) -> None:
        inputs.append(args[0] if args else kwargs["hidden_states"])

    handles = [
        block.register_forward_pre_hook(compute, with_kwargs=True),
        getattr(block, attention).register_forward_pre_hook(record, with_kwargs=True),
    ]
    denoise(name, model)
    for handle in handles:
        handle.remove()
    pairs = list(zip(inputs[::2], inputs[1::2], strict=True))
    assert len(pairs) == STEPS and all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", MODELS)
def test_the_embedding_of_the_timestep_is_watched(name: str) -> None:
    model = MODELS[name].build()
    plain = denoise(name, model)
    config = ak.baselines.TeaCacheConfig(threshold=0.0, watched="timestep")
    ak.patch(model, config, num_inference_steps=STEPS)
    assert all(torch.equal(a, b) for a, b in zip(denoise(name, model), plain, strict=True))
    distances = ak.summary(model).distances[1:-1]
    assert len(distances) == STEPS - 2 and all(distances)


def test_a_model_with_unknown_modules_can_reuse_blocks_only() -> None:
    each = tiny_chained.VIDEOS["hunyuan"]
    for config in (ak.baselines.PABConfig(), ak.baselines.TeaCacheConfig()):
        with pytest.raises(ValueError, match="HunyuanVideoTransformer3DModel: it is not known"):
            ak.patch(each.build(), config, num_inference_steps=STEPS)
    model = ak.patch(each.build(), ak.baselines.FixedIntervalConfig(), num_inference_steps=STEPS)
    tiny_class.denoise(each, model, STEPS)
    assert ak.summary(model).computed_steps == [1, 3, 5]
