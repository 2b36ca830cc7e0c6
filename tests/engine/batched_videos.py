"""Several videos in one batch, with fixed latents, and their decisions in plain Python."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

import adacache_kernels as ak
from tests.support.tiny_models.common_models import TINY, Tiny
from tests.support.tiny_pipelines.latte_and_wan import embeds

STEPS = 20
BOOK = {0.012: 5, 0.025: 4, 0.05: 3, 0.2: 2, 9.0: 1}
MIDDLE = 1  # Index of the metric block, among three blocks.


# The relative error of a distance. In another batch size, a residual in float32 changes by 1e-6.
# A distance is the difference of two residuals, and the residuals are at most 100 times larger.
CLOSE = 1e-4


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


def distances(videos: list[Video], **settings: Any) -> list[float]:
    """Return the distances of a generation that computes every step."""
    model = patched(videos, codebook={9.0: 1}, **settings)
    run(model, videos)
    return [d for d in ak.summary(model).distances if d is not None]


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
