"""Several videos in one batch, with batch="any" and "mean", against a schedule in plain Python.

The latents of every step are fixed, so the residual of a metric block does not depend on the steps
that were computed before.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

import adacache_kernels as ak
from tests.engine.batched_videos import (
    BOOK,
    CLOSE,
    STEPS,
    Replay,
    Video,
    call,
    distances,
    generate,
    patched,
    run,
    two_videos,
)
from tests.support.graph_closures import Closures
from tests.support.rounding import close, close_numbers
from tests.support.tiny_models.common_models import TINY
from tests.support.tiny_pipelines.latte_and_wan import latte

MOREG = {"apply_moreg": True, "moreg_steps": (3, 15), "moreg_hyp": (1.0, 2.0, 0.25)}


@pytest.mark.parametrize("policy", ["any", "mean"])
@pytest.mark.parametrize("guidance", [1, 2])
@pytest.mark.parametrize("name", ["wan", "allegro"])
@pytest.mark.parametrize("moreg", [False, True])
def test_a_batch_decides_step_by_step(name: str, guidance: int, policy: str, moreg: bool) -> None:
    videos = two_videos(name, guidance)
    model = patched(videos, batch=policy, **(MOREG if moreg else {}))
    run(model, videos)
    found, expected = ak.summary(model), Replay(videos, policy, moreg=moreg)
    expected.assert_clear()
    assert found.computed_steps == expected.computed
    assert found.distances[1:] == pytest.approx(expected.distances, rel=CLOSE)
    assert found.rates[1:] == expected.rates
    assert 5 < len(expected.computed) < STEPS


def test_any_takes_the_smallest_rate_of_the_videos() -> None:
    """The policy "mean" does wait longer for these videos, so the test can fail."""
    videos = two_videos("wan")
    model = patched(videos)
    run(model, videos)
    found = ak.summary(model)
    pairs = zip(found.computed_steps, found.computed_steps[1:], strict=False)
    alone = [Replay([video], "any") for video in videos]
    for (before, step), rate in zip(pairs, found.rates[1:], strict=True):
        wanted = [each._distance(0, before, step) for each in alone]
        rates = [next(r for limit, r in BOOK.items() if distance < limit) for distance in wanted]
        assert rate == min(rates)
    assert alone[0].computed != found.computed_steps
    assert Replay(videos, "mean").computed != found.computed_steps


@pytest.mark.parametrize("guidance", [1, 2])
@pytest.mark.parametrize("moreg", [False, True])
def test_all_policies_agree_on_one_video(guidance: int, moreg: bool) -> None:
    videos = two_videos("wan", guidance)[1:]
    summaries, outputs = [], []
    for policy in ("any", "mean", "each"):
        model = patched(videos, batch=policy, **(MOREG if moreg else {}))
        outputs.append(torch.stack(run(model, videos)))
        summaries.append(ak.summary(model))
    for summary, output in zip(summaries, outputs, strict=True):
        assert summary.computed_steps == summaries[0].computed_steps
        assert close_numbers(summary.distances, summaries[0].distances)
        assert not summary.videos
        assert close(output, outputs[0])
    assert summaries[0].reused_steps


def test_guidance_rows_of_a_bare_model() -> None:
    """The default is two if guidance runs in one call, as with Allegro, and one as with Wan."""
    for name, by_default in (("allegro", 2), ("wan", 1)):
        videos = two_videos(name)
        default, one, two = (distances(videos, guidance_rows=rows) for rows in (None, 1, 2))
        assert close_numbers(default, one if by_default == 1 else two)
        assert not close_numbers(one, two)
    three = [*two_videos("allegro"), Video(TINY["allegro"], 20, 0.2)]
    assert close_numbers(distances(three, guidance_rows=None), distances(three, guidance_rows=1))


def test_two_calls_a_step_have_no_guidance_rows() -> None:
    videos = two_videos("allegro")
    model = patched(videos, codebook={9.0: 1}, guidance_rows=None, calls_per_step=2)
    with torch.no_grad():
        for step in range(1, STEPS + 1):
            call(model, videos, step)
            call(model, videos, step)
    found = [d for d in ak.summary(model).distances if d is not None]
    assert close_numbers(found, distances(videos, guidance_rows=1))


def test_rows_that_do_not_divide_the_batch() -> None:
    videos = two_videos("wan")
    model = patched(videos, guidance_rows=3)
    with pytest.raises(ValueError, match="guidance_rows=3: the batch has 2 rows"):
        run(model, videos)


@pytest.mark.parametrize("guidance_scale", [4.0, 1.0])
def test_a_pipeline_reports_its_guidance_rows(guidance_scale: float) -> None:
    """The distance of two prompts in one batch is the larger of their two distances."""

    def measured(which: list[int], **settings: Any) -> list[float]:
        pipe = ak.patch(latte(), codebook={9.0: 1}, **settings)
        generate(pipe, which, guidance_scale)
        return [d for d in ak.summary(pipe).distances if d is not None]

    first, second = measured([0]), measured([1])
    together = measured([0, 1])
    assert together == pytest.approx([max(d) for d in zip(first, second, strict=True)], rel=CLOSE)
    assert first != pytest.approx(second, rel=0.01)
    # The setting overrides the pipeline.
    pooled = measured([0, 1], guidance_rows=4 if guidance_scale > 1 else 2)
    assert pooled != pytest.approx(together, rel=10 * CLOSE)


@pytest.mark.parametrize("policy", ["any", "mean", "each"])
def test_the_device_decides_the_same_in_a_graph(capture: Closures, policy: str) -> None:
    """The second generation shows that the motion scores of both videos are reset."""
    videos = two_videos("wan")
    by_host = patched(videos, batch=policy, decision="sync", **MOREG)
    by_device = patched(videos, batch=policy, decision="graph", **MOREG)
    for _ in range(2):
        expected, found = run(by_host, videos), run(by_device, videos)
        on_host, on_device = ak.summary(by_host), ak.summary(by_device)
        assert on_device.computed_steps == on_host.computed_steps
        assert close_numbers(on_device.distances, on_host.distances)
        assert close(found, expected)
    assert "otherwise" in capture.launched


def test_motion_scores_are_reset_with_each_generation_and_number_of_videos() -> None:
    videos = [*two_videos("wan"), Video(TINY["wan"], 20, 0.2)]
    # The window reaches the last step, so a score that is not reset would show.
    moreg = MOREG | {"moreg_steps": (1, STEPS)}
    model = patched(videos, **moreg)
    for count in (2, 3, 2, 1):
        run(model, videos[:count])
        again = patched(videos, **moreg)
        run(again, videos[:count])
        assert close_numbers(ak.summary(model).distances, ak.summary(again).distances)
