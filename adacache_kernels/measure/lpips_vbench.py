"""LPIPS and VBench, measured by their own packages if these are installed."""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .psnr_ssim import Video

LPIPS_WEIGHTS = "torch.hub's folder, $TORCH_HOME/hub/checkpoints/alexnet-owt-7be5be79.pth"
VBENCH_WEIGHTS = "$VBENCH_CACHE_DIR, by default ~/.cache/vbench"
VBENCH_DIMENSIONS = (
    "subject_consistency",
    "background_consistency",
    "motion_smoothness",
    "dynamic_degree",
    "aesthetic_quality",
    "imaging_quality",
)
"""The dimensions that VBench can score for any prompt."""


def lpips_distance(video: Video, reference: Video) -> float:
    """Return LPIPS (Zhang et al. 2018, AlexNet), the mean over the frames; 0 for equal videos.

    Args:
        video, reference: `[frames, height, width, 3]` in 0 to 1.

    Raises:
        ImportError: the package `lpips` is not installed.
        RuntimeError: its weights are not on this machine, and cannot be downloaded.
    """
    network = _lpips()
    with torch.no_grad():
        distances = network(_to_lpips_range(video), _to_lpips_range(reference))
    return float(distances.mean())


def vbench_scores(
    videos: Sequence[Video], prompts: Sequence[str], *, frames_per_second: int = 8
) -> dict[str, float]:
    """Return VBench's scores (Huang et al. 2024) of videos with any prompts, by dimension.

    Args:
        videos: each `[frames, height, width, 3]` in 0 to 1.
        prompts: one for each video.
        frames_per_second: of the video files that VBench reads.

    Raises:
        ImportError: the package `vbench` is not installed.
    """
    vbench = _imported("vbench", "VBench", VBENCH_WEIGHTS)
    with tempfile.TemporaryDirectory() as folder:
        files = [
            _save_video(video, Path(folder) / f"{index}.mp4", frames_per_second)
            for index, video in enumerate(videos)
        ]
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        vbench.VBench(device, "", folder).evaluate(
            videos_path=folder,
            name="scores",
            prompt_list=dict(zip(map(str, files), prompts, strict=True)),
            dimension_list=list(VBENCH_DIMENSIONS),
            mode="custom_input",
        )
        scores = json.loads((Path(folder) / "scores_eval_results.json").read_text())
    return {name: float(score[0]) for name, score in scores.items()}


def check_installed(names: Sequence[str]) -> None:
    """Check that the packages of the metrics "lpips" and "vbench" among `names` are installed.

    Raises:
        ImportError: one is not; the message names the package and the folder of its weights.
    """
    if "lpips" in names:
        _lpips()
    if "vbench" in names:
        _imported("vbench", "VBench", VBENCH_WEIGHTS)


@lru_cache(maxsize=1)
def _lpips() -> Any:
    module = _imported("lpips", "LPIPS", LPIPS_WEIGHTS)
    try:
        return module.LPIPS(net="alex", verbose=False).eval()
    except OSError as error:
        raise RuntimeError(
            f"the weights of LPIPS cannot be loaded ({error}); without a network, copy them to "
            f"{LPIPS_WEIGHTS}"
        ) from error


def _imported(name: str, title: str, weights: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{title} needs the package {name}, which is not installed ({error}); pip install "
            f"{name}. Without a network, its weights are expected in {weights}"
        ) from error


def _to_lpips_range(video: Video) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(video)).permute(0, 3, 1, 2) * 2 - 1


def _save_video(video: Video, path: Path, frames_per_second: int) -> Path:
    from diffusers.utils.export_utils import export_to_video

    export_to_video(list(video), str(path), fps=frames_per_second)
    return path
