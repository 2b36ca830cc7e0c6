"""A pipeline of diffusers around a tiny transformer with random weights: nothing is downloaded."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.tiny_models.chained_models import IMAGES, VIDEOS, TinyClass, noise
from tests.support.tiny_models.common_models import TINY, Tiny
from tests.support.tiny_models.special_models import OTHER_IMAGES, OTHER_VIDEOS

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
        usual = {
            "num_inference_steps": self.asked,
            "output_type": "latent",
            "return_dict": False,
            "generator": torch.Generator().manual_seed(0),
        }
        accepted = inspect.signature(pipe.__call__).parameters
        arguments = {
            **{name: value for name, value in usual.items() if name in accepted},
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
