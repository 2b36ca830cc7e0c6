"""PSNR and SSIM of videos. SSIM needs scikit-image, which is part of the `demo` extra."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Video = NDArray[np.float32]

EQUAL_PSNR = 100.0
"""dB that means use for equal videos, whose PSNR is infinite."""


def psnr(video: Video, reference: Video) -> float:
    """Return 10 log10(1 / mean((video - reference)^2)) in dB, over all frames.

    Args:
        video, reference: `[frames, height, width, 3]` in 0 to 1.

    Returns:
        The PSNR in dB, infinite if the videos are equal.

    Raises:
        ValueError: the shapes differ, or a value is not finite or outside of 0 to 1.
    """
    _check_videos(video, reference)
    return psnr_of_error(mean_squared_error(video, reference))


def psnr_of_error(error: float, peak: float = 1.0) -> float:
    """Return 10 log10(peak^2 / error) in dB, infinite for an error of 0.

    Args:
        error: a mean squared error, 0 or above.
        peak: the highest possible value minus the lowest one.
    """
    return math.inf if error == 0 else float(10 * np.log10(peak**2 / error))


def mean_squared_error(values: NDArray[Any], reference: NDArray[Any]) -> float:
    """Return mean((values - reference)^2) of two arrays of one shape, summed in float64."""
    return float(np.mean(np.square(values - reference), dtype=np.float64))


def ssim(video: Video, reference: Video) -> float:
    """Return the structural similarity, as the mean over the frames.

    It is that of Wang et al. 2004: a Gaussian window with sigma 1.5.

    Args:
        video, reference: `[frames, height, width, 3]` in 0 to 1, at least 11 pixels high and wide.

    Raises:
        ValueError: the shapes differ, or a value is not finite or outside of 0 to 1.
        ImportError: scikit-image is not installed.
    """
    from skimage.metrics import structural_similarity

    _check_videos(video, reference)
    frames = [
        structural_similarity(
            expected,
            frame,
            data_range=1.0,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for frame, expected in zip(video, reference, strict=True)
    ]
    return float(np.mean(frames))


def _check_videos(video: Video, reference: Video) -> None:
    if video.shape != reference.shape or video.ndim != 4 or video.shape[-1] != 3:
        raise ValueError(
            f"the videos have shapes {video.shape} and {reference.shape}, expected the same "
            "[frames, height, width, 3]"
        )
    for name, values in (("video", video), ("reference", reference)):
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            raise ValueError(
                f"the {name} has values outside of 0 to 1 or that are not finite; scale and clip "
                "its pixels to 0 to 1"
            )
