"""Arguments of a pipeline's call: sizes, embeddings of a text and of its negative, pictures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.support.tiny_models.description import noise

Arguments = dict[str, Any]

LITTLE: Arguments = {"height": 32, "width": 32}
SMALL: Arguments = {"height": 64, "width": 64}
WIDE: Arguments = {"height": 64, "width": 96}
LARGE: Arguments = {"height": 128, "width": 128}
GUIDANCE_OFF: Arguments = {"guidance_scale": 1.0}
TRUE_GUIDANCE: Arguments = {"true_cfg_scale": 4.0}
TRUE_GUIDANCE_OFF: Arguments = {"true_cfg_scale": 1.0}


def text(*shape: int) -> Arguments:
    return {
        "prompt_embeds": noise(1, *shape, seed=1),
        "negative_prompt_embeds": noise(1, *shape, seed=2),
    }


def masks(length: int, dtype: torch.dtype = torch.long) -> Arguments:
    ones = torch.ones(1, length, dtype=dtype)
    return {"prompt_attention_mask": ones, "negative_prompt_attention_mask": ones}


def pooled(channels: int) -> Arguments:
    return {
        "pooled_prompt_embeds": noise(1, channels, seed=3),
        "negative_pooled_prompt_embeds": noise(1, channels, seed=4),
    }


def picture(width: int, height: int = 32) -> Tensor:
    """Return a picture, `[1, 3, height, width]`, values between 0 and 1."""
    return noise(1, 3, height, width).sigmoid()


def frames(count: int, width: int) -> list[Any]:
    """Return frames of one colour each, as PIL images of 32 rows."""
    from PIL import Image

    return [Image.new("RGB", (width, 32), (10 * k, 40, 90)) for k in range(count)]


def kandinsky5_text() -> Arguments:
    lengths = torch.tensor([0, 6])
    return {
        "prompt_embeds_qwen": noise(1, 6, 16, seed=1),
        "negative_prompt_embeds_qwen": noise(1, 6, 16, seed=2),
        "prompt_embeds_clip": noise(1, 8, seed=3),
        "negative_prompt_embeds_clip": noise(1, 8, seed=4),
        "prompt_cu_seqlens": lengths,
        "negative_prompt_cu_seqlens": lengths,
        **SMALL,
    }


def hunyuan15_text() -> Arguments:
    given: Arguments = {}
    for sign, seed in (("", 1), ("negative_", 3)):
        given[f"{sign}prompt_embeds"] = noise(1, 6, 16, seed=seed)
        given[f"{sign}prompt_embeds_mask"] = torch.ones(1, 6)
        given[f"{sign}prompt_embeds_2"] = noise(1, 4, 8, seed=seed + 1)
        given[f"{sign}prompt_embeds_mask_2"] = torch.ones(1, 4)
    return {**given, **SMALL, "num_frames": 9}
