"""The models whose steps `bench/runtime/overhead.py` times, and their inputs."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from adacache_kernels.demo.pipeline import load_pipeline
from adacache_kernels.demo.run import FRAMES, generate

HIDDEN, BLOCKS, TEXT = 1152, 8, 16
LATENTS = 8
"""Number of different latents for the steps; with equal ones every distance would be zero."""


@dataclass(frozen=True)
class Subject:
    """A model that is timed.

    Args:
        name: name in the tables.
        model: the model in evaluation mode.
        inputs: arguments of its forwards, one after another.
        lists: attributes of its block lists.
    """

    name: str
    model: nn.Module
    inputs: tuple[Mapping[str, Any], ...]
    lists: tuple[str, ...]

    def twin(self) -> nn.Module:
        """Return a copy that shares the weights; its own weights would not be in the caches."""
        shared = itertools.chain(self.model.parameters(), self.model.buffers())
        return copy.deepcopy(self.model, {id(tensor): tensor for tensor in shared})

    def emptied(self) -> nn.Module:
        """Return a copy with empty block lists."""
        model = self.twin()
        for attribute in self.lists:
            setattr(model, attribute, nn.ModuleList())
        return model


def demo() -> Subject:
    """Return the demo's transformer, with the inputs that its pipeline gives it."""
    pipe = load_pipeline()
    calls: list[dict[str, Any]] = []

    def record(_model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        assert not args
        calls.append(dict(kwargs))

    handle = pipe.transformer.register_forward_pre_hook(record, with_kwargs=True)
    generate(pipe, "a white six moving fast", steps=LATENTS)
    handle.remove()
    lists = ("transformer_blocks", "temporal_transformer_blocks")
    return Subject(f"demo: Latte, 128, {FRAMES} x 16", pipe.transformer, tuple(calls), lists)


def latte() -> Subject:
    """Return a model of Latte's width, with eight blocks of each kind."""
    model = diffusers.LatteTransformer3DModel(
        num_attention_heads=HIDDEN // 72, attention_head_dim=72, in_channels=4, out_channels=8,
        num_layers=BLOCKS, cross_attention_dim=HIDDEN, attention_bias=True, sample_size=8,
        patch_size=2, activation_fn="gelu-approximate", norm_type="ada_norm_single", norm_eps=1e-6,
        norm_elementwise_affine=False, caption_channels=HIDDEN, video_length=4,
    )  # fmt: skip
    lists = ("transformer_blocks", "temporal_transformer_blocks")
    return _subject("Latte, 1152, 4 x 16", model, (4, 4, 8, 8), HIDDEN, lists)


def cogvideox() -> Subject:
    """Return a CogVideoX of that width: two streams in one list."""
    model = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=HIDDEN // 64, attention_head_dim=64, in_channels=4, out_channels=4,
        num_layers=BLOCKS, text_embed_dim=HIDDEN, sample_width=8, sample_height=8, sample_frames=13,
        max_text_seq_length=TEXT,
    )  # fmt: skip
    return _subject("CogVideoX, 1152, 4 x 16", model, (4, 4, 8, 8), HIDDEN, ("transformer_blocks",))


def wan() -> Subject:
    """Return a Wan of that width: one stream in one list."""
    model = diffusers.WanTransformer3DModel(
        num_attention_heads=HIDDEN // 128, attention_head_dim=128, in_channels=4, out_channels=4,
        text_dim=HIDDEN, ffn_dim=4 * HIDDEN, num_layers=BLOCKS, rope_max_seq_len=32,
    )  # fmt: skip
    return _subject("Wan, 1152, 4 x 16", model, (4, 4, 8, 8), HIDDEN, ("blocks",))


SUBJECTS: Mapping[str, Callable[[], Subject]] = {
    "demo": demo,
    "latte": latte,
    "cogvideox": cogvideox,
    "wan": wan,
}


def _subject(
    name: str,
    model: nn.Module,
    latents: tuple[int, ...],
    text_channels: int,
    lists: tuple[str, ...],
) -> Subject:
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(1, TEXT, text_channels, generator=generator)

    def inputs(noise: Tensor, step: int) -> dict[str, Any]:
        return {
            "hidden_states": noise,
            "encoder_hidden_states": text,
            "timestep": torch.tensor([900 - 10 * step]),
            "return_dict": False,
        }

    # Each step has a tensor of its own: slices of one tensor would be windows of a longer video.
    noises = [torch.randn(1, *latents, generator=generator) for _ in range(LATENTS)]
    return Subject(name, model.eval(), tuple(map(inputs, noises, range(LATENTS))), lists)
