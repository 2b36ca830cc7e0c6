"""Load the pipeline that methods are compared on, and the function that generates a video."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..measure.psnr_ssim import Video

DEMO = "demo"


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
        ValueError: there is no such file or function, or the pipeline does not take an argument.
        OSError: diffusers cannot load the pipeline.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    arguments = dict(arguments or {})
    if name == DEMO:
        return _demo(device, arguments)
    if ".py:" in name:
        return _from_file(name, device, arguments)
    return _from_diffusers(name, device, arguments)


def _demo(device: str, arguments: dict[str, Any]) -> Subject:
    from ..demo.pipeline import DEFAULT_WEIGHTS, check_prompts, load_pipeline
    from ..demo.run import generate

    unknown = set(arguments) - {"guidance"}
    if unknown:
        raise ValueError(f"the demo takes guidance=, not {', '.join(sorted(unknown))}")
    pipe = load_pipeline(DEFAULT_WEIGHTS, device)

    def generate_video(prompt: str, steps: int, seed: int) -> Video:
        return generate(pipe, prompt, steps=steps, seed=seed, **arguments)

    return Subject(pipe, generate_video, lambda prompts: check_prompts(pipe, prompts))


def _from_file(name: str, device: str, arguments: dict[str, Any]) -> Subject:
    path, _, function = name.rpartition(":")
    if not Path(path).is_file():
        raise ValueError(f"{path} is no file; give FILE.py:FUNCTION")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    build = getattr(module, function, None)
    if not callable(build):
        raise ValueError(
            f"{path} has no function {function}; it has to return (pipe, generate), where "
            "generate(prompt, steps, seed) returns [frames, height, width, 3] in 0 to 1"
        )
    pipe, generate = build(device=device, **arguments)
    return Subject(pipe, generate)


def _from_diffusers(name: str, device: str, arguments: dict[str, Any]) -> Subject:
    from diffusers import DiffusionPipeline

    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    pipe = DiffusionPipeline.from_pretrained(name, torch_dtype=dtype).to(device)
    pipe.set_progress_bar_config(disable=True)
    known = inspect.signature(type(pipe).__call__).parameters
    unknown = [key for key in arguments if key not in known]
    if unknown:
        raise ValueError(f"{type(pipe).__name__} takes no {', '.join(unknown)}")

    def generate_video(prompt: str, steps: int, seed: int) -> Video:
        generator = torch.Generator("cpu").manual_seed(seed)
        output = pipe(
            prompt=prompt,
            num_inference_steps=steps,
            generator=generator,
            output_type="np",
            **arguments,
        )
        return as_video(output)

    return Subject(pipe, generate_video)


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
