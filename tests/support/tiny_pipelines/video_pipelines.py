"""Pipelines that make a video from text."""

from __future__ import annotations

from dataclasses import replace

import torch

from tests.support.tiny_pipelines import branches, parts
from tests.support.tiny_pipelines.call_arguments import (
    GUIDANCE_OFF,
    LARGE,
    SMALL,
    TRUE_GUIDANCE,
    TRUE_GUIDANCE_OFF,
    hunyuan15_text,
    kandinsky5_text,
    masks,
    pooled,
    text,
)
from tests.support.tiny_pipelines.pipeline import TinyPipeline, model
from tests.support.tiny_pipelines.schedulers import ddim, scheduler_class, unipc

WAN = TinyPipeline(
    "WanPipeline",
    "wan",
    branches.TWO_CALLS,
    lambda: {**text(6, 16), **SMALL, "num_frames": 9},
    scheduler=unipc,
)
HUNYUAN = TinyPipeline(
    "HunyuanVideoPipeline",
    "hunyuan",
    (["cond"], ["cond"]),
    lambda: {**text(6, 16), **masks(6), **pooled(8), **SMALL, "num_frames": 9},
    unguided={},
)
HUNYUAN15 = TinyPipeline(
    "HunyuanVideo15Pipeline",
    "hunyuan15",
    branches.GUIDER,
    hunyuan15_text,
    config={"in_channels": 9},
    parts=parts.hunyuan15,
    unguided={},
    aborts=None,
    setup=parts.set_guidance,
    attributes={"vision_num_semantic_tokens": 3},
)
KANDINSKY5 = TinyPipeline(
    "Kandinsky5T2VPipeline",
    "kandinsky5",
    branches.UNNAMED,
    lambda: {**kandinsky5_text(), "num_frames": 9},
)
KANDINSKY6 = TinyPipeline(
    "Kandinsky6TI2VAPipeline",
    "kandinsky6",
    branches.TWO_CALLS,
    lambda: {**text(6, 16), **pooled(8), **SMALL, "num_frames": 9, "sample_audio": False},
)

VIDEOS: dict[str, TinyPipeline] = {
    "latte": TinyPipeline(
        "LattePipeline",
        "latte",
        branches.ONE_CALL,
        lambda: {**text(6, 8), **SMALL, "negative_prompt": None, "video_length": 4},
        config={"out_channels": 8},
        scheduler=ddim,
        other={**SMALL, "video_length": 4, "num_images_per_prompt": 2},
    ),
    "allegro": TinyPipeline(
        "AllegroPipeline",
        "allegro",
        branches.ONE_CALL,
        lambda: {**text(6, 8), **masks(6), **SMALL, "negative_prompt": None, "num_frames": 16},
        scheduler=scheduler_class("EulerAncestralDiscreteScheduler"),
    ),
    "cogvideox": TinyPipeline(
        "CogVideoXPipeline",
        "cogvideox",
        branches.JOINT,
        lambda: {**text(6, 8), **SMALL, "num_frames": 13},
        scheduler=scheduler_class("CogVideoXDDIMScheduler"),
    ),
    "wan": WAN,
    "wan 2.2": replace(
        WAN, parts=lambda: {"transformer_2": model("wan", seed=5), "boundary_ratio": 0.5}
    ),
    "wan ti2v": replace(WAN, parts=lambda: {"expand_timesteps": True}),
    "skyreels": replace(WAN, cls="SkyReelsV2Pipeline", model="skyreels"),
    "skyreels, diffusion forcing": replace(
        WAN,
        cls="SkyReelsV2DiffusionForcingPipeline",
        model="skyreels, diffusion forcing",
        arguments=lambda: {**WAN.arguments(), "prompt": None},
    ),
    "hunyuan": HUNYUAN,
    "hunyuan, true guidance": replace(
        HUNYUAN,
        branches=branches.TWO_CALLS,
        arguments=lambda: {**HUNYUAN.arguments(), **TRUE_GUIDANCE},
        unguided=TRUE_GUIDANCE_OFF,
    ),
    "ltx": TinyPipeline(
        "LTXPipeline",
        "ltx",
        branches.JOINT,
        lambda: {**text(6, 16), **masks(6), **LARGE, "num_frames": 17},
        other={"width": 192},
    ),
    "mochi": TinyPipeline(
        "MochiPipeline",
        "mochi",
        branches.JOINT,
        lambda: {**text(6, 16), **masks(6, torch.bool), **SMALL, "num_frames": 13},
        scheduler=scheduler_class("FlowMatchEulerDiscreteScheduler", invert_sigmas=True),
    ),
    "sana video": TinyPipeline(
        "SanaVideoPipeline",
        "sana",
        branches.ONE_CALL,
        lambda: {
            **text(6, 16),
            **masks(6),
            **SMALL,
            "frames": 9,
            "negative_prompt": None,
            "use_resolution_binning": False,
        },
    ),
    "cosmos": TinyPipeline(
        "CosmosTextToWorldPipeline",
        "cosmos",
        branches.UNNAMED,
        lambda: {**text(6, 16), **SMALL, "num_frames": 17},
        scheduler=scheduler_class("EDMEulerScheduler"),
        parts=parts.safety_checker,
    ),
    "kandinsky5": KANDINSKY5,
    "anyflow": TinyPipeline(
        "AnyFlowPipeline",
        "anyflow",
        branches.ONE_CALL,
        lambda: {**text(6, 16), **SMALL, "num_frames": 9, "guidance_scale": 4.0},
        scheduler=scheduler_class("FlowMapEulerDiscreteScheduler"),
        unguided={**GUIDANCE_OFF, "negative_prompt_embeds": None},
    ),
    "hunyuan15": HUNYUAN15,
    "hunyuan15, skipped layers": replace(
        HUNYUAN15,
        branches=(["pred_cond", "pred_uncond", "pred_cond_skip"], ["pred_cond", "pred_cond_skip"]),
        parts=parts.hunyuan15_with_skipped_layers,
        recomputed={"pred_cond_skip": [3]},
    ),
    "easyanimate": TinyPipeline(
        "EasyAnimatePipeline",
        "easyanimate",
        branches.ONE_CALL,
        lambda: {**text(6, 16), **masks(6), **SMALL, "num_frames": 9},
        parts=lambda: {"vae": parts.compressing_vae(8)},
    ),
    "motif": TinyPipeline(
        "MotifVideoPipeline",
        "motif",
        branches.GUIDER,
        lambda: {**text(6, 32), **masks(6), **SMALL, "num_frames": 9},
        parts=parts.motif,
        unguided={},
        setup=parts.set_guidance,
    ),
    "ltx2": TinyPipeline(
        "LTX2Pipeline",
        "ltx2",
        (["cond_uncond", "uncond_stg", "uncond_modality"],) * 2,
        lambda: {
            **text(6, 16),
            **masks(6),
            **LARGE,
            "num_frames": 17,
            "spatio_temporal_guidance_blocks": [1],
        },
        config={"audio_in_channels": 64, "audio_out_channels": 64},
        parts=parts.ltx2,
        other={"width": 192},
    ),
    "kandinsky6": KANDINSKY6,
    "kandinsky6, audio": replace(
        KANDINSKY6,
        model="kandinsky6, audio",
        arguments=lambda: {**text(6, 16), **pooled(8), **SMALL, "num_frames": 9},
        parts=parts.kandinsky6_audio,
        result=lambda returned: torch.cat([part.flatten() for part in returned]),
    ),
    "cosmos3": TinyPipeline(
        "Cosmos3OmniPipeline",
        "cosmos3",
        branches.TWO_CALLS,
        lambda: {"prompt": "a cat", "negative_prompt": "no", **SMALL, "num_frames": 9, "fps": 8.0},
        scheduler=unipc,
        parts=parts.cosmos3,
    ),
}
