"""PSNR and SSIM of two videos, by scikit-image. Part of the `demo` extra."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Video = NDArray[np.float32]


def psnr(video: Video, reference: Video) -> float:
    """10 log10(1 / mean((video - reference)^2)) in dB over all frames; infinite if they are equal.

    Args:
        video, reference: [F, H, W, 3] in 0 to 1.

    Raises:
        ValueError: shapes that differ, or values that are not finite or outside of 0 to 1.
    """
    from skimage.metrics import peak_signal_noise_ratio

    _check(video, reference)
    if np.array_equal(video, reference):
        return math.inf
    return float(peak_signal_noise_ratio(reference, video, data_range=1.0))


def ssim(video: Video, reference: Video) -> float:
    """Structural similarity (Wang et al. 2004: Gaussian window, sigma 1.5), mean over the frames.

    Args:
        video, reference: [F, H, W, 3] in 0 to 1, at least 11 pixels high and wide.

    Raises:
        ValueError: shapes that differ, or values that are not finite or outside of 0 to 1.
    """
    from skimage.metrics import structural_similarity

    _check(video, reference)
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


def _check(video: Video, reference: Video) -> None:
    if video.shape != reference.shape or video.ndim != 4 or video.shape[-1] != 3:
        raise ValueError(
            f"the videos have shapes {video.shape} and {reference.shape}, expected the same "
            "[frames, height, width, 3]"
        )
    for name, values in (("video", video), ("reference", reference)):
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            raise ValueError(f"the {name} has values outside of 0 to 1, or that are not finite")
