"""Pipelines that make a video from an image or a video, or chunk by chunk."""

from __future__ import annotations

import torch

from tiny_chained import noise
from tiny_parts import (
    cogvideox_vae,
    frames,
    hunyuan_vae,
    wan_vae,
)
from tiny_pipeline import (
    LITTLE,
    OFF,
    ONE_CALL,
    TRUE_OFF,
    TWO_CALLS,
    UNNAMED,
    TinyPipeline,
    euler,
    masks,
    model,
    pooled,
    scheduler,
    text,
    unipc,
)

FROM_VIDEO: dict[str, TinyPipeline] = {
    "wan, video given": TinyPipeline(
        "WanVideoToVideoPipeline",
        lambda: {"transformer": model("wan"), "scheduler": unipc(), "vae": wan_vae()},
        lambda: {**text(6, 16), **LITTLE, "video": noise(1, 9, 3, 32, 32).tanh(), "strength": 0.8},
        UNNAMED,
        OFF,
        {**LITTLE, "width": 64, "video": noise(1, 9, 3, 32, 64).tanh()},
        asked=8,
    ),
    "wan, image given": TinyPipeline(
        "WanImageToVideoPipeline",
        lambda: {
            "transformer": model("wan", in_channels=12),
            "scheduler": unipc(),
            "vae": wan_vae(),
        },
        lambda: {**text(6, 16), **LITTLE, "image": noise(1, 3, 32, 32).sigmoid(), "num_frames": 9},
        TWO_CALLS,
        OFF,
        {**LITTLE, "width": 64, "image": noise(1, 3, 32, 64).sigmoid()},
    ),
    "vace": TinyPipeline(
        "WanVACEPipeline",
        lambda: {
            "transformer": model("vace", vace_in_channels=72),
            "scheduler": unipc(),
            "vae": wan_vae(),
        },
        lambda: {**text(6, 16), **LITTLE, "num_frames": 9},
        TWO_CALLS,
        OFF,
        {"width": 64},
    ),
    "lucy": TinyPipeline(
        "LucyEditPipeline",
        lambda: {
            "transformer": model("wan", in_channels=8),
            "scheduler": unipc(),
            "vae": wan_vae(),
        },
        lambda: {**text(6, 16), **LITTLE, "video": frames(9, 32), "num_frames": 9},
        TWO_CALLS,
        OFF,
        {**LITTLE, "width": 64, "video": frames(9, 64)},
    ),
    "chronoedit": TinyPipeline(
        "ChronoEditPipeline",
        lambda: {
            "transformer": model("chronoedit", in_channels=12, image_dim=8, added_kv_proj_dim=24),
            "scheduler": unipc(),
            "vae": wan_vae(),
        },
        lambda: {
            **text(6, 16),
            **LITTLE,
            "image": noise(1, 3, 32, 32).sigmoid(),
            "num_frames": 9,
        },
        UNNAMED,
        OFF,
        {**LITTLE, "width": 64, "image": noise(1, 3, 32, 64).sigmoid()},
        attributes={"encode_image": lambda *_args, **_kwargs: noise(1, 257, 8, seed=5)},
    ),
    "consisid": TinyPipeline(
        "diffusers.pipelines.consisid.pipeline_consisid:ConsisIDPipeline",
        lambda: {
            "transformer": model("consisid", in_channels=8),
            "scheduler": scheduler("CogVideoXDPMScheduler"),
            "vae": cogvideox_vae(),
        },
        lambda: {
            **text(6, 8),
            **LITTLE,
            "num_frames": 13,
            "image": noise(1, 3, 32, 32).sigmoid(),
            "id_vit_hidden": [torch.ones(1, 2, 2)],
            "id_cond": torch.ones(1, 2),
        },
        ONE_CALL,
        OFF,
        {**LITTLE, "width": 64, "image": noise(1, 3, 32, 64).sigmoid()},
    ),
    "framepack": TinyPipeline(
        "HunyuanVideoFramepackPipeline",
        lambda: {"transformer": model("framepack"), "scheduler": euler(), "vae": hunyuan_vae()},
        lambda: {
            **text(6, 16),
            **masks(6),
            **pooled(8),
            **LITTLE,
            "image": noise(1, 3, 32, 32).sigmoid(),
            "num_frames": 9,
            "latent_window_size": 3,
            "true_cfg_scale": 4.0,
        },
        UNNAMED,
        TRUE_OFF,
        {**LITTLE, "width": 64, "image": noise(1, 3, 32, 64).sigmoid()},
        result=lambda returned: returned[0][-1],
        attributes={"encode_image": lambda *_args, **_kwargs: noise(1, 6, 16, seed=5)},
    ),
    "helios": TinyPipeline(
        "HeliosPipeline",
        lambda: {"transformer": model("helios"), "scheduler": euler(), "vae": wan_vae()},
        lambda: {
            **text(6, 16),
            **LITTLE,
            "num_frames": 17,
            "num_latent_frames_per_chunk": 3,
            "history_sizes": [4, 2, 1],
        },
        TWO_CALLS,
        OFF,
        {"width": 64},
    ),
}
