"""Pipelines that make a video from an image or a video, or chunk by chunk."""

from __future__ import annotations

import torch
from torch.nn.functional import interpolate

from tests.support.tiny_models.chained_models import noise
from tests.support.tiny_pipelines.parts import (
    Harmless,
    cogvideox_vae,
    frames,
    hunyuan_vae,
    ltx_vae,
    wan_vae,
)
from tests.support.tiny_pipelines.pipeline import (
    JOINT,
    LITTLE,
    OFF,
    ONE_CALL,
    SMALL,
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

AS_TENSOR = {"output_type": "pt"}


def first_frame(pixels: torch.Tensor, *_others: object) -> torch.Tensor:
    """In place of a VAE that makes 32 x 32 pixels one token."""
    return noise(1, 4, 1, pixels.shape[-2] // 32, pixels.shape[-1] // 32, seed=5)


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
    "wan animate": TinyPipeline(
        "WanAnimatePipeline",
        lambda: {"transformer": model("animate"), "scheduler": unipc(), "vae": wan_vae()},
        lambda: {
            **text(6, 16),
            **LITTLE,
            "image": frames(1, 32)[0],
            "pose_video": frames(5, 32),
            "face_video": frames(5, 32),
            "segment_frame_length": 5,
            "guidance_scale": 4.0,
        },
        TWO_CALLS,
        OFF,
        {"width": 64, "pose_video": frames(5, 64), "image": frames(1, 64)[0]},
        attributes={"encode_image": lambda *_args, **_kwargs: noise(1, 5, 16, seed=5)},
    ),
    "cogvideox, video given": TinyPipeline(
        "CogVideoXVideoToVideoPipeline",
        lambda: {
            "transformer": model("cogvideox"),
            "scheduler": scheduler("CogVideoXDDIMScheduler"),
            "vae": cogvideox_vae(),
        },
        lambda: {**text(6, 8), **LITTLE, "video": frames(13, 32)},
        JOINT,
        OFF,
        {"width": 64, "video": frames(13, 64)},
        asked=8,
    ),
    "ltx, image given": TinyPipeline(
        "LTXImageToVideoPipeline",
        lambda: {"transformer": model("ltx"), "scheduler": euler(), "vae": ltx_vae()},
        lambda: {
            **text(6, 16),
            **masks(6),
            "height": 128,
            "width": 128,
            "num_frames": 17,
            "image": noise(1, 3, 128, 128).sigmoid(),
        },
        JOINT,
        OFF,
        {"width": 192, "image": noise(1, 3, 128, 192).sigmoid()},
    ),
    "ltx, conditions": TinyPipeline(
        "LTXConditionPipeline",
        lambda: {"transformer": model("ltx"), "scheduler": euler(), "vae": ltx_vae()},
        lambda: {
            **text(6, 16),
            **masks(6),
            "height": 128,
            "width": 128,
            "num_frames": 17,
            "image": frames(1, 128)[0],
        },
        JOINT,
        OFF,
        {"width": 192, "image": frames(1, 192)[0]},
    ),
    "hunyuan, first frame given": TinyPipeline(
        "HunyuanVideoImageToVideoPipeline",
        lambda: {
            "transformer": model("hunyuan, first frame given"),
            "scheduler": euler(),
            "vae": hunyuan_vae(),
        },
        lambda: {
            **text(6, 16),
            **masks(6),
            **pooled(8),
            **LITTLE,
            "num_frames": 9,
            "image": noise(1, 3, 32, 32).sigmoid(),
            "true_cfg_scale": 4.0,
        },
        UNNAMED,
        TRUE_OFF,
        {"width": 64, "image": noise(1, 3, 32, 64).sigmoid()},
    ),
    "cosmos2, video given": TinyPipeline(
        "Cosmos2VideoToWorldPipeline",
        lambda: {
            "transformer": model("cosmos", in_channels=5),
            "scheduler": euler(use_karras_sigmas=True),
            "vae": wan_vae(),
            "safety_checker": Harmless(),
        },
        lambda: {
            **text(6, 16),
            **LITTLE,
            "num_frames": 5,
            "image": noise(1, 3, 32, 32).sigmoid(),
        },
        UNNAMED,
        OFF,
        {"width": 64, "image": noise(1, 3, 32, 64).sigmoid()},
    ),
    "sana, world model": TinyPipeline(
        "SanaWMPipeline",
        lambda: {
            "transformer": model("sana, world model", chunk_plucker_channels=48),
            "scheduler": scheduler("FlowMatchEulerDiscreteScheduler"),
        },
        lambda: {
            **{k: v[:, None] for k, v in text(6, 16).items()},
            **masks(6),
            "prompt": "",
            "height": 128,
            "width": 128,
            "image": frames(1, 128)[0],
            "c2w": torch.eye(4).repeat(17, 1, 1),
            "intrinsics": torch.tensor([4.0, 4.0, 2.0, 2.0]),
        },
        ONE_CALL,
        OFF,
        {"width": 192},
        attributes={"_encode_first_frame": first_frame},
    ),
    "helios pyramid": TinyPipeline(
        "HeliosPyramidPipeline",
        lambda: {
            "transformer": model("helios"),
            # At the default, 1 / 3, the covariance that the pipeline factorises is singular.
            "scheduler": scheduler("HeliosScheduler", gamma=0.3),
            "vae": wan_vae(),
        },
        lambda: {
            **text(6, 16),
            **SMALL,
            "num_frames": 9,
            "num_latent_frames_per_chunk": 3,
            "history_sizes": [4, 2, 1],
            "pyramid_num_inference_steps_list": [6, 6, 6],
        },
        TWO_CALLS,
        OFF,
        {"width": 128},
    ),
    "kandinsky6, super resolution": TinyPipeline(
        "Kandinsky6SRPipeline",
        lambda: {
            "transformer": model("kandinsky6, super resolution", tile_sizes=[[128, 128]]),
            "scheduler": euler(),
        },
        lambda: {"video": noise(1, 5, 3, 64, 64).sigmoid(), "resolution_scale": 2, **AS_TENSOR},
        ONE_CALL,
        {},
        {"video": noise(1, 5, 3, 64, 96).sigmoid()},
        aborts=None,
        attributes={
            "encode_video": lambda video: noise(1, 4, 2, 8, 8, seed=5) + video.mean(),
            "decode_latents": lambda latents: interpolate(latents[:, :3], size=(5, 128, 128)),
        },
    ),
}
