"""The original repositories' models, recognised by structure: exactness, reuse, residuals."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from adacache_kernels.models import adapter_for
from adacache_kernels.models.adapters.repositories import STRUCTURES
from tests.support.oracles.two_residuals_per_block import relative
from tests.support.tiny_models.description import noise
from tests.support.tiny_models.original_stdit3 import AuthorsBlock, STDiT3
from tests.support.tiny_models.originals import ORIGINALS, DiT, Original

STEPS = 10
NAMES = pytest.mark.parametrize("name", ORIGINALS)
VIDEO_SCHEDULE = {float("inf"): 3}

STRUCTURE = {
    "STDiT3, AdaCache": "2x3 t-attn s-attn ca-mlp block: spatial_blocks(x) -> temporal_blocks(x)",
    "STDiT3, first frame given": "2x3 t-attn s-attn ca-mlp block: spatial_blocks(x) -> "
    "temporal_blocks(x)",
    "STDiT3, Open-Sora": "2x3 t-attn s-attn ca-mlp block: spatial_blocks(x) -> temporal_blocks(x)",
    "STDiT3, Open-Sora 1.3": "2x3 t-attn s-attn ca-mlp block: spatial_blocks(x) -> "
    "temporal_blocks(x)",
    "STDiT3, VideoSys": "2x3 t-attn s-attn ca-mlp block: spatial_blocks(x) -> temporal_blocks(x)",
    "Open-Sora 2": "2x1 block: double_blocks(img, txt) -> single_blocks(x)",
    "Open-Sora 2, in slices": "2x1 block: double_blocks(img, txt) -> single_blocks(x)",
    "Open-Sora-Plan 1.1": "2x3 t-attn s-attn ca-mlp block: transformer_blocks(hidden_states) -> "
    "temporal_transformer_blocks(hidden_states)",
    "Open-Sora-Plan 1.2": "2x3 s-attn block: transformer_blocks(hidden_states)",
    "Open-Sora-Plan 1.3": "2x3 s-attn block: transformer_blocks(hidden_states)",
    "Latte": "2x3 t-attn s-attn ca-mlp block: blocks[0::2](x) -> blocks[1::2](x)",
}


@NAMES
def test_structure(name: str) -> None:
    double = ORIGINALS[name]
    model = double.build()
    adapter = adapter_for(model)
    batch, frames = adapter.frames(model, double.arguments(noise(*double.latents), torch.ones(2)))
    lists = [
        f"{blocks.name}({', '.join(stream.parameter for stream in blocks.streams)})"
        for blocks in adapter.lists
    ]
    text = f"{batch}x{frames} {' '.join(adapter.residuals)}: {' -> '.join(lists)}"
    assert text == STRUCTURE[name]
    assert sum(structure.fits(model) for structure in STRUCTURES) == 1


@NAMES
def test_rate_1_is_bit_equal_and_unpatch_restores_the_model(name: str) -> None:
    double = ORIGINALS[name]
    model = double.build()
    plain, before = double.denoise(model, STEPS), dict(vars(model))
    ak.patch(model, codebook={1.0: 1}, num_inference_steps=STEPS)
    assert all(map(torch.equal, plain, double.denoise(model, STEPS)))
    assert all(distance is not None for distance in ak.summary(model).distances[1:])
    ak.unpatch(model)
    assert vars(model) == before
    assert all(map(torch.equal, plain, double.denoise(model, STEPS)))


@NAMES
def test_reuse_on_equal_input_repeats_the_output(name: str) -> None:
    """The tolerance allows two roundings of the stream and a gain below 16 after the blocks."""
    double = ORIGINALS[name]
    model = double.build()
    ak.patch(model, codebook=VIDEO_SCHEDULE, num_inference_steps=STEPS)

    def call(index: int) -> Tensor:
        """Call the model with the same inputs in every step, so only the context has the step."""
        with torch.no_grad(), ak.cache_context("0", step_index=index, num_inference_steps=STEPS):
            return double.call(model, torch.ones(double.latents), 1)

    outputs = [call(index) for index in range(STEPS)]
    assert ak.summary(model).reused_steps
    scale = outputs[1].abs().max()
    assert all((o - outputs[1]).abs().max() <= 32 * torch.finfo().eps * scale for o in outputs)


class StoredResiduals:
    """A block's forward that stores its residuals while `computes()`, else adds them."""

    def __init__(
        self, block: nn.Module, streams: tuple[str, ...], computes: Callable[[], bool]
    ) -> None:
        self.original, self.streams, self.computes = block.forward, streams, computes
        self.signature = inspect.signature(block.forward)
        self.added: list[Tensor] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        bound = self.signature.bind(*args, **kwargs).arguments
        inputs = [bound[name] for name in self.streams]
        passed = (bound["ada_dict"],) if "ada_dict" in bound else ()
        if self.computes():
            output = self.original(*args, **kwargs)
            outputs = output if isinstance(output, tuple) else (output,)
            self.added = [o - x for o, x in zip(outputs, inputs, strict=False)]
            return output
        outputs = tuple(x + r for x, r in zip(inputs, self.added, strict=True)) + passed
        return outputs if len(outputs) > 1 else outputs[0]


@contextmanager
def one_residual_per_block(
    double: Original, model: nn.Module, computes: Callable[[], bool]
) -> Iterator[None]:
    """Run all blocks with `StoredResiduals` inside."""
    blocks = [
        (block, streams)
        for name, streams in double.streams.items()
        for block in getattr(model, name)
    ]
    for block, streams in blocks:
        block.forward = StoredResiduals(block, streams, computes)
    try:
        yield
    finally:
        for block, _ in blocks:
            del block.forward


@NAMES
def test_reuse_equals_that_of_one_residual_per_block(name: str) -> None:
    """Within 1e-5, because float32 sums are in another order in 10 steps."""
    double = ORIGINALS[name]
    model = double.build()
    plain = double.denoise(model, STEPS)
    ak.patch(model, codebook=VIDEO_SCHEDULE, num_inference_steps=STEPS)
    actual, computed = double.denoise(model, STEPS), ak.summary(model).computed_steps
    ak.unpatch(model)
    step, expected = 0, []
    with one_residual_per_block(double, model, lambda: step in computed), torch.no_grad():
        latents = noise(*double.latents)
        for step in range(1, STEPS + 1):
            latents = latents - 0.05 * double.call(model, latents, step)
            expected.append(latents)
    assert len(computed) < STEPS - 2
    assert all(relative(a, b) < 1e-5 for a, b in zip(actual, expected, strict=True))
    assert relative(actual[-1], plain[-1]) > 1e-4


@NAMES
@pytest.mark.parametrize("settings", [{"config": "forecast"}, {"cache_dtype": "int8"}])
def test_presets(name: str, settings: dict[str, Any]) -> None:
    double = ORIGINALS[name]
    model = double.build()
    ak.patch(model, codebook={1e9: 3}, num_inference_steps=STEPS, **settings)
    assert torch.isfinite(double.denoise(model, STEPS)[-1]).all()
    assert ak.summary(model).reused_steps


@pytest.mark.parametrize("name", ["Open-Sora-Plan 1.1", "Open-Sora-Plan 1.2", "Latte"])
def test_calls_with_images_next_to_the_video_are_computed(name: str) -> None:
    double = ORIGINALS[name]
    model = double.build()
    ak.patch(model, codebook=VIDEO_SCHEDULE, num_inference_steps=STEPS)
    arguments = double.arguments(noise(*double.latents), torch.ones(2))
    with (
        pytest.warns(ak.AdaCacheWarning, match="use_image_num came with the call"),
        torch.no_grad(),
    ):
        for _ in range(4):
            model(**arguments, use_image_num=1)
    assert not ak.summary(model).reused_steps


def test_the_sampling_method_of_latte_is_cached() -> None:
    double = ORIGINALS["Latte"]
    model = double.build()
    ak.patch(model, codebook=VIDEO_SCHEDULE, num_inference_steps=STEPS)
    with torch.no_grad():
        for step in range(STEPS):
            model.forward_with_cfg(noise(*double.latents), torch.full((2,), 900 - step))
    assert ak.summary(model).reused_steps


def test_a_structure_needs_more_than_names_of_lists() -> None:
    model = STDiT3(AuthorsBlock)
    assert "Open-Sora 1.2 with AdaCache" in str(adapter_for(model))
    model.temporal_blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    assert adapter_for(model) is None


def test_dit_is_not_recognised_as_latte() -> None:
    """DiT has the same block list, for one image. Its first forward shows how it is connected."""
    torch.manual_seed(0)
    model = DiT().eval()
    assert adapter_for(model) is None
    ak.patch(model, codebook=VIDEO_SCHEDULE, num_inference_steps=STEPS)
    with torch.no_grad():
        for step in range(STEPS):
            model(noise(2, 4, 8, 8), torch.full((2,), 900 - step))
    assert "blocks(x) of 4, by its first forward" in ak.summary(model).found
    assert ak.summary(model).reused_steps


def test_a_model_that_caches_by_itself_is_unsupported() -> None:
    model = STDiT3(AuthorsBlock)
    for block in (*model.spatial_blocks, *model.temporal_blocks):
        block.do_cache = True
    with pytest.raises(
        ValueError, match=r"STDiT3 caches by itself \(do_cache=True\).*do_cache=Fal"
    ):
        ak.patch(model, num_inference_steps=STEPS)
    assert not ak.is_patched(model)
