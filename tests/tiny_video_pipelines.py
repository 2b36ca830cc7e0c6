"""Pipelines that make a video from text."""

from __future__ import annotations

import torch

from tiny import TINY
from tiny_chained import noise
from tiny_parts import (
    Connectors,
    Harmless,
    Vae,
    guidance_of,
    guider,
    ltx2_audio_vae,
    ltx2_vae,
    skipped_feed_forward,
)
from tiny_pipeline import (
    GUIDER,
    JOINT,
    OFF,
    ONE_CALL,
    SMALL,
    TRUE_OFF,
    TWO_CALLS,
    UNNAMED,
    WIDE,
    Arguments,
    TinyPipeline,
    ddim,
    euler,
    masks,
    model,
    pooled,
    scheduler,
    text,
    unipc,
)


def hunyuan15_text() -> Arguments:
    found = {}
    for sign, seed in (("", 1), ("negative_", 3)):
        found[f"{sign}prompt_embeds"] = noise(1, 6, 16, seed=seed)
        found[f"{sign}prompt_embeds_mask"] = torch.ones(1, 6)
        found[f"{sign}prompt_embeds_2"] = noise(1, 4, 8, seed=seed + 1)
        found[f"{sign}prompt_embeds_mask_2"] = torch.ones(1, 4)
    return {**found, **SMALL, "num_frames": 9}


VIDEOS: dict[str, TinyPipeline] = {
    "latte": TinyPipeline(
        "LattePipeline",
        lambda: {"transformer": model("latte", out_channels=8), "scheduler": ddim()},
        lambda: {**text(6, 8), **SMALL, "negative_prompt": None, "video_length": 4},
        ONE_CALL,
        OFF,
        {"height": 64, "width": 64, "video_length": 4, "num_images_per_prompt": 2},
    ),
    "allegro": TinyPipeline(
        "AllegroPipeline",
        lambda: {
            "transformer": model("allegro"),
            "scheduler": scheduler("EulerAncestralDiscreteScheduler"),
        },
        lambda: {**text(6, 8), **masks(6), **SMALL, "negative_prompt": None, "num_frames": 16},
        ONE_CALL,
        OFF,
        WIDE,
    ),
    "cogvideox": TinyPipeline(
        "CogVideoXPipeline",
        lambda: {
            "transformer": model("cogvideox"),
            "scheduler": scheduler("CogVideoXDDIMScheduler"),
        },
        lambda: {**text(6, 8), **SMALL, "num_frames": 13},
        JOINT,
        OFF,
        WIDE,
    ),
    "wan": TinyPipeline(
        "WanPipeline",
        lambda: {"transformer": model("wan"), "scheduler": unipc()},
        lambda: {**text(6, 16), **SMALL, "num_frames": 9},
        TWO_CALLS,
        OFF,
        WIDE,
    ),
    "wan 2.2": TinyPipeline(
        "WanPipeline",
        lambda: {
            "transformer": model("wan"),
            "transformer_2": TINY["wan"].build(seed=5),
            "scheduler": unipc(),
            "boundary_ratio": 0.5,
        },
        lambda: {**text(6, 16), **SMALL, "num_frames": 9},
        TWO_CALLS,
        OFF,
        WIDE,
    ),
    "wan ti2v": TinyPipeline(
        "WanPipeline",
        lambda: {"transformer": model("wan"), "scheduler": unipc(), "expand_timesteps": True},
        lambda: {**text(6, 16), **SMALL, "num_frames": 9},
        TWO_CALLS,
        OFF,
        WIDE,
    ),
    "skyreels": TinyPipeline(
        "SkyReelsV2Pipeline",
        lambda: {"transformer": model("skyreels"), "scheduler": unipc()},
        lambda: {**text(6, 16), **SMALL, "num_frames": 9},
        TWO_CALLS,
        OFF,
        WIDE,
    ),
    "skyreels, diffusion forcing": TinyPipeline(
        "SkyReelsV2DiffusionForcingPipeline",
        lambda: {"transformer": model("skyreels, diffusion forcing"), "scheduler": unipc()},
        lambda: {**text(6, 16), **SMALL, "num_frames": 9, "prompt": None},
        TWO_CALLS,
        OFF,
        WIDE,
    ),
    "hunyuan": TinyPipeline(
        "HunyuanVideoPipeline",
        lambda: {"transformer": model("hunyuan"), "scheduler": euler()},
        lambda: {**text(6, 16), **masks(6), **pooled(8), **SMALL, "num_frames": 9},
        (["cond"], ["cond"]),
        {},
        WIDE,
    ),
    "hunyuan, true guidance": TinyPipeline(
        "HunyuanVideoPipeline",
        lambda: {"transformer": model("hunyuan"), "scheduler": euler()},
        lambda: {
            **text(6, 16),
            **masks(6),
            **pooled(8),
            **SMALL,
            "num_frames": 9,
            "true_cfg_scale": 4.0,
        },
        TWO_CALLS,
        TRUE_OFF,
        WIDE,
    ),
    "ltx": TinyPipeline(
        "LTXPipeline",
        lambda: {"transformer": model("ltx"), "scheduler": euler()},
        lambda: {**text(6, 16), **masks(6), "height": 128, "width": 128, "num_frames": 17},
        JOINT,
        OFF,
        {"width": 192},
    ),
    "mochi": TinyPipeline(
        "MochiPipeline",
        lambda: {"transformer": model("mochi"), "scheduler": euler(invert_sigmas=True)},
        lambda: {**text(6, 16), **masks(6, torch.bool), **SMALL, "num_frames": 13},
        JOINT,
        OFF,
        WIDE,
    ),
    "sana video": TinyPipeline(
        "SanaVideoPipeline",
        lambda: {"transformer": model("sana"), "scheduler": euler()},
        lambda: {
            **text(6, 16),
            **masks(6),
            **SMALL,
            "frames": 9,
            "negative_prompt": None,
            "use_resolution_binning": False,
        },
        ONE_CALL,
        OFF,
        WIDE,
    ),
    "cosmos": TinyPipeline(
        "CosmosTextToWorldPipeline",
        lambda: {
            "transformer": model("cosmos"),
            "scheduler": scheduler("EDMEulerScheduler"),
            "safety_checker": Harmless(),
        },
        lambda: {**text(6, 16), **SMALL, "num_frames": 17},
        UNNAMED,
        OFF,
        WIDE,
    ),
    "kandinsky5": TinyPipeline(
        "Kandinsky5T2VPipeline",
        lambda: {"transformer": model("kandinsky5"), "scheduler": euler()},
        lambda: {
            "prompt_embeds_qwen": noise(1, 6, 16, seed=1),
            "negative_prompt_embeds_qwen": noise(1, 6, 16, seed=2),
            "prompt_embeds_clip": noise(1, 8, seed=3),
            "negative_prompt_embeds_clip": noise(1, 8, seed=4),
            "prompt_cu_seqlens": torch.tensor([0, 6]),
            "negative_prompt_cu_seqlens": torch.tensor([0, 6]),
            **SMALL,
            "num_frames": 9,
        },
        UNNAMED,
        OFF,
        WIDE,
    ),
    "anyflow": TinyPipeline(
        "AnyFlowPipeline",
        lambda: {
            "transformer": model("anyflow"),
            "scheduler": scheduler("FlowMapEulerDiscreteScheduler"),
        },
        lambda: {**text(6, 16), **SMALL, "num_frames": 9, "guidance_scale": 4.0},
        ONE_CALL,
        {**OFF, "negative_prompt_embeds": None},
        WIDE,
    ),
    "hunyuan15": TinyPipeline(
        "HunyuanVideo15Pipeline",
        lambda: {
            "transformer": model("hunyuan15", in_channels=9),
            "scheduler": euler(),
            "vae": Vae(
                {"temporal_compression_ratio": 4, "spatial_compression_ratio": 16},
                latent_channels=4,
            ),
            "guider": guidance_of("ClassifierFreeGuidance", guidance_scale=4.0),
        },
        hunyuan15_text,
        GUIDER,
        {},
        WIDE,
        aborts=None,
        setup=guider,
        attributes={"vision_num_semantic_tokens": 3},
    ),
    "hunyuan15, skipped layers": TinyPipeline(
        "HunyuanVideo15Pipeline",
        lambda: {
            "transformer": model("hunyuan15", in_channels=9),
            "scheduler": euler(),
            "vae": Vae(
                {"temporal_compression_ratio": 4, "spatial_compression_ratio": 16},
                latent_channels=4,
            ),
            "guider": guidance_of(
                "SkipLayerGuidance",
                guidance_scale=4.0,
                skip_layer_guidance_start=0.2,
                skip_layer_guidance_stop=0.9,
                skip_layer_config=skipped_feed_forward(),
            ),
        },
        hunyuan15_text,
        (["pred_cond", "pred_uncond", "pred_cond_skip"], ["pred_cond", "pred_cond_skip"]),
        {},
        WIDE,
        aborts=None,
        setup=guider,
        recomputed={"pred_cond_skip": [3]},
        attributes={"vision_num_semantic_tokens": 3},
    ),
    "easyanimate": TinyPipeline(
        "EasyAnimatePipeline",
        lambda: {
            "transformer": model("easyanimate"),
            "scheduler": euler(),
            "vae": Vae(
                {"temporal_compression_ratio": 4, "spatial_compression_ratio": 8},
                latent_channels=4,
            ),
        },
        lambda: {**text(6, 16), **masks(6), **SMALL, "num_frames": 9},
        ONE_CALL,
        OFF,
        WIDE,
    ),
    "motif": TinyPipeline(
        "MotifVideoPipeline",
        lambda: {
            "transformer": model("motif"),
            "scheduler": euler(),
            "vae": Vae(z_dim=16, scale_factor_temporal=4, scale_factor_spatial=8),
            "guider": guidance_of("ClassifierFreeGuidance", guidance_scale=4.0),
        },
        lambda: {**text(6, 32), **masks(6), **SMALL, "num_frames": 9},
        GUIDER,
        {},
        WIDE,
        setup=guider,
    ),
    "ltx2": TinyPipeline(
        "LTX2Pipeline",
        lambda: {
            "transformer": model("ltx2", audio_in_channels=64, audio_out_channels=64),
            "scheduler": euler(),
            "connectors": Connectors(),
            "audio_vae": ltx2_audio_vae(),
            "vae": ltx2_vae(),
        },
        lambda: {
            **text(6, 16),
            **masks(6),
            "height": 128,
            "width": 128,
            "num_frames": 17,
            "spatio_temporal_guidance_blocks": [1],
        },
        (["cond_uncond", "uncond_stg", "uncond_modality"],) * 2,
        OFF,
        {"width": 192},
    ),
    "kandinsky6": TinyPipeline(
        "Kandinsky6TI2VAPipeline",
        lambda: {"transformer": model("kandinsky6"), "scheduler": euler()},
        lambda: {
            **text(6, 16),
            "pooled_prompt_embeds": noise(1, 8, seed=3),
            "negative_pooled_prompt_embeds": noise(1, 8, seed=4),
            **SMALL,
            "num_frames": 9,
            "sample_audio": False,
        },
        TWO_CALLS,
        OFF,
        WIDE,
    ),
    "kandinsky6, audio": TinyPipeline(
        "Kandinsky6TI2VAPipeline",
        lambda: {
            "transformer": model("kandinsky6, audio"),
            "scheduler": euler(),
            "audio_vae": Vae({"latent_hop_length": 1024}, sample_rate=44_100),
            "vocoder": Vae(),
        },
        lambda: {
            **text(6, 16),
            "pooled_prompt_embeds": noise(1, 8, seed=3),
            "negative_pooled_prompt_embeds": noise(1, 8, seed=4),
            **SMALL,
            "num_frames": 9,
        },
        TWO_CALLS,
        OFF,
        WIDE,
        result=lambda returned: torch.cat([part.flatten() for part in returned]),
    ),
}
