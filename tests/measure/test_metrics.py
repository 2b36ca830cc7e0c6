"""PSNR and SSIM, compared with values worked out by hand and with scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from adacache_kernels.measure.psnr_ssim import psnr, psnr_of_error, ssim


def video(value: float, seed: int | None = None) -> NDArray[np.float32]:
    if seed is None:
        return np.full((3, 16, 16, 3), value, dtype=np.float32)
    return np.random.default_rng(seed).random((3, 16, 16, 3), dtype=np.float32)


def test_psnr_of_a_constant_difference() -> None:
    """An error of 0.1 everywhere: 10 log10(1 / 0.01) = 20 dB; float32 pixels, so 1e-4."""
    assert psnr(video(0.6), video(0.5)) == pytest.approx(20.0, abs=1e-4)


def test_psnr_is_over_all_frames_and_not_a_mean_of_frames() -> None:
    changed = video(0.5)
    changed[0] += 0.3
    assert psnr(changed, video(0.5)) == pytest.approx(10 * math.log10(3 / 0.09), abs=1e-4)


@pytest.mark.parametrize("error", [1e-4, 1e-2, 1.0])
def test_psnr_is_that_of_scikit_image(error: float) -> None:
    from skimage.metrics import peak_signal_noise_ratio

    reference, noise = video(0, seed=1), video(0, seed=2)
    changed = np.clip(reference + np.float32(error) * (noise - 0.5), 0, 1)
    expected = peak_signal_noise_ratio(reference, changed, data_range=1.0)
    assert psnr(changed, reference) == expected


def test_psnr_of_an_error() -> None:
    assert psnr_of_error(0.01) == pytest.approx(20.0)
    assert psnr_of_error(0.01, peak=10.0) == pytest.approx(40.0)
    assert psnr_of_error(0.0) == math.inf


def test_equal_videos() -> None:
    noise = video(0, seed=1)
    assert psnr(noise, noise) == math.inf
    assert ssim(noise, noise) == pytest.approx(1.0)


def test_ssim_of_constants() -> None:
    """Without variance, only the means count: (2ab + C1) / (a^2 + b^2 + C1), C1 = 0.01^2."""
    a, b, c1 = 0.2, 0.6, 1e-4
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    assert ssim(video(a), video(b)) == pytest.approx(expected, rel=1e-4)


def test_ssim_of_unrelated_noise_is_low() -> None:
    assert ssim(video(0, seed=1), video(0, seed=2)) < 0.1


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_wrong_videos(metric: object) -> None:
    assert callable(metric)
    with pytest.raises(ValueError, match="shapes"):
        metric(video(0.5), video(0.5)[:2])
    with pytest.raises(ValueError, match="outside of 0 to 1"):
        metric(video(1.5), video(0.5))
    with pytest.raises(ValueError, match="not finite"):
        metric(video(math.nan), video(0.5))
