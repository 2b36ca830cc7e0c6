"""Pipelines that make an image."""

from __future__ import annotations

from dataclasses import replace

import torch

from tests.support.tiny_models.description import noise
from tests.support.tiny_pipelines import branches, parts
from tests.support.tiny_pipelines.call_arguments import (
    SMALL,
    TRUE_GUIDANCE,
    TRUE_GUIDANCE_OFF,
    kandinsky5_text,
    masks,
    picture,
    pooled,
    text,
)
from tests.support.tiny_pipelines.pipeline import TinyPipeline
from tests.support.tiny_pipelines.schedulers import ddim, scheduler_class
from tests.support.tiny_pipelines.video_pipelines import KANDINSKY5

SD3 = TinyPipeline(
    "StableDiffusion3Pipeline",
    "sd3",
    branches.ONE_CALL,
    lambda: {**text(6, 16), **pooled(32), **SMALL},
)
UNBINNED = {"negative_prompt": None, "use_resolution_binning": False}

IMAGES: dict[str, TinyPipeline] = {
    "pixart": TinyPipeline(
        "PixArtAlphaPipeline",
        "pixart",
        branches.ONE_CALL,
        lambda: {**text(6, 8), **masks(6), **SMALL, **UNBINNED},
        scheduler=ddim,
        aborts=None,
    ),
    "sd3": SD3,
    "sd3, skipped layers": replace(
        SD3,
        model="sd3.5",
        branches=branches.UNNAMED,
        arguments=lambda: {
            **SD3.arguments(),
            "skip_guidance_layers": [1],
            "skip_layer_guidance_stop": 0.9,
        },
    ),
    "flux": TinyPipeline(
        "FluxPipeline",
        "flux",
        branches.TWO_CALLS,
        lambda: {**text(6, 32), **pooled(32), **SMALL, **TRUE_GUIDANCE},
        unguided=TRUE_GUIDANCE_OFF,
    ),
    "qwen": TinyPipeline(
        "QwenImagePipeline",
        "qwen",
        branches.TWO_CALLS,
        lambda: {
            **text(6, 16),
            "prompt_embeds_mask": torch.ones(1, 6, dtype=torch.long),
            "negative_prompt_embeds_mask": torch.ones(1, 6, dtype=torch.long),
            **SMALL,
            **TRUE_GUIDANCE,
        },
        unguided=TRUE_GUIDANCE_OFF,
    ),
    "dit": TinyPipeline(
        "DiTPipeline",
        "dit",
        branches.ONE_CALL,
        lambda: {"class_labels": [1], "output_type": "pt"},
        config={"num_embeds_ada_norm": 1000},
        scheduler=ddim,
        parts=lambda: {"vae": parts.image_vae()},
        other={"class_labels": [1, 2]},
        aborts=None,
    ),
    "sana": TinyPipeline(
        "SanaPipeline",
        "sana, image",
        branches.ONE_CALL,
        lambda: {**text(6, 8), **masks(6), "height": 256, "width": 256, **UNBINNED},
        other={"width": 384},
    ),
    "lumina2": TinyPipeline(
        "Lumina2Pipeline",
        "lumina2",
        branches.UNNAMED,
        lambda: {**text(6, 32), **masks(6, torch.bool), **SMALL},
    ),
    "flux2": TinyPipeline(
        "Flux2Pipeline",
        "flux2",
        branches.ONE_CALL,
        lambda: {"prompt_embeds": noise(1, 6, 32, seed=1), **SMALL},
        config={"in_channels": 16},
        unguided={},
    ),
    "z-image": TinyPipeline(
        "ZImagePipeline",
        "z-image",
        branches.ONE_CALL,
        lambda: {name: [embeds[0]] for name, embeds in text(6, 16).items()} | SMALL,
        unguided={"guidance_scale": 0.0},
    ),
    "hunyuan dit": TinyPipeline(
        "HunyuanDiTPipeline",
        "hunyuan-dit",
        branches.ONE_CALL,
        lambda: {
            **text(4, 8),
            **masks(4),
            "prompt_embeds_2": noise(1, 4, 8, seed=3),
            "negative_prompt_embeds_2": noise(1, 4, 8, seed=4),
            "prompt_attention_mask_2": torch.ones(1, 4),
            "negative_prompt_attention_mask_2": torch.ones(1, 4),
            **SMALL,
            "use_resolution_binning": False,
        },
        scheduler=ddim,
        parts=lambda: {"requires_safety_checker": False},
    ),
    "hidream": TinyPipeline(
        "HiDreamImagePipeline",
        "hidream",
        branches.ONE_CALL,
        lambda: {
            "prompt_embeds_t5": noise(1, 6, 8, seed=1),
            "negative_prompt_embeds_t5": noise(1, 6, 8, seed=2),
            "prompt_embeds_llama3": noise(2, 1, 6, 4, seed=3),
            "negative_prompt_embeds_llama3": noise(2, 1, 6, 4, seed=4),
            **pooled(8),
            **SMALL,
        },
        other={"width": 96},
        attributes={"default_sample_size": 8},
    ),
    "cosmos2": TinyPipeline(
        "Cosmos2TextToImagePipeline",
        "cosmos",
        branches.UNNAMED,
        lambda: {**text(6, 16), **SMALL},
        scheduler=scheduler_class("FlowMatchEulerDiscreteScheduler", use_karras_sigmas=True),
        parts=parts.safety_checker,
    ),
    "sd3, image given": replace(
        SD3,
        cls="StableDiffusion3Img2ImgPipeline",
        arguments=lambda: {
            **SD3.arguments(),
            "height": 8,
            "width": 8,
            "image": picture(8, 8),
            "strength": 0.6,
        },
        parts=lambda: {"vae": parts.image_vae()},
        other={"width": 16, "image": picture(16, 8)},
        asked=10,
    ),
    "kandinsky5, image": replace(
        KANDINSKY5,
        cls="Kandinsky5T2IPipeline",
        arguments=kandinsky5_text,
        attributes={"resolutions": [(64, 64), (96, 64)]},
    ),
}
