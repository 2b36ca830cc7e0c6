"""The authors' code for STDiT3 as a plain loop: two caches per block, one schedule for all blocks.

It has the authors' order of operations, and nothing of the package.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from tests.support.tiny_models.original_stdit3 import STDiT3Block

MEASURED = {
    "t-attn": ("temporal_blocks",),
    "s-attn": ("spatial_blocks",),
    "ca-mlp": ("spatial_blocks", "temporal_blocks"),
}


@dataclass(frozen=True)
class Settings:
    """The arguments of the authors' model, with their names."""

    num_sampling_steps: int
    codebook: dict[float, int]
    cache_res: str = "t-attn"
    cache_loc: tuple[int, ...] = (13,)
    apply_moreg: bool = False
    moreg_strides: tuple[int, ...] = (1,)
    moreg_steps: tuple[int, int] = (10, 90)
    moreg_hyp: tuple[float, ...] = (0.385, 8, 1, 2)
    mograd_mul: float = 10


@dataclass
class Official:
    """The authors' decisions, made on the host.

    The distance to the stored residual is divided by the current rate, not by the number of steps
    since. These differ if steps N - 1 and N come before they are due; they decide nothing there.
    """

    settings: Settings
    computed: list[int] = field(default_factory=list)
    distances: dict[int, float] = field(default_factory=dict)
    magnitudes: dict[int, float] = field(default_factory=dict)
    """By step, the magnitude of the terms of the distance, to which its rounding is relative."""
    scores: dict[int, float] = field(default_factory=dict)
    rates: dict[int, int] = field(default_factory=dict)
    rate: int = 1
    previous_scores: dict[str, float] = field(default_factory=dict)
    """By block. Never reset, as in the released code."""

    def begin_video(self) -> None:
        self.computed, self.distances, self.magnitudes = [], {}, {}
        self.scores, self.rates = {}, {}
        self.rate, self.step, self.is_computing = 1, 0, False

    def begin_step(self) -> None:
        self.step += 1
        last = self.settings.num_sampling_steps
        before = self.computed[-1] if self.computed else 0
        self.is_computing = (
            self.step == before + self.rate or self.step == 1 or self.step >= last - 1
        )
        self.new_rate, self.average, self.count = self.rate, 0.0, 0

    def end_step(self) -> None:
        if self.is_computing:
            self.computed.append(self.step)
        self.rate = self.new_rate

    def measure(self, block: str, cached: Tensor, residual: Tensor, tokens: int) -> None:
        """Measure a metric block's residual; `cached` is that of its last computed step."""
        distance = _l1(cached - residual) / _l1(cached) / self.rate
        self.average = (distance + self.count * self.average) / (self.count + 1)
        self.count += 1
        score = factor = most = 1.0
        if self.settings.apply_moreg:
            score, before = self._score(residual, tokens), self.previous_scores.get(block, 1.0)
            self.previous_scores[block] = score
            gradient = self.settings.mograd_mul / self.rate * (score - before)
            factor = score + abs(gradient)
            most = score + self.settings.mograd_mul / self.rate * (score + before)
        self.scores[self.step] = score
        self.magnitudes[self.step] = self.average * most
        self.distances[self.step] = self.average * factor
        self.new_rate = self.rates[self.step] = self._look_up(self.average * factor)

    def _score(self, residual: Tensor, tokens: int) -> float:
        first, last = self.settings.moreg_steps
        if not first <= self.step <= last:
            return 1.0
        motions = []
        for stride in self.settings.moreg_strides:
            later, earlier = residual[:, stride * tokens :], residual[:, : -stride * tokens]
            motions.append(_l1(later - earlier) / (_l1(later) + _l1(earlier)))
        a, b, d, *_ = self.settings.moreg_hyp
        return (sum(motions) / len(motions) / a) ** b / d

    def _look_up(self, distance: float) -> int:
        thresholds, rates = zip(*self.settings.codebook.items(), strict=True)
        below = (rates[index] for index in range(5) if distance < thresholds[index])
        return int(next(below, rates[-1]))


def _l1(x: Tensor) -> float:
    return float(x.double().abs().sum())


class OfficialBlock:
    """A block's forward with its two caches."""

    def __init__(self, official: Official, block: STDiT3Block, name: str, index: int) -> None:
        self.official, self.block, self.name = official, block, name
        settings = official.settings
        self.measures = name in MEASURED[settings.cache_res] and index in settings.cache_loc
        self.caches: dict[str, Tensor] = {}

    def __call__(
        self, x: Tensor, y: Tensor, t: Tensor, ada_dict: Any, mask: Any, x_mask: Any, t0: Any,
        T: int, S: int,
    ) -> tuple[Tensor, Any]:  # fmt: skip
        when = (t, x_mask, t0, T, S)
        if self.official.is_computing:
            self.store("attn", self.block.attention(x, when), S)
        x = x + self.caches["attn"]
        if self.official.is_computing:
            cross, gated = self.block.rest(x, y, when)
            x = x + cross + gated
            self.store("ca-mlp", cross + gated, S)
        else:
            x = x + self.caches["ca-mlp"]
        return x, ada_dict

    def store(self, name: str, residual: Tensor, tokens: int) -> None:
        cached = self.caches.get(name)
        if cached is not None and self.measures and self.official.settings.cache_res.endswith(name):
            self.official.measure(f"{self.name}[{id(self.block)}]", cached, residual, tokens)
        self.caches[name] = residual


@contextmanager
def installed(official: Official, model: Any) -> Iterator[None]:
    """Put the authors' caches into the blocks of an unpatched tiny model, for one video."""
    blocks: Sequence[tuple[str, int, nn.Module]] = [
        (name, index, block)
        for name in ("spatial_blocks", "temporal_blocks")
        for index, block in enumerate(getattr(model, name))
    ]
    official.begin_video()
    hooks = (
        model.register_forward_pre_hook(lambda *_: official.begin_step()),
        model.register_forward_hook(lambda *_: official.end_step()),
    )
    for name, index, block in blocks:
        block.forward = OfficialBlock(official, block, name, index)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for *_, block in blocks:
            del block.forward


def expected_run(official: Official, model: nn.Module, run: Any) -> list[Tensor]:
    """Return what `run(model)` returns with the authors' caches."""
    with installed(official, model):
        outputs: list[Tensor] = run(model)
    return outputs


def in_time(official: Official) -> list[int]:
    """Return the computed steps that came when they were due, so that k is the rate."""
    steps, rate = official.computed, 1
    due = []
    for before, step in itertools.pairwise(steps):
        if step - before == rate:
            due.append(step)
        rate = official.rates[step]
    return due
