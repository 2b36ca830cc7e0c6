"""Pipelines that a function in a Python file builds: FILE.py:FUNCTION."""

from __future__ import annotations

import importlib.util
import inspect
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..measure.psnr_ssim import Video
from ..schedule.files import is_file
from ..schedule.json_file import short

Generate = Callable[[str, int, int], Video]
RETURNS = (
    "it has to return (pipe, generate), where generate(prompt, steps, seed) returns "
    "[frames, height, width, 3] in 0 to 1"
)
ROUNDING = 1e-3
"""The most by which a value of a video may be outside of 0 to 1."""


def build_from_file(name: str, device: str, arguments: Mapping[str, Any]) -> tuple[Any, Generate]:
    """Return the pipeline that a function builds, and the function that generates a video.

    Args:
        name: FILE.py:FUNCTION.
        device: passed to the function as `device`.
        arguments: passed to it by name.

    Raises:
        ValueError: there is no such file or function, the function raises an error, or its result
            is not a pipeline and a function.
    """
    path, _, function = name.rpartition(":")
    if not is_file(path):
        raise ValueError(
            f"--pipeline {short(name)}: {path or name} is no file; give FILE.py:FUNCTION"
        )
    build = getattr(_module(path), function, None) if function else None
    if not callable(build):
        raise ValueError(f"--pipeline: {path} has no function {function or 'named'}; {RETURNS}")
    _check_arguments(build, name, {"device": device, **arguments})
    try:
        built = build(device=device, **arguments)
    except (Exception, SystemExit) as error:
        raise ValueError(f"--pipeline {name} raised {_said(error, path)}") from error
    if not (isinstance(built, tuple | list) and len(built) == 2 and callable(built[1])):
        raise ValueError(f"--pipeline {name} returned {short(built)}; {RETURNS}")
    pipe, generate = built
    transformer = pipe if isinstance(pipe, nn.Module) else getattr(pipe, "transformer", None)
    if not isinstance(transformer, nn.Module):
        raise ValueError(f"--pipeline {name}: its pipe {short(pipe)} has no transformer; {RETURNS}")
    return pipe, _checked(generate, name)


def _module(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(f"--pipeline: {path} cannot be run: {_said(error, path)}") from error
    return module


def _check_arguments(build: Callable[..., Any], name: str, arguments: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(build)
    except ValueError:  # A function that is not written in Python.
        return
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise ValueError(
            f"--pipeline {name} takes {signature}, and is called with "
            f"{', '.join(arguments)}: {error}; --call gives the others"
        ) from error


def _said(error: BaseException, path: str) -> str:
    """Return the class and message of an error, with the last line in the file `path`."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    line = f" (line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{line}"


def _checked(generate: Callable[[str, int, int], Any], name: str) -> Generate:
    def generate_video(prompt: str, steps: int, seed: int) -> Video:
        video = generate(prompt, steps, seed)
        if isinstance(video, Tensor):
            video = video.detach().float().cpu().numpy()
        array = np.asarray(video)
        if array.dtype.kind not in "fiu" or array.ndim != 4 or array.shape[-1] != 3:
            raise ValueError(
                f"generate() of {name} returned {array.dtype} of shape {array.shape}; expected "
                "[frames, height, width, 3] in 0 to 1"
            )
        lowest, highest = float(array.min(initial=0)), float(array.max(initial=0))
        if not -ROUNDING <= lowest <= highest <= 1 + ROUNDING:
            raise ValueError(
                f"generate() of {name} returned values from {lowest:.4g} to {highest:.4g}; "
                "expected 0 to 1"
            )
        return np.clip(array.astype(np.float32), 0, 1)

    return generate_video
