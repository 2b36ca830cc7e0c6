"""Classes that are supported by data alone: exactness, reuse against a plain oracle, structure."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from adacache_kernels.models import Adapter, adapter_for
from oracle import relative
from tiny_chained import IMAGES, VIDEOS, TinyClass, denoise, noise

STEPS = 12
CHAINED = {**VIDEOS, **IMAGES}
NAMES = pytest.mark.parametrize("name", CHAINED)

STRUCTURE = {
    "chronoedit": "blocks(hidden_states) 1x3 s-attn, ca-mlp, block",
    "skyreels": "blocks(hidden_states) 1x3 block",
    "ltx": "transformer_blocks(hidden_states) 1x3 block",
    "mochi": "transformer_blocks(hidden_states, encoder_hidden_states) 1x3 block",
    "cosmos": "transformer_blocks(hidden_states) 1x3 block",
    "easyanimate": "transformer_blocks(hidden_states, encoder_hidden_states) 1x3 block",
    "hunyuan": "transformer_blocks(hidden_states, encoder_hidden_states) "
    "single_transformer_blocks(hidden_states, encoder_hidden_states) 1x3 block",
    "hunyuan, first frame given": "transformer_blocks(hidden_states, encoder_hidden_states) "
    "single_transformer_blocks(hidden_states, encoder_hidden_states) 1x3 block",
    "hunyuan15": "transformer_blocks(hidden_states, encoder_hidden_states) 1x3 block",
    "sana": "transformer_blocks(hidden_states) 1x3 block",
    "dit": "transformer_blocks(hidden_states) 1x1 block",
    "pixart": "transformer_blocks(hidden_states) 1x1 block",
    "sana, image": "transformer_blocks(hidden_states) 1x1 block",
    "flux": "transformer_blocks(hidden_states, encoder_hidden_states) "
    "single_transformer_blocks(hidden_states, encoder_hidden_states) 1x1 block",
    "qwen": "transformer_blocks(hidden_states, encoder_hidden_states) 1x1 block",
}


def structure(adapter: Adapter, model: nn.Module, arguments: dict[str, Any]) -> str:
    lists = [
        f"{blocks.attribute}({', '.join(stream.parameter for stream in blocks.streams)})"
        for blocks in adapter.lists
    ]
    batch, frames = adapter.frames(model, arguments)
    return f"{' '.join(lists)} {batch}x{frames} {', '.join(adapter.residuals)}"


@NAMES
def test_structure(name: str) -> None:
    tiny, model = CHAINED[name], CHAINED[name].build()
    arguments = {"hidden_states": torch.zeros(tiny.latents), **tiny.extra()}
    assert structure(adapter_for(model), model, arguments) == STRUCTURE[name]


@NAMES
def test_rate_1_is_bit_equal_and_unpatch_gives_the_model_back(name: str) -> None:
    tiny, model = CHAINED[name], CHAINED[name].build()
    plain, before = denoise(tiny, model, STEPS), dict(vars(model))
    ak.patch(model, codebook={1.0: 1}, num_inference_steps=STEPS)
    assert all(map(torch.equal, plain, denoise(tiny, model, STEPS)))
    summary = ak.summary(model)
    assert all(distance is not None for distance in summary.distances[1:])
    ak.unpatch(model)
    assert vars(model) == before
    assert all(map(torch.equal, plain, denoise(tiny, model, STEPS)))


@NAMES
def test_reuse_on_equal_input_repeats_the_output(name: str) -> None:
    """As in test_engine.py: two roundings of the stream, and a gain below 16 behind it."""
    tiny, model = CHAINED[name], CHAINED[name].build()
    ak.patch(model, codebook={float("inf"): 3}, num_inference_steps=STEPS)
    with torch.no_grad():
        outputs = [tiny.call(model, torch.ones(tiny.latents), 1) for _ in range(STEPS)]
    assert ak.summary(model).reused_steps
    scale = outputs[1].abs().max()
    assert all((o - outputs[1]).abs().max() <= 32 * torch.finfo().eps * scale for o in outputs)


class Kept:
    """A block's forward that keeps what it added to each stream, and adds that where told to."""

    def __init__(
        self, block: nn.Module, streams: tuple[str, ...], computes: Callable[[], bool]
    ) -> None:
        self.original, self.streams, self.computes = block.forward, streams, computes
        self.names = list(inspect.signature(block.forward).parameters)
        self.added: list[Tensor] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        bound = dict(zip(self.names, args, strict=False)) | kwargs
        inputs = [bound[name] for name in self.streams]
        if self.computes():
            output = self.original(*args, **kwargs)
            outputs = output if isinstance(output, tuple) else (output,)
            self.added = [o - x for o, x in zip(outputs, inputs, strict=True)]
            return output
        outputs = tuple(x + r for x, r in zip(inputs, self.added, strict=True))
        return outputs if len(self.streams) > 1 else outputs[0]


@contextmanager
def kept(tiny: TinyClass, model: nn.Module, computes: Callable[[], bool]) -> Iterator[None]:
    blocks = [block for name in tiny.lists for block in getattr(model, name)]
    for block in blocks:
        block.forward = Kept(block, tiny.streams, computes)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


@NAMES
@pytest.mark.parametrize("rate", [2, 4])
def test_reuse_is_that_of_a_residual_a_block(name: str, rate: int) -> None:
    """Within 1e-5: float32 sums in another order, over 12 steps."""
    tiny, model = CHAINED[name], CHAINED[name].build()
    plain = denoise(tiny, model, STEPS)
    ak.patch(model, codebook={float("inf"): rate}, num_inference_steps=STEPS)
    found, computed = denoise(tiny, model, STEPS), ak.summary(model).computed_steps
    ak.unpatch(model)
    now, expected = [0], []
    with kept(tiny, model, lambda: now[0] in computed), torch.no_grad():
        latents = noise(*tiny.latents)
        for step in range(1, STEPS + 1):
            now[0] = step
            latents = latents - 0.05 * tiny.call(model, latents, step)
            expected.append(latents)
    assert len(computed) < STEPS - 2
    assert all(relative(a, b) < 1e-5 for a, b in zip(found, expected, strict=True))
    assert relative(found[-1], plain[-1]) > 3e-5


@NAMES
def test_presets_and_motion(name: str) -> None:
    tiny, model = CHAINED[name], CHAINED[name].build()
    ways: list[dict[str, Any]] = [{"config": "forecast"}, {"cache_dtype": "int8"}]
    if tiny.frames > 1:
        ways.append({"apply_moreg": True})
    for settings in ways:
        options = {"codebook": {1e9: 3}, "num_inference_steps": STEPS, **settings}
        ak.patch(model, **options)
        video = denoise(tiny, model, STEPS)[-1]
        assert torch.isfinite(video).all() and ak.summary(model).reused_steps
        ak.unpatch(model)


@pytest.mark.parametrize("name", IMAGES)
def test_one_frame_has_no_motion(name: str) -> None:
    tiny, model = CHAINED[name], CHAINED[name].build()
    ak.patch(model, apply_moreg=True, num_inference_steps=STEPS)
    with pytest.raises(ValueError, match=r"1 frames of tokens.*set apply_moreg=False"):
        denoise(tiny, model, STEPS)


def test_what_a_controlnet_adds_between_blocks_is_not_reused() -> None:
    tiny, model = CHAINED["flux"], CHAINED["flux"].build()
    samples = {"controlnet_block_samples": [noise(1, 16, 32, seed=7)] * 2}

    def run() -> list[Tensor]:
        latents = [noise(*tiny.latents, seed=step) for step in range(STEPS)]
        with torch.no_grad():
            return [
                model(
                    hidden_states=x,
                    encoder_hidden_states=noise(*(tiny.text or ()), seed=100),
                    timestep=tiny.timestep(step),
                    return_dict=False,
                    **tiny.extra(),
                    **samples,
                )[0]
                for step, x in enumerate(latents, 1)
            ]

    plain = run()
    ak.patch(model, codebook={float("inf"): 3}, num_inference_steps=STEPS)
    with pytest.warns(ak.AdaCacheWarning, match=r"controlnet_block_samples came with the call"):
        assert all(map(torch.equal, run(), plain))
