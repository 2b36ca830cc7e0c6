"""diffusers pipelines around tiny transformers with random weights: no text encoder, no download."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
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


class Vae(nn.Module):
    """What a pipeline reads of its VAE; for latents that come out as they are."""

    def __init__(self, attributes: Arguments | None = None, **config: Any) -> None:
        super().__init__()
        self.config = Config(**config)
        self.dtype = torch.float32
        for name, value in (attributes or {}).items():
            setattr(self, name, value)


class Harmless(nn.Module):
    """A safety checker that finds nothing."""

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
        steps: that the model makes where the pipeline is asked for that many.
        result: from what the pipeline returned to a tensor.
        aborts: argument that takes a callback at a step's end, None where there is none.
        setup: what else is set on the pipeline, given whether there is guidance.
    """

    cls: str
    parts: Callable[[], Arguments]
    arguments: Callable[[], Arguments]
    branches: tuple[list[str], list[str]]
    unguided: Arguments
    other: Arguments
    steps: Callable[[int], int] = lambda steps: steps
    result: Callable[[Any], Tensor] = lambda returned: returned[0]
    aborts: str | None = "callback_on_step_end"
    setup: Callable[[Any, bool], None] = lambda pipe, guidance: None
    size: Arguments | None = None

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
        return pipe

    def run(
        self,
        pipe: Any,
        steps: int,
        *,
        guidance: bool = True,
        other: bool = False,
        **overrides: Any,
    ) -> Tensor:
        self.setup(pipe, guidance)
        arguments = {
            "num_inference_steps": steps,
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


PIPELINES: dict[str, TinyPipeline] = {
    "latte": TinyPipeline(
        "LattePipeline",
        lambda: {"transformer": model("latte", out_channels=8), "scheduler": ddim()},
        lambda: {**text(6, 8), **SMALL, "negative_prompt": None, "video_length": 4},
        ONE_CALL,
        OFF,
        {"video_length": 3},
    ),
    "allegro": TinyPipeline(
        "AllegroPipeline",
        lambda: {"transformer": model("allegro"), "scheduler": scheduler("EulerAncestralDiscreteScheduler")},
        lambda: {**text(6, 8), **masks(6), **SMALL, "negative_prompt": None, "num_frames": 16},
        ONE_CALL,
        OFF,
        WIDE,
    ),
    "cogvideox": TinyPipeline(
        "CogVideoXPipeline",
        lambda: {"transformer": model("cogvideox"), "scheduler": scheduler("CogVideoXDDIMScheduler")},
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
        ONE_CALL,
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
        lambda: {"transformer": model("anyflow"), "scheduler": scheduler("FlowMapEulerDiscreteScheduler")},
        lambda: {**text(6, 16), **SMALL, "num_frames": 9, "guidance_scale": 4.0},
        ONE_CALL,
        OFF,
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
}
