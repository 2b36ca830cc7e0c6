"""Change, copy and save a patched model: LoRA, attention, copies, pickles."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from tests.support.oracles.two_residuals_per_block import relative
from tests.support.rounding import close
from tests.support.tiny_models.common_models import TINY, denoise
from tests.support.tiny_pipelines.latte_and_wan import latte, run_latte, run_wan
from tests.support.tiny_pipelines.latte_and_wan import wan as wan_pipeline

STEPS = 7
ALWAYS = {1.0: 1}
EVERY_THIRD = {float("inf"): 3}
COMPUTED = [1, 2, 5, 6, 7]


def build(name: str = "wan") -> nn.Module:
    return TINY[name].build()


def patch(model: nn.Module, codebook: dict[float, int] = EVERY_THIRD) -> nn.Module:
    return ak.patch(model, codebook=codebook, num_inference_steps=STEPS)


def run(model: nn.Module, name: str = "wan") -> Tensor:
    return denoise(TINY[name], model, STEPS)[-1]


class Lora(nn.Module):
    """A linear layer with an update of rank one beside it, as LoRA loaders inject it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.base = base
        self.up = nn.Parameter(torch.randn(base.out_features, 1, generator=generator) * 0.3)
        self.down = nn.Parameter(torch.randn(1, base.in_features, generator=generator) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x) + x @ self.down.T @ self.up.T
        return y

    def fused(self) -> nn.Linear:
        with torch.no_grad():
            self.base.weight += self.up @ self.down
        return self.base

    def unfused(self) -> nn.Linear:
        with torch.no_grad():
            self.base.weight -= self.up @ self.down
        return self.base


def load(model: nn.Module) -> None:
    for block in model.blocks:
        block.attn1.to_q, block.ffn.net[2] = Lora(block.attn1.to_q), Lora(block.ffn.net[2])


def fuse(model: nn.Module) -> None:
    for block in model.blocks:
        block.attn1.to_q, block.ffn.net[2] = block.attn1.to_q.fused(), block.ffn.net[2].fused()


def unload(model: nn.Module) -> None:
    for block in model.blocks:
        block.attn1.to_q, block.ffn.net[2] = block.attn1.to_q.base, block.ffn.net[2].base


def with_update() -> nn.Module:
    model = build()
    load(model)
    return model


def test_lora_that_is_loaded_fused_and_unloaded_between_runs() -> None:
    """Each run equals that of a newly patched model with these weights, except for rounding."""
    model = patch(build())
    base = run(model)
    load(model)
    loaded = run(model)
    assert close(loaded, run(patch(with_update())))
    assert relative(loaded, base) > 1e-3
    distances = ak.summary(model).distances
    fuse(model)
    assert relative(run(model), loaded) < 1e-5, "the order of the products differs"
    for now, before in zip(ak.summary(model).distances, distances, strict=True):
        assert now == before or now == pytest.approx(before, rel=1e-3)
    load(model)
    unload(model)
    ak.unpatch(model)
    fused = with_update()
    fuse(fused)
    assert close(run(model), run(fused))


def test_lora_that_is_loaded_in_the_middle_is_in_the_next_computed_step() -> None:
    """Reused steps do not have it; the next run does not depend on the run before."""
    tiny, model = TINY["wan"], patch(build())

    def call(index: int) -> Tensor:
        with torch.no_grad(), ak.cache_context("0", step_index=index, num_inference_steps=STEPS):
            return tiny.call(model, tiny.noise(seed=1), 1)

    outputs = [call(index) for index in range(2)]
    load(model)
    outputs += [call(index) for index in range(2, 7)]
    with torch.no_grad():
        expected = tiny.call(with_update(), tiny.noise(seed=1), 1)
    assert relative(outputs[2], outputs[1]) < 1e-6, "step 3 is reused"
    assert close(outputs[4], expected), "step 5 is computed"
    assert close(run(model), run(patch(with_update())))


def test_peft() -> None:
    peft = pytest.importorskip("peft")

    def add(model: Any) -> None:
        torch.manual_seed(3)
        config = peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
        model.add_adapter(config, adapter_name="style")

    model, other = patch(build()), build()
    base = run(model)
    add(model)
    add(other)
    patch(other)
    loaded = run(model)
    assert close(loaded, run(other)) and not close(loaded, base)
    model.disable_adapters()
    assert torch.equal(run(model), base)
    model.enable_adapters()
    model.fuse_lora()
    assert relative(run(model), loaded) < 1e-5
    model.unfuse_lora()
    model.unload_lora()
    assert relative(run(model), base) < 1e-5
    assert ak.summary(model).computed_steps == COMPUTED
    ak.unpatch(model)


def test_a_block_that_is_replaced_between_runs() -> None:
    model, other = patch(build()), build()
    run(model)
    for target in (model, other):
        target.blocks[1] = TINY["wan"].build(seed=3).blocks[1]
    assert close(run(model), run(patch(other)))


@pytest.mark.parametrize("name", ["wan", "cogvideox"])
def test_attention_that_is_fused_or_replaced(name: str) -> None:
    def change(model: Any) -> None:
        if name == "cogvideox":
            model.fuse_qkv_projections()
            return
        processors = {key: type(value)() for key, value in model.attn_processors.items()}
        model.set_attn_processor(processors)

    model, plain = patch(build(name)), build(name)
    run(model, name)
    change(model)
    change(plain)
    reused = run(model, name)
    assert ak.summary(model).computed_steps == COMPUTED
    ak.unpatch(model)
    assert close(run(model, name), run(plain, name))
    assert close(run(patch(plain), name), reused)


def test_gradients_with_checkpointing_are_those_of_the_plain_model() -> None:
    def gradient(model: nn.Module) -> Tensor:
        tiny = TINY["wan"]
        tiny.call(model, tiny.noise(), 1).square().mean().backward()
        found = model.blocks[0].attn1.to_q.weight.grad
        assert found is not None
        model.zero_grad()
        return found

    model = build().train()
    model.enable_gradient_checkpointing()
    plain = gradient(model)
    patch(model)
    with pytest.warns(ak.AdaCacheWarning, match="training mode"):
        assert torch.equal(gradient(model), plain)


def copied(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model)


def pickled(model: nn.Module) -> nn.Module:
    loaded = pickle.loads(pickle.dumps(model))
    assert isinstance(loaded, nn.Module)
    return loaded


def saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert isinstance(loaded, nn.Module)
    return loaded


@pytest.mark.parametrize("way", [copied, pickled, saved])
@pytest.mark.parametrize("when", ["before a run", "in the middle"])
def test_a_copy_of_a_patched_model_is_a_plain_one(
    way: Callable[[nn.Module], nn.Module], when: str
) -> None:
    """The copy is independent: it has its own weights, and it can be patched."""
    tiny, model, plain = TINY["wan"], patch(build()), run(build())
    if when == "in the middle":
        denoise(tiny, model, 3)
    other = way(model)
    assert not ak.is_patched(other) and ak.is_patched(model)
    assert close(run(other), plain)
    assert len(ak.summary(model).computed_steps) == (2 if when == "in the middle" else 0)
    if when == "in the middle":
        ak.reset(model)
    reused = run(model)
    assert ak.summary(model).computed_steps == COMPUTED
    own = run(patch(other))
    assert close(own, reused)
    nn.init.zeros_(model.proj_out.weight)
    assert torch.equal(run(other), own)
    ak.unpatch(other)
    from diffusers import FirstBlockCacheConfig

    other.enable_cache(FirstBlockCacheConfig())


@pytest.mark.parametrize("way", [copied, pickled])
def test_a_copy_of_a_patched_pipeline_is_a_plain_one(way: Callable[[Any], Any]) -> None:
    plain = run_latte(latte())
    pipe = ak.patch(latte(), codebook=EVERY_THIRD)
    reused = run_latte(pipe)
    other = copy.deepcopy(pipe) if way is copied else pickle.loads(pickle.dumps(pipe))
    other.set_progress_bar_config(disable=True)
    assert close(run_latte(other), plain)
    assert ak.summary(pipe).computed_steps == [1, 2, 5, 7, 8]
    assert torch.equal(run_latte(pipe), reused)
    ak.patch(other, codebook=EVERY_THIRD)
    assert close(run_latte(other), reused)


def test_saved_weights_are_those_of_the_plain_model(tmp_path: Path) -> None:
    from diffusers import WanTransformer3DModel

    model, plain = build(), run(build())
    keys = list(model.state_dict())
    patch(model)
    run(model)
    assert list(model.state_dict()) == keys
    assert [name for name, _ in model.named_modules()] == [n for n, _ in build().named_modules()]
    model.save_pretrained(tmp_path)
    loaded = WanTransformer3DModel.from_pretrained(tmp_path).eval()
    assert not ak.is_patched(loaded)
    assert close(run(loaded), plain)
    model.load_state_dict(loaded.state_dict())
    assert close(run(model), run(patch(loaded)))


def test_a_saved_pipeline(tmp_path: Path) -> None:
    from diffusers import LattePipeline

    plain, pipe = run_latte(latte()), ak.patch(latte(), codebook=EVERY_THIRD)
    run_latte(pipe)
    pipe.save_pretrained(tmp_path)
    parts = {"tokenizer": None, "text_encoder": None, "vae": None}
    loaded = LattePipeline.from_pretrained(tmp_path, **parts)
    loaded.set_progress_bar_config(disable=True)
    assert close(run_latte(loaded), plain)


def test_pipelines_that_share_a_transformer() -> None:
    """`from_pipe` also shares the scheduler, so the steps of both pipelines are counted."""
    from diffusers import WanPipeline

    pipe = ak.patch(wan_pipeline(), codebook=EVERY_THIRD)
    reused = run_wan(pipe)
    other = WanPipeline.from_pipe(pipe)
    other.set_progress_bar_config(disable=True)
    assert other.transformer is pipe.transformer and ak.is_patched(other)
    for steps, expected in ((8, [1, 2, 5, 7, 8]), (6, [1, 2, 5, 6])):
        run_wan(other, steps)
        assert ak.summary(other).computed_steps == expected
    assert torch.equal(run_wan(pipe), reused)
    with pytest.raises(ValueError, match="patched already"):
        ak.patch(other)
    ak.unpatch(other)
    assert not ak.is_patched(pipe) and "step" not in vars(pipe.scheduler)


def test_an_unwatched_scheduler_on_a_shared_transformer() -> None:
    pipe, other = ak.patch(wan_pipeline(), codebook=EVERY_THIRD), wan_pipeline()
    reused = run_wan(pipe)
    other.transformer = pipe.transformer
    assert torch.equal(run_wan(other), reused)
    assert ak.summary(other).computed_steps == [1, 2, 5, 7, 8]
    assert torch.equal(run_wan(pipe), reused)
    ak.unpatch(pipe)
    ak.patch(pipe, codebook=EVERY_THIRD)
    assert torch.equal(run_wan(pipe), reused)
