"""Writes into the streams of two interleaved lists, against an oracle with one residual a block."""

from __future__ import annotations

from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from adacache_kernels.models import ADAPTERS, Adapter, BlockList, Layout, Residual, Stream
from adacache_kernels.models.frames import Frames
from tests.support.oracles.block_residual import stored_blocks
from tests.support.oracles.two_residuals_per_block import relative
from tests.support.tiny_models.description import noise

STEPS, SCHEDULE, LATER = 8, [1, 4, 7], [1, 2, 4, 7]
FRAMES, TOKENS, CHANNELS = 3, 4, 8
WITH_AND_WITHOUT = pytest.mark.parametrize(
    "inference", [False, True], ids=["versions", "inference"]
)
STREAM = (Stream("x"),)
ADAPTER = Adapter(
    lists=(
        BlockList("spatial", STREAM, Layout.FRAMES_IN_BATCH, interleaved_with_next=True),
        BlockList("temporal", STREAM, Layout.TOKENS_IN_BATCH),
    ),
    residuals={"block": Residual(("spatial", "temporal"))},
    frames=Frames(lambda model, arguments: (arguments["x"].shape[0], FRAMES), ("x",)),
)
STRUCTURE: Any = SimpleNamespace(lists=("spatial", "temporal"), streams=("x",), streams_of={})


class Block(nn.Module):
    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.body, self.in_place = nn.Linear(CHANNELS, CHANNELS), in_place

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        change = torch.tanh(self.body(x)) * t
        return x.add_(change) if self.in_place else x + change


class Alternating(nn.Module):
    """A model of the structure of Latte.

    Args:
        in_place: the lists whose blocks write into their input.
        hint_after: the list after whose second block a hint is added.
        images: whether the temporal blocks are left out, as for single images.
        adds_in_place: whether the embedding of frames is added to what left the first block.
    """

    def __init__(
        self,
        *,
        in_place: Collection[str] = (),
        hint_after: str = "",
        images: bool = False,
        adds_in_place: bool = False,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Linear(4, CHANNELS), nn.Linear(CHANNELS, 4)
        for name in ("spatial", "temporal"):
            blocks = [Block(in_place=name in in_place) for _ in range(3)]
            setattr(self, name, nn.ModuleList(blocks))
        self.hint_after, self.images, self.adds_in_place = hint_after, images, adds_in_place
        self.eval()

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        batch, t = x.shape[0], timestep / 1000
        x = self.embed(x).view(batch * FRAMES, TOKENS, CHANNELS)
        for index, (first, second) in enumerate(zip(self.spatial, self.temporal, strict=True)):
            x = first(x, t)
            self._hint(x, "spatial", index)
            if self.images:
                continue
            if index == 0:
                x = x.add_(0.5) if self.adds_in_place else x + 0.5
            x = x.view(batch, FRAMES, TOKENS, CHANNELS).transpose(1, 2).flatten(0, 1)
            x = second(x, t)
            self._hint(x, "temporal", index)
            x = x.view(batch, TOKENS, FRAMES, CHANNELS).transpose(1, 2).flatten(0, 1)
        output: Tensor = self.head(x).view(batch, FRAMES * TOKENS, 4)
        return output

    def _hint(self, x: Tensor, name: str, index: int) -> None:
        if (self.hint_after, index) == (name, 1):
            x.add_(noise(1, 1, CHANNELS, seed=7))


def generate(model: nn.Module, inference: bool) -> list[Tensor]:
    latents, trajectory = noise(2, FRAMES * TOKENS, 4), []
    with torch.inference_mode() if inference else torch.no_grad():
        for step in range(1, STEPS + 1):
            latents = latents - 0.05 * model(latents, torch.tensor(930.0 - 30 * step))
            trajectory.append(latents)
    return trajectory


def expected(model: nn.Module, computed: Collection[int]) -> list[Tensor]:
    now, latents, trajectory = [0], noise(2, FRAMES * TOKENS, 4), []
    with stored_blocks(STRUCTURE, model, lambda: now[0] in computed), torch.no_grad():
        for step in range(1, STEPS + 1):
            now[0] = step
            latents = latents - 0.05 * model(latents, torch.tensor(930.0 - 30 * step))
            trajectory.append(latents)
    return trajectory


def check(
    monkeypatch: pytest.MonkeyPatch, inference: bool, computed: list[int], **model: Any
) -> None:
    """Compare with the oracle; within 1e-5: rounding only, and a wrong residual gives 1e-2."""
    monkeypatch.setitem(ADAPTERS, "Alternating", ADAPTER)
    patched = Alternating(**model)
    ak.patch(patched, num_inference_steps=STEPS, schedule=SCHEDULE)
    found, summary = generate(patched, inference), ak.summary(patched)
    ak.unpatch(patched)
    assert summary.computed_steps == computed
    assert max(map(relative, found, expected(patched, computed))) < 1e-5


@WITH_AND_WITHOUT
@pytest.mark.parametrize("images", [False, True])
def test_no_writes(images: bool, inference: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    check(monkeypatch, inference, SCHEDULE, images=images)


@pytest.mark.filterwarnings("ignore::adacache_kernels.AdaCacheWarning")
@WITH_AND_WITHOUT
@pytest.mark.parametrize("images", [False, True])
def test_blocks_in_place_are_cached(
    images: bool, inference: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(monkeypatch, inference, LATER, images=images, in_place=("spatial", "temporal"))


@WITH_AND_WITHOUT
def test_temporal_blocks_in_place_change_nothing(
    inference: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The streams that enter them are used before they run."""
    check(monkeypatch, inference, SCHEDULE, in_place=("temporal",))


@pytest.mark.filterwarnings("ignore::adacache_kernels.AdaCacheWarning")
@WITH_AND_WITHOUT
def test_an_embedding_that_is_added_in_place(
    inference: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(monkeypatch, inference, LATER, adds_in_place=True)


@WITH_AND_WITHOUT
@pytest.mark.parametrize(
    "hint_after, images", [("spatial", False), ("temporal", False), ("spatial", True)]
)
def test_a_hint_between_the_blocks_is_refused(
    hint_after: str, images: bool, inference: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lists share one residual and cannot be cut, so every step is computed."""
    every = list(range(1, STEPS + 1))
    with pytest.warns(ak.AdaCacheWarning, match="alternate with those of another list"):
        check(monkeypatch, inference, every, images=images, hint_after=hint_after)
