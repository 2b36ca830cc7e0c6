"""The schedule of STDiT3 equals that of the authors' code, step for step."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import pytest
from torch import Tensor, nn

import adacache_kernels as ak
from tests.support.oracles.authors_stdit3 import MEASURED, Official, Settings, expected_run, in_time
from tests.support.oracles.two_residuals_per_block import relative
from tests.support.tiny_models.originals import ORIGINALS, Original

STEPS = 30
# The released codebook for 30 steps, another scale of it, and the released one for 100 steps.
CODEBOOKS = {
    "fast": {0.08: 6, 0.16: 5, 0.24: 4, 0.32: 3, 0.40: 2, 1.00: 1},
    "fine": {0.02: 6, 0.03: 5, 0.045: 4, 0.07: 3, 0.11: 2, 1.00: 1},
    "100 steps": {0.03: 12, 0.05: 10, 0.07: 8, 0.09: 6, 0.11: 4, 1.00: 3},
}
PLAIN: dict[str, Any] = {}
# As released; and milder constants, because these models have more motion than real ones.
MOREG: dict[str, Any] = {"apply_moreg": True, "moreg_steps": (4, 26)}
MILD: dict[str, Any] = {**MOREG, "moreg_hyp": (0.6, 2, 1), "moreg_strides": (1, 2)}
VIDEOS = ("STDiT3, AdaCache", "STDiT3, first frame given")


def patched_run(model: nn.Module, settings: Settings, run: Any) -> list[Tensor]:
    """Return the result of `run(model)` with the model patched with the same settings."""
    options = asdict(settings)
    steps, hyp = options.pop("num_sampling_steps"), options.pop("moreg_hyp")
    options["cache_loc"] = list(options["cache_loc"])
    ak.patch(model, num_inference_steps=steps, moreg_hyp=hyp[:3], **options)
    result: list[Tensor] = run(model)
    return result


def denoise(double: Original, seed: int, model: nn.Module) -> list[Tensor]:
    return double.denoise(model, STEPS, seed)


def compare(official: Official, summary: ak.Summary) -> None:
    """Compare steps and rates exactly; distances and scores within 1e-5 for float32 rounding."""
    assert summary.computed_steps == official.computed
    columns = summary.distances, summary.motion_scores, summary.rates
    compared = in_time(official)
    assert len(compared) >= 3
    for step, distance, score, rate in zip(summary.computed_steps, *columns, strict=True):
        if step in compared:
            error = 1e-5 * official.magnitudes[step]
            assert distance == pytest.approx(official.distances[step], abs=error)
            assert score == pytest.approx(official.scores[step], rel=1e-5)
            assert rate == official.rates[step]


def codebook_of(name: str, which: str) -> dict[float, int]:
    """Return a codebook with which several rates occur: ca-mlp changes by less than half."""
    factor = 0.4 if which == "ca-mlp" else 1
    return {factor * threshold: rate for threshold, rate in CODEBOOKS[name].items()}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("moreg", [PLAIN, MOREG, MILD], ids=["plain", "MoReg", "mild MoReg"])
@pytest.mark.parametrize("which", MEASURED)
@pytest.mark.parametrize("codebook", CODEBOOKS)
def test_the_schedule_is_the_authors(
    codebook: str, which: str, moreg: dict[str, Any], seed: int
) -> None:
    double = ORIGINALS[VIDEOS[seed]]
    model, run = double.build(), partial(denoise, double, seed)
    settings = Settings(STEPS, codebook_of(codebook, which), which, (1,), **moreg)
    official = Official(settings)
    expected = expected_run(official, model, run)
    result = patched_run(model, settings, run)
    compare(official, ak.summary(model))
    assert relative(result[-1], expected[-1]) < 1e-5
    assert len(set(official.rates.values())) > 1


@pytest.mark.parametrize("moreg", [PLAIN, MILD], ids=["plain", "MoReg"])
@pytest.mark.parametrize("which", MEASURED)
def test_two_metric_blocks(which: str, moreg: dict[str, Any]) -> None:
    """Distances are averaged; the motion score is that of the last block."""
    double = ORIGINALS["STDiT3, AdaCache"]
    model, run = double.build(), partial(denoise, double, 3)
    settings = Settings(STEPS, codebook_of("fine", which), which, (0, 2), **moreg)
    official = Official(settings)
    expected_run(official, model, run)
    patched_run(model, settings, run)
    compare(official, ak.summary(model))


@pytest.mark.parametrize("window", [(4, 26), (4, 30)])
def test_the_second_video(window: tuple[int, int]) -> None:
    """The first video does not influence the second.

    The authors' code keeps the last motion score of the video before. That is 1 if the window ends
    before step N - 1, as in their settings, so one case has a longer window.
    """
    double = ORIGINALS["STDiT3, AdaCache"]
    model, first, second = double.build(), partial(denoise, double, 4), partial(denoise, double, 5)
    settings = Settings(STEPS, CODEBOOKS["fine"], cache_loc=(1,), **{**MILD, "moreg_steps": window})
    official = Official(settings)
    expected_run(official, model, first)
    (left,) = official.previous_scores.values()
    assert (left == 1) is (window[1] < STEPS - 1)
    official.previous_scores.clear()
    expected_run(official, model, second)
    patched_run(model, settings, first)
    second(model)
    compare(official, ak.summary(model))
