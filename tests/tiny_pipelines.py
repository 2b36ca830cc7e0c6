"""diffusers pipelines around tiny transformers with random weights: nothing is downloaded."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from tiny import TINY, Tiny
from tiny_chained import IMAGES, VIDEOS, TinyClass, noise
from tiny_others import OTHER_IMAGES, OTHER_VIDEOS

CLASSES: dict[str, Tiny | TinyClass] = {
    **TINY,
    **VIDEOS,
    **OTHER_VIDEOS,
    **IMAGES,
    **OTHER_IMAGES,
}
Arguments = dict[str, Any]
STEPS = 6


def model(name: str, **config: Any) -> nn.Module:
    """The tiny model of that name, with other settings."""
    tiny = CLASSES[name]
    return replace(tiny, config={**tiny.config, **config}).build()


def scheduler(name: str, **config: Any) -> Any:
    import diffusers

    return getattr(diffusers, name)(**config)


def euler(**config: Any) -> Any:
    return scheduler("FlowMatchEulerDiscreteScheduler", **config)


def ddim() -> Any:
    return scheduler("DDIMScheduler", timestep_spacing="trailing", clip_sample=False)


def unipc() -> Any:
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    return scheduler("UniPCMultistepScheduler", **flow)


class Config:
    """Settings of a part that a pipeline reads and never runs."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def __getattr__(self, name: str) -> Any:
        if name == "settings" or name not in self.settings:
            raise AttributeError(name)
        return self.settings[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.settings.get(name, default)


class Part(nn.Module):
    """A part of a pipeline that is no model of diffusers."""

    device = torch.device("cpu")
    dtype = torch.float32


class Vae(Part):
    """What a pipeline reads of its VAE; for latents that come out as they are."""

    def __init__(self, attributes: Arguments | None = None, **config: Any) -> None:
        super().__init__()
        self.config = Config(**config)
        for name, value in (attributes or {}).items():
            setattr(self, name, value)


class Harmless(Part):
    """A safety checker that finds nothing."""

    def to(self, *_args: Any, **_kwargs: Any) -> Harmless:
        return self

    def check_text_safety(self, text: str) -> bool:
        return True

    def check_video_safety(self, video: Any) -> Any:
        return video


@dataclass(frozen=True)
class TinyPipeline:
    """A pipeline, how it is built and called.

    Args:
        cls: its name in diffusers, or "module:name" inside `diffusers.pipelines`.
        parts: of its constructor; the others are None.
        arguments: of its call with guidance.
        unguided: arguments that turn guidance off.
        branches: with guidance, and without.
        other: arguments of another size.
        asked: steps that the pipeline is asked for, so that the model makes `STEPS`.
        result: from what the pipeline returned to a tensor.
        aborts: argument that takes a callback at a step's end, None where there is none.
        setup: what else is set on the pipeline, given whether there is guidance.
        recomputed: calls of reused steps that had to be computed, by branch, with and without
            guidance.
        attributes: of the pipeline, in place of what needs an image encoder.
    """

    cls: str
    parts: Callable[[], Arguments]
    arguments: Callable[[], Arguments]
    branches: tuple[list[str], list[str]]
    unguided: Arguments
    other: Arguments
    asked: int = STEPS
    result: Callable[[Any], Tensor] = lambda returned: returned[0]
    aborts: str | None = "callback_on_step_end"
    setup: Callable[[Any, bool], None] = lambda pipe, guidance: None
    recomputed: dict[str, list[int]] = field(default_factory=dict)
    attributes: Arguments = field(default_factory=dict)

    def build(self) -> Any:
        module, _, name = f"diffusers:{self.cls}".rpartition(":")
        module = module.removeprefix("diffusers:")
        cls = getattr(importlib.import_module(module), name)
        parts = self.parts()
        required = {
            name: None
            for name, parameter in inspect.signature(cls.__init__).parameters.items()
            if parameter.default is parameter.empty and name != "self"
        }
        pipe = cls(**{**required, **parts})
        pipe.set_progress_bar_config(disable=True)
        for name, value in self.attributes.items():
            setattr(pipe, name, value)
        return pipe

    def run(
        self,
        pipe: Any,
        *,
        guidance: bool = True,
        other: bool = False,
        **overrides: Any,
    ) -> Tensor:
        self.setup(pipe, guidance)
        arguments = {
            "num_inference_steps": self.asked,
            "output_type": "latent",
            "return_dict": False,
            "generator": torch.Generator().manual_seed(0),
            **self.arguments(),
            **({} if guidance else self.unguided),
            **(self.other if other else {}),
            **overrides,
        }
        found = self.result(pipe(**arguments))
        assert torch.isfinite(found).all()
        return found


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


SMALL: Arguments = {"height": 64, "width": 64}
WIDE: Arguments = {"height": 64, "width": 96}
LITTLE: Arguments = {"height": 32, "width": 32}
ONE_CALL = (["0"], ["0"])
TWO_CALLS = (["cond", "uncond"], ["cond"])
UNNAMED = (["0", "1"], ["0"])
JOINT = (["cond_uncond"], ["cond_uncond"])
GUIDER = (["pred_cond", "pred_uncond"], ["pred_cond"])
OFF: Arguments = {"guidance_scale": 1.0}
TRUE_OFF: Arguments = {"true_cfg_scale": 1.0}


def guider(pipe: Any, guidance: bool) -> None:
    pipe.guider._guidance_scale = 4.0
    pipe.guider.guidance_scale = 4.0 if guidance else 1.0


def guidance_of(name: str, **settings: Any) -> Any:
    import diffusers

    module = diffusers if hasattr(diffusers, name) else diffusers.hooks
    return getattr(module, name)(**settings)


def skipped_feed_forward() -> Any:
    where = {"indices": [1], "fqn": "transformer_blocks"}
    return guidance_of("LayerSkipConfig", skip_attention=False, skip_ff=True, **where)


def hunyuan15_text() -> Arguments:
    found = {}
    for sign, seed in (("", 1), ("negative_", 3)):
        found[f"{sign}prompt_embeds"] = noise(1, 6, 16, seed=seed)
        found[f"{sign}prompt_embeds_mask"] = torch.ones(1, 6)
        found[f"{sign}prompt_embeds_2"] = noise(1, 4, 8, seed=seed + 1)
        found[f"{sign}prompt_embeds_mask_2"] = torch.ones(1, 4)
    return {**found, **SMALL, "num_frames": 9}


def frames(count: int, width: int) -> list[Any]:
    from PIL import Image

    return [Image.new("RGB", (width, 32), (10 * k, 40, 90)) for k in range(count)]


def wan_vae() -> Any:
    import diffusers

    torch.manual_seed(0)
    return diffusers.AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    ).eval()


def hunyuan_vae() -> Any:
    import diffusers

    torch.manual_seed(0)
    return diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4,
        block_out_channels=(4, 4, 4, 4),
        layers_per_block=1,
        norm_num_groups=2,
    ).eval()


def cogvideox_vae() -> Any:
    import diffusers

    torch.manual_seed(0)
    return diffusers.AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    ).eval()


def ltx2_vae() -> Any:
    ratios = {"temporal_compression_ratio": 8, "spatial_compression_ratio": 32}
    scale = {"latents_mean": torch.zeros(4), "latents_std": torch.ones(4)}
    return Vae({**ratios, **scale}, scaling_factor=1.0)


def ltx2_audio_vae() -> Any:
    ratios = {"mel_compression_ratio": 4, "temporal_compression_ratio": 4}
    scale = {"latents_mean": torch.zeros(64), "latents_std": torch.ones(64)}
    settings = {"sample_rate": 16000, "mel_hop_length": 160, "latent_channels": 8, "mel_bins": 32}
    return Vae({**ratios, **scale}, **settings)


def image_vae() -> Any:
    import diffusers

    torch.manual_seed(0)
    return diffusers.AutoencoderKL(block_out_channels=(4,), norm_num_groups=2).eval()


class Connectors(Part):
    """Hands the text to the video and to the audio as it is."""

    def forward(self, text: Tensor, mask: Tensor, **_others: Any) -> tuple[Tensor, Tensor, Tensor]:
        return text, text, mask


PIPELINES: dict[str, TinyPipeline] = {
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
    "pixart": TinyPipeline(
        "PixArtAlphaPipeline",
        lambda: {"transformer": model("pixart"), "scheduler": ddim()},
        lambda: {
            **text(6, 8),
            **masks(6),
            **SMALL,
            "negative_prompt": None,
            "use_resolution_binning": False,
        },
        ONE_CALL,
        OFF,
        WIDE,
        aborts=None,
    ),
    "sd3": TinyPipeline(
        "StableDiffusion3Pipeline",
        lambda: {"transformer": model("sd3"), "scheduler": euler()},
        lambda: {**text(6, 16), **pooled(32), **SMALL},
        ONE_CALL,
        OFF,
        WIDE,
    ),
    "sd3, skipped layers": TinyPipeline(
        "StableDiffusion3Pipeline",
        lambda: {"transformer": model("sd3.5"), "scheduler": euler()},
        lambda: {
            **text(6, 16),
            **pooled(32),
            **SMALL,
            "skip_guidance_layers": [1],
            "skip_layer_guidance_stop": 0.9,
        },
        (["0", "1"], ["0"]),
        OFF,
        WIDE,
    ),
    "flux": TinyPipeline(
        "FluxPipeline",
        lambda: {"transformer": model("flux"), "scheduler": euler()},
        lambda: {**text(6, 32), **pooled(32), **SMALL, "true_cfg_scale": 4.0},
        TWO_CALLS,
        TRUE_OFF,
        WIDE,
    ),
    "qwen": TinyPipeline(
        "QwenImagePipeline",
        lambda: {"transformer": model("qwen"), "scheduler": euler()},
        lambda: {
            **text(6, 16),
            "prompt_embeds_mask": torch.ones(1, 6, dtype=torch.long),
            "negative_prompt_embeds_mask": torch.ones(1, 6, dtype=torch.long),
            **SMALL,
            "true_cfg_scale": 4.0,
        },
        TWO_CALLS,
        TRUE_OFF,
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
    "dit": TinyPipeline(
        "DiTPipeline",
        lambda: {
            "transformer": model("dit", num_embeds_ada_norm=1000),
            "scheduler": ddim(),
            "vae": image_vae(),
        },
        lambda: {"class_labels": [1], "output_type": "pt"},
        ONE_CALL,
        OFF,
        {"class_labels": [1, 2]},
        aborts=None,
    ),
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
    "sana": TinyPipeline(
        "SanaPipeline",
        lambda: {"transformer": model("sana, image"), "scheduler": euler()},
        lambda: {
            **text(6, 8),
            **masks(6),
            "height": 256,
            "width": 256,
            "negative_prompt": None,
            "use_resolution_binning": False,
        },
        ONE_CALL,
        OFF,
        {"width": 384},
    ),
    "lumina2": TinyPipeline(
        "Lumina2Pipeline",
        lambda: {"transformer": model("lumina2"), "scheduler": euler()},
        lambda: {**text(6, 32), **masks(6, torch.bool), **SMALL},
        UNNAMED,
        OFF,
        WIDE,
    ),
    "flux2": TinyPipeline(
        "Flux2Pipeline",
        lambda: {"transformer": model("flux2", in_channels=16), "scheduler": euler()},
        lambda: {"prompt_embeds": noise(1, 6, 32, seed=1), **SMALL},
        ONE_CALL,
        {},
        WIDE,
    ),
    "z-image": TinyPipeline(
        "ZImagePipeline",
        lambda: {"transformer": model("z-image"), "scheduler": euler()},
        lambda: {
            "prompt_embeds": [noise(6, 16, seed=1)],
            "negative_prompt_embeds": [noise(6, 16, seed=2)],
            **SMALL,
        },
        ONE_CALL,
        {"guidance_scale": 0.0},
        WIDE,
    ),
    "hunyuan dit": TinyPipeline(
        "HunyuanDiTPipeline",
        lambda: {
            "transformer": model("hunyuan-dit"),
            "scheduler": ddim(),
            "requires_safety_checker": False,
        },
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
        ONE_CALL,
        OFF,
        WIDE,
    ),
    "hidream": TinyPipeline(
        "HiDreamImagePipeline",
        lambda: {"transformer": model("hidream"), "scheduler": euler()},
        lambda: {
            "prompt_embeds_t5": noise(1, 6, 8, seed=1),
            "negative_prompt_embeds_t5": noise(1, 6, 8, seed=2),
            "prompt_embeds_llama3": noise(2, 1, 6, 4, seed=3),
            "negative_prompt_embeds_llama3": noise(2, 1, 6, 4, seed=4),
            **pooled(8),
            **SMALL,
        },
        ONE_CALL,
        OFF,
        {"width": 96},
        attributes={"default_sample_size": 8},
    ),
}
