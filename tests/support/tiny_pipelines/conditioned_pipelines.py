"""Pipelines that make a video from an image or a video, or chunk by chunk."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from tests.support.tiny_models.description import noise
from tests.support.tiny_pipelines import branches, parts
from tests.support.tiny_pipelines.call_arguments import (
    LARGE,
    LITTLE,
    SMALL,
    TRUE_GUIDANCE,
    TRUE_GUIDANCE_OFF,
    frames,
    masks,
    picture,
    pooled,
    text,
)
from tests.support.tiny_pipelines.pipeline import TinyPipeline
from tests.support.tiny_pipelines.schedulers import scheduler_class, unipc


def first_frame(pixels: Tensor, *_others: object) -> Tensor:
    """Return latents, `[1, 4, 1, h, w]`, as a VAE that makes 32 x 32 pixels one token."""
    return noise(1, 4, 1, pixels.shape[-2] // 32, pixels.shape[-1] // 32, seed=5)


WAN_FROM_IMAGE = TinyPipeline(
    "WanImageToVideoPipeline",
    "wan",
    branches.TWO_CALLS,
    lambda: {**text(6, 16), **LITTLE, "image": picture(32), "num_frames": 9},
    config={"in_channels": 12},
    scheduler=unipc,
    parts=parts.wan,
    other={**LITTLE, "width": 64, "image": picture(64)},
)
LTX_FROM_IMAGE = TinyPipeline(
    "LTXImageToVideoPipeline",
    "ltx",
    branches.JOINT,
    lambda: {**text(6, 16), **masks(6), **LARGE, "num_frames": 17, "image": picture(128, 128)},
    parts=parts.ltx,
    other={"width": 192, "image": picture(192, 128)},
)
HELIOS = TinyPipeline(
    "HeliosPipeline",
    "helios",
    branches.TWO_CALLS,
    lambda: {
        **text(6, 16),
        **LITTLE,
        "num_frames": 17,
        "num_latent_frames_per_chunk": 3,
        "history_sizes": [4, 2, 1],
    },
    parts=parts.wan,
    other={"width": 64},
)

FROM_VIDEO: dict[str, TinyPipeline] = {
    "wan, video given": replace(
        WAN_FROM_IMAGE,
        cls="WanVideoToVideoPipeline",
        branches=branches.UNNAMED,
        arguments=lambda: {
            **text(6, 16),
            **LITTLE,
            "video": noise(1, 9, 3, 32, 32).tanh(),
            "strength": 0.8,
        },
        config={},
        other={**LITTLE, "width": 64, "video": noise(1, 9, 3, 32, 64).tanh()},
        asked=8,
    ),
    "wan, image given": WAN_FROM_IMAGE,
    "vace": replace(
        WAN_FROM_IMAGE,
        cls="WanVACEPipeline",
        model="vace",
        arguments=lambda: {**text(6, 16), **LITTLE, "num_frames": 9},
        config={"vace_in_channels": 72},
        other={"width": 64},
    ),
    "lucy": replace(
        WAN_FROM_IMAGE,
        cls="LucyEditPipeline",
        arguments=lambda: {**text(6, 16), **LITTLE, "video": frames(9, 32), "num_frames": 9},
        config={"in_channels": 8},
        other={**LITTLE, "width": 64, "video": frames(9, 64)},
    ),
    "chronoedit": replace(
        WAN_FROM_IMAGE,
        cls="ChronoEditPipeline",
        model="chronoedit",
        branches=branches.UNNAMED,
        config={"in_channels": 12, "image_dim": 8, "added_kv_proj_dim": 24},
        attributes={"encode_image": parts.image_encoder(257, 8)},
    ),
    "consisid": TinyPipeline(
        "diffusers.pipelines.consisid.pipeline_consisid:ConsisIDPipeline",
        "consisid",
        branches.ONE_CALL,
        lambda: {
            **text(6, 8),
            **LITTLE,
            "num_frames": 13,
            "image": picture(32),
            "id_vit_hidden": [torch.ones(1, 2, 2)],
            "id_cond": torch.ones(1, 2),
        },
        config={"in_channels": 8},
        scheduler=scheduler_class("CogVideoXDPMScheduler"),
        parts=parts.cogvideox,
        other={**LITTLE, "width": 64, "image": picture(64)},
    ),
    "framepack": TinyPipeline(
        "HunyuanVideoFramepackPipeline",
        "framepack",
        branches.UNNAMED,
        lambda: {
            **text(6, 16),
            **masks(6),
            **pooled(8),
            **LITTLE,
            **TRUE_GUIDANCE,
            "image": picture(32),
            "num_frames": 9,
            "latent_window_size": 3,
        },
        parts=parts.hunyuan,
        unguided=TRUE_GUIDANCE_OFF,
        other={**LITTLE, "width": 64, "image": picture(64)},
        result=lambda returned: returned[0][-1],
        attributes={"encode_image": parts.image_encoder(6, 16)},
    ),
    "helios": HELIOS,
    "wan animate": replace(
        WAN_FROM_IMAGE,
        cls="WanAnimatePipeline",
        model="animate",
        arguments=lambda: {
            **text(6, 16),
            **LITTLE,
            "image": frames(1, 32)[0],
            "pose_video": frames(5, 32),
            "face_video": frames(5, 32),
            "segment_frame_length": 5,
            "guidance_scale": 4.0,
        },
        config={},
        other={"width": 64, "pose_video": frames(5, 64), "image": frames(1, 64)[0]},
        attributes={"encode_image": parts.image_encoder(5, 16)},
    ),
    "cogvideox, video given": TinyPipeline(
        "CogVideoXVideoToVideoPipeline",
        "cogvideox",
        branches.JOINT,
        lambda: {**text(6, 8), **LITTLE, "video": frames(13, 32)},
        scheduler=scheduler_class("CogVideoXDDIMScheduler"),
        parts=parts.cogvideox,
        other={"width": 64, "video": frames(13, 64)},
        asked=8,
    ),
    "ltx, image given": LTX_FROM_IMAGE,
    "ltx, conditions": replace(
        LTX_FROM_IMAGE,
        cls="LTXConditionPipeline",
        arguments=lambda: {**LTX_FROM_IMAGE.arguments(), "image": frames(1, 128)[0]},
        other={"width": 192, "image": frames(1, 192)[0]},
    ),
    "hunyuan, first frame given": TinyPipeline(
        "HunyuanVideoImageToVideoPipeline",
        "hunyuan, first frame given",
        branches.UNNAMED,
        lambda: {
            **text(6, 16),
            **masks(6),
            **pooled(8),
            **LITTLE,
            **TRUE_GUIDANCE,
            "num_frames": 9,
            "image": picture(32),
        },
        parts=parts.hunyuan,
        unguided=TRUE_GUIDANCE_OFF,
        other={"width": 64, "image": picture(64)},
    ),
    "cosmos2, video given": TinyPipeline(
        "Cosmos2VideoToWorldPipeline",
        "cosmos",
        branches.UNNAMED,
        lambda: {**text(6, 16), **LITTLE, "num_frames": 5, "image": picture(32)},
        config={"in_channels": 5},
        scheduler=scheduler_class("FlowMatchEulerDiscreteScheduler", use_karras_sigmas=True),
        parts=lambda: {**parts.wan(), **parts.safety_checker()},
        other={"width": 64, "image": picture(64)},
    ),
    "sana, world model": TinyPipeline(
        "SanaWMPipeline",
        "sana, world model",
        branches.ONE_CALL,
        lambda: {
            **{name: embeds[:, None] for name, embeds in text(6, 16).items()},
            **masks(6),
            "prompt": "",
            **LARGE,
            "image": frames(1, 128)[0],
            "c2w": torch.eye(4).repeat(17, 1, 1),
            "intrinsics": torch.tensor([4.0, 4.0, 2.0, 2.0]),
        },
        config={"chunk_plucker_channels": 48},
        other={"width": 192},
        attributes={"_encode_first_frame": first_frame},
    ),
    "helios pyramid": replace(
        HELIOS,
        cls="HeliosPyramidPipeline",
        arguments=lambda: {
            **HELIOS.arguments(),
            **SMALL,
            "num_frames": 9,
            "pyramid_num_inference_steps_list": [6, 6, 6],
        },
        # With the default gamma, 1 / 3, the covariance that the pipeline factorises is singular.
        scheduler=scheduler_class("HeliosScheduler", gamma=0.3),
        other={"width": 128},
    ),
    "kandinsky6, super resolution": TinyPipeline(
        "Kandinsky6SRPipeline",
        "kandinsky6, super resolution",
        branches.ONE_CALL,
        lambda: {
            "video": noise(1, 5, 3, 64, 64).sigmoid(),
            "resolution_scale": 2,
            "output_type": "pt",
        },
        config={"tile_sizes": [[128, 128]]},
        unguided={},
        other={"video": noise(1, 5, 3, 64, 96).sigmoid()},
        aborts=None,
        attributes={
            "encode_video": lambda video: noise(1, 4, 2, 8, 8, seed=5) + video.mean(),
            "decode_latents": lambda latents: interpolate(latents[:, :3], size=(5, 128, 128)),
        },
    ),
}
