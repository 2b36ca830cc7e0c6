"""Tiny random models of the classes that need only a list of blocks and usual inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.support.tiny_models.description import noise
from tests.support.tiny_models.tiny_class import TinyClass, tiny_classes
from tests.support.tiny_models.usual_inputs import timestep, unit_time, usual


def ltx(latents: Tensor, step: int) -> dict[str, Any]:
    mask = torch.ones(1, 6).bool()
    return usual(latents, step, encoder_attention_mask=mask, num_frames=3, height=4, width=4)


def mochi(latents: Tensor, step: int) -> dict[str, Any]:
    return usual(latents, step, encoder_attention_mask=torch.ones(1, 6, dtype=torch.bool))


def cosmos(latents: Tensor, step: int) -> dict[str, Any]:
    return usual(latents, step, attention_mask=torch.ones(1, 6), fps=30)


def hunyuan(latents: Tensor, step: int) -> dict[str, Any]:
    mask, pooled = torch.ones(1, 6), noise(1, 8, seed=2)
    others = {"pooled_projections": pooled, "guidance": torch.tensor([6000.0])}
    return usual(latents, step, encoder_attention_mask=mask, **others)


def hunyuan15(latents: Tensor, step: int) -> dict[str, Any]:
    return usual(
        latents,
        step,
        timestep=timestep(step).float(),
        encoder_hidden_states_2=noise(1, 4, 8, seed=2),
        encoder_attention_mask=torch.ones(1, 6),
        encoder_attention_mask_2=torch.ones(1, 4),
        image_embeds=torch.zeros(1, 3, 12),
    )


def dit(latents: Tensor, step: int) -> dict[str, Any]:
    labels = torch.tensor([1])
    return {"hidden_states": latents, "timestep": timestep(step), "class_labels": labels}


def sana_image(latents: Tensor, step: int, **others: Any) -> dict[str, Any]:
    return usual(latents, step, encoder_hidden_states=noise(1, 6, 8, seed=100), **others)


def pixart(latents: Tensor, step: int) -> dict[str, Any]:
    sizes = {"aspect_ratio": None, "resolution": None}
    return sana_image(latents, step, added_cond_kwargs=sizes)


def flux(latents: Tensor, step: int) -> dict[str, Any]:
    return usual(
        latents,
        step,
        encoder_hidden_states=noise(1, 6, 32, seed=100),
        timestep=unit_time(step),
        pooled_projections=noise(1, 32, seed=2),
        img_ids=noise(16, 3, seed=3),
        txt_ids=torch.zeros(6, 3),
    )


def qwen(latents: Tensor, step: int) -> dict[str, Any]:
    mask = torch.ones(1, 6, dtype=torch.long)
    others = {"encoder_hidden_states_mask": mask, "img_shapes": [(1, 4, 4)]}
    return usual(latents, step, timestep=unit_time(step), **others)


VIDEOS: dict[str, TinyClass] = tiny_classes(
    {
        "chronoedit": usual,
        "skyreels": usual,
        "ltx": ltx,
        "mochi": mochi,
        "cosmos": cosmos,
        "easyanimate": usual,
        "hunyuan": hunyuan,
        "hunyuan, first frame given": hunyuan,
        "hunyuan15": hunyuan15,
        "sana": usual,
    }
)
IMAGES: dict[str, TinyClass] = tiny_classes(
    {"dit": dit, "pixart": pixart, "sana, image": sana_image, "flux": flux, "qwen": qwen}
)
