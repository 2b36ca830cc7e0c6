"""Load the pipeline that methods are compared on, and the function that generates a video."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from ..measure.psnr_ssim import Video
from ..schedule.json_file import short
from .pipeline_file import build_from_file

DEMO = "demo"
GIVEN = ("prompt", "num_inference_steps", "generator", "output_type")
"""Arguments that every call of a diffusers pipeline has already."""
LARGEST_GUIDANCE = 1e30
"""Largest guidance scale of the demo."""


@dataclass
class Subject:
    """A pipeline, and the function that generates a video with it.

    Args:
        pipe: the pipeline to patch, with `.transformer` and `.scheduler`.
        generate: from prompt, number of steps and seed to `[frames, height, width, 3]` in 0 to 1.
        check: raises ValueError for prompts that the pipeline does not know.
    """

    pipe: Any
    generate: Callable[[str, int, int], Video]
    check: Callable[[Sequence[str]], None] = field(default=lambda prompts: None)

    @property
    def device(self) -> torch.device:
        """Return the device of the transformer."""
        device: torch.device = next(self.pipe.transformer.parameters()).device
        return device


def load(
    name: str, *, device: str | None = None, arguments: Mapping[str, Any] | None = None
) -> Subject:
    """Load a pipeline.

    Args:
        name: "demo"; a folder or hub name that diffusers loads; or "FILE.py:FUNCTION" for any
            other model. The function returns (pipe, generate), see `Subject`.
        device: by default CUDA if there is a GPU, else the CPU.
        arguments: for each call of a diffusers pipeline, such as height and guidance_scale.

    Raises:
        ValueError: there is no such file or function, diffusers cannot load the pipeline, or the
            pipeline does not take an argument.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    arguments = dict(arguments or {})
    if name == DEMO:
        return _demo(device, arguments)
    if ".py:" in name or name.endswith(".py"):
        return Subject(*build_from_file(name, device, arguments))
    return _from_diffusers(name, device, arguments)


def _demo(device: str, arguments: dict[str, Any]) -> Subject:
    from ..demo.pipeline import DEFAULT_WEIGHTS, check_prompts, load_pipeline
    from ..demo.run import generate

    unknown = set(arguments) - {"guidance"}
    if unknown:
        raise ValueError(f"the demo takes guidance=, not {', '.join(sorted(unknown))}")
    guidance = arguments.get("guidance", 0.0)
    is_number = isinstance(guidance, int | float) and not isinstance(guidance, bool)
    if not is_number or not -LARGEST_GUIDANCE <= guidance <= LARGEST_GUIDANCE:
        raise ValueError(f"--call guidance={short(guidance)}: it must be a finite number")
    pipe = load_pipeline(DEFAULT_WEIGHTS, device)

    def generate_video(prompt: str, steps: int, seed: int) -> Video:
        return generate(pipe, prompt, steps=steps, seed=seed, **arguments)

    return Subject(pipe, generate_video, lambda prompts: check_prompts(pipe, prompts))


def _from_diffusers(name: str, device: str, arguments: dict[str, Any]) -> Subject:
    pipe = _loaded_by_diffusers(name, device)
    pipe.set_progress_bar_config(disable=True)
    known = inspect.signature(type(pipe).__call__).parameters
    unknown = [key for key in arguments if key not in known]
    if unknown:
        raise ValueError(f"{type(pipe).__name__} takes no {', '.join(unknown)}")
    twice = [key for key in arguments if key in GIVEN]
    if twice:
        raise ValueError(f"--call {twice[0]}=: this argument is given already; leave it out")

    def generate_video(prompt: str, steps: int, seed: int) -> Video:
        generator = torch.Generator("cpu").manual_seed(seed)
        given = {"num_inference_steps": steps, "generator": generator, "output_type": "np"}
        try:
            return as_video(pipe(prompt=prompt, **given, **arguments))
        except TypeError as error:
            if not arguments:
                raise
            raise ValueError(
                f"--call {short(arguments)}: {type(pipe).__name__} raised TypeError: {error}"
            ) from error

    return Subject(pipe, generate_video)


def _loaded_by_diffusers(name: str, device: str) -> Any:
    from diffusers import DiffusionPipeline

    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    try:
        # Other formats of weights can run code when they are loaded.
        pipe = DiffusionPipeline.from_pretrained(name, torch_dtype=dtype, use_safetensors=True)
    except Exception as error:  # It raises errors of many classes.
        raise ValueError(
            f"--pipeline {short(name)}: diffusers cannot load it; give demo, a folder or hub name "
            f"of a pipeline with weights in safetensors, or FILE.py:FUNCTION. "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(getattr(pipe, "transformer", None), nn.Module):
        raise ValueError(f"--pipeline {short(name)}: {type(pipe).__name__} has no transformer")
    return pipe.to(device)


def as_video(output: Any) -> Video:
    """Return the first video or image of a pipeline's output.

    Args:
        output: with `.frames [videos, frames, height, width, 3]`, or with
            `.images [images, height, width, 3]`.

    Returns:
        `[frames, height, width, 3]`, clipped to 0 to 1.

    Raises:
        ValueError: the array has another shape.
    """
    videos = getattr(output, "frames", None)
    frames = np.asarray(getattr(output, "images", None) if videos is None else videos[0])
    if frames.ndim == 3:
        frames = frames[None]
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(
            f"the pipeline returned an array of shape {frames.shape}; expected frames "
            "[frames, height, width, 3], which it returns with output_type='np'"
        )
    return np.clip(frames.astype(np.float32), 0, 1)
