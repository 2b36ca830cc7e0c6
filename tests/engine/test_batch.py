"""Several videos in one batch, with batch="any" and "mean", against a schedule in plain Python.

The latents of every step are fixed, so the residual of a metric block does not depend on the steps
that were computed before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from tests.engine.decision.test_step_graphs import Closures
from tests.support.rounding import close, close_numbers
from tests.support.tiny_models.common_models import TINY, Tiny
from tests.support.tiny_pipelines.latte_and_wan import embeds, latte

STEPS = 20
BOOK = {0.012: 5, 0.025: 4, 0.05: 3, 0.2: 2, 9.0: 1}
MIDDLE = 1
"""Index of the metric block, among three blocks."""
CLOSE = 1e-4
"""The relative error of a distance. In another batch size, a residual in float32 changes by 1e-6.
A distance is the difference of two residuals, and the residuals are at most 100 times larger."""


@dataclass(frozen=True)
class Video:
    """The inputs of the model at every step, with one row for each kind of guidance."""

    tiny: Tiny
    seed: int
    speed: float
    guidance: int = 1

    def latents(self, step: int) -> Tensor:
        """Return waves of different speeds, so that some steps change more than others."""
        start, one, other = (self.tiny.noise(1, self.seed + i) for i in range(3))
        phase = torch.tensor(self.speed * step)
        x = start + phase.sin() * one + (phase / 3).cos() * other
        return x.expand(self.guidance, *x.shape[1:])

    @property
    def text(self) -> Tensor:
        return torch.cat([self.tiny.text(1, self.seed + 50 * i) for i in range(self.guidance)])


def two_videos(name: str, guidance: int = 1) -> list[Video]:
    return [Video(TINY[name], 0, 0.1, guidance), Video(TINY[name], 10, 0.3, guidance)]


def call(model: nn.Module, videos: list[Video], step: int, **options: Any) -> Any:
    """Run one forward: the first guidance rows of all videos, then the second ones."""
    tiny, guidance = videos[0].tiny, videos[0].guidance
    rows = [(video, row) for row in range(guidance) for video in videos]
    arguments: dict[str, Any] = {
        "hidden_states": torch.stack([video.latents(step)[row] for video, row in rows]),
        "encoder_hidden_states": torch.stack([video.text[row] for video, row in rows]),
        "timestep": torch.full((len(rows),), 930 - 30 * step),
        "return_dict": False,
    }
    return model(**arguments | tiny.extra(len(rows)) | options)


def run(model: nn.Module, videos: list[Video], **options: Any) -> list[Tensor]:
    """Run a generation and return the output of each step."""
    with torch.no_grad():
        return [call(model, videos, step, **options)[0] for step in range(1, STEPS + 1)]


def patched(videos: list[Video], **settings: Any) -> nn.Module:
    chosen = {"codebook": BOOK, "cache_res": "block", "num_inference_steps": STEPS} | settings
    if "guidance_rows" not in chosen:
        chosen["guidance_rows"] = videos[0].guidance
    return ak.patch(videos[0].tiny.build(), **chosen)


def residuals(video: Video) -> list[Tensor]:
    """Return the residual `[rows, F, S, C]` of the metric block at each step, for one video."""
    model, found = video.tiny.build(), []

    def note(_block: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        x_in = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        p = (output - x_in).double()
        found.append(p.view(video.guidance, video.tiny.frames, -1, p.shape[-1]))

    block = getattr(model, video.tiny.lists[0])[MIDDLE]
    block.register_forward_hook(note, with_kwargs=True)
    run(model, [video])
    return found


class Replay:
    """The decisions for one batch, in plain Python, from residuals of one video at a time."""

    def __init__(self, videos: list[Video], policy: str, *, moreg: bool = False) -> None:
        self._residuals = [residuals(video) for video in videos]
        self._motions = [1.0] * len(videos)
        self._moreg = moreg
        self.computed: list[int] = []
        self.distances: list[float] = []
        self.rates: list[int] = []
        following = 1
        for step in range(1, STEPS + 1):
            if step < following and step <= STEPS - 2:
                continue
            if self.computed:
                found = [self._distance(v, self.computed[-1], step) for v in range(len(videos))]
                pooled = max(found) if policy == "any" else sum(found) / len(found)
                self.distances.append(pooled)
                self.rates.append(next(rate for limit, rate in BOOK.items() if pooled < limit))
            following = step + (self.rates[-1] if self.rates else 1)
            self.computed.append(step)

    def _distance(self, video: int, before: int, step: int) -> float:
        c, p = self._residuals[video][before - 1], self._residuals[video][step - 1]
        raw = ((c - p).abs().sum() / c.abs().sum()).item() / (step - before)
        if not self._moreg:
            return raw
        score = 1.0
        if 3 <= step <= 15:
            later, earlier = p[:, 1:], p[:, :-1]
            sizes = later.abs().sum() + earlier.abs().sum()
            score = ((later - earlier).abs().sum() / sizes).item() ** 2 / 0.25
        gradient = 10 * (score - self._motions[video]) / (step - before)
        self._motions[video] = score
        return raw * (score + abs(gradient))

    def assert_clear(self) -> None:
        """Check that no distance is so close to a threshold that rounding could change the rate."""
        for distance, limit in product(self.distances, BOOK):
            assert abs(distance - limit) > 10 * CLOSE * limit


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


def distances(videos: list[Video], **settings: Any) -> list[float]:
    """Return the distances of a generation that computes every step."""
    model = patched(videos, codebook={9.0: 1}, **settings)
    run(model, videos)
    return [d for d in ak.summary(model).distances if d is not None]


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


def generate(pipe: Any, which: list[int], guidance_scale: float, steps: int = 6) -> Tensor:
    """Generate the videos with these numbers in one batch of a Latte pipeline."""
    frames: Tensor = pipe(
        prompt=None,
        negative_prompt=None,
        prompt_embeds=torch.cat([embeds(8, 1 + v) for v in which]),
        negative_prompt_embeds=torch.cat([embeds(8, 11 + v) for v in which]),
        latents=torch.cat([TINY["latte"].noise(1, v) * (1 + v) for v in which]),
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        output_type="latent",
        video_length=4,
        height=64,
        width=64,
    ).frames
    return frames


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


@pytest.fixture
def capture(monkeypatch: pytest.MonkeyPatch) -> Iterator[Closures]:
    made = Closures()
    monkeypatch.setattr(
        "adacache_kernels.engine.decision.step_graphs.make_capture", lambda device: made
    )
    yield made


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
