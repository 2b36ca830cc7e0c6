"""STDiT3 over ranks that hold some tokens of every frame, as in Open-Sora and VideoSys."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

import adacache_kernels as ak
from adacache_kernels.engine.ranks.shard import padding_on_rank
from adacache_kernels.models.other_libraries.rank_groups import RankGroup
from tests.support.ranks import run_ranks
from tests.support.rounding import close, close_numbers
from tests.support.tiny_models.description import noise
from tests.support.tiny_models.original_parts import CHANNELS, WORDS
from tests.support.tiny_models.original_stdit3 import AuthorsBlock, OpenSoraBlock, VideoSysBlock
from tests.support.tiny_models.sharded_stdit3 import ShardedSTDiT3

STEPS = 8
FRAMES = 6
"""Divisible by two and three ranks, which hold whole frames around the attention in space."""
MOTION: Mapping[str, Any] = {
    "codebook": {0.1: 4, 0.17: 3, 1e9: 2},
    "apply_moreg": True,
    "moreg_strides": [1, 3],
    "moreg_steps": (1, 6),
}
BLOCKS = {"Open-Sora": OpenSoraBlock, "AdaCache": AuthorsBlock, "VideoSys": VideoSysBlock}


@dataclass
class Case:
    """One generation.

    Args:
        library: the library whose groups and blocks it has.
        sharded: whether the frames are cut over the ranks.
        split_rows: whether the two guidance rows are split over the ranks.
        settings: those of `patch`.
    """

    library: str
    sharded: bool = False
    split_rows: bool = False
    settings: Mapping[str, Any] = field(default_factory=lambda: MOTION)


Outcome = tuple[Tensor, ak.Summary]


def imported(name: str, **attributes: Any) -> None:
    module = ModuleType(name)
    vars(module).update(attributes)
    sys.modules[name] = module


def build(case: Case) -> ShardedSTDiT3:
    """Return the model, and set up the groups as the library does."""
    torch.manual_seed(0)
    of_shards = dist.group.WORLD if case.sharded else None
    of_rows = dist.group.WORLD if case.split_rows else None
    model = ShardedSTDiT3(BLOCKS[case.library], of_shards, of_rows).eval()
    if case.library == "VideoSys":
        manager = SimpleNamespace(sp_group=of_shards, cp_group=of_rows)
        model.parallel_manager = manager  # type: ignore[assignment]
        imported("videosys.core.distributed.comm", PAD_DICT={"spatial": model.padding})
    elif case.sharded:
        package = "opensora_base." if case.library == "AdaCache" else ""
        name = f"{package}opensora.acceleration.parallel_states"
        imported(name, get_sequence_parallel_group=lambda: of_shards)
        model.enable_sequence_parallelism = True  # type: ignore[assignment]
    return model


def generate(case: Case) -> Outcome:
    """Run one generation with two guidance rows on this rank."""
    model = build(case)
    ak.patch(model, num_inference_steps=STEPS, **case.settings)
    latents, text = noise(1, 4, FRAMES, 8, 8, seed=5), noise(2, WORDS, CHANNELS, seed=6)
    with torch.no_grad():
        for step in range(STEPS):
            with ak.cache_context("both", step_index=step, num_inference_steps=STEPS):
                timestep = torch.full((2,), 900.0 - 60 * step)
                both = model(torch.cat([latents, latents]), timestep, text)
            latents = latents - 0.05 * both.mean(0, keepdim=True)
    return latents, ak.summary(model)


def all_of(cases: list[Case]) -> list[Outcome]:
    return [generate(case) for case in cases]


CASES = {
    "Open-Sora": Case("Open-Sora", sharded=True),
    "AdaCache": Case("AdaCache", sharded=True),
    "VideoSys": Case("VideoSys", sharded=True),
    "static": Case("VideoSys", sharded=True, settings={"schedule": [1, 2, 5]}),
    "rows": Case("VideoSys", split_rows=True, settings={"schedule": [1, 2, 5]}),
    "rows, measured": Case("VideoSys", split_rows=True),
}
EQUAL = ("Open-Sora", "AdaCache", "VideoSys", "static", "rows")


@pytest.fixture(scope="module")
def on_two() -> dict[str, list[Outcome]]:
    """Return the outcomes of all cases on two ranks, by case."""
    by_rank = run_ranks(2, all_of, list(CASES.values()))
    return {name: [of_rank[i] for of_rank in by_rank] for i, name in enumerate(CASES)}


def assert_equal_to_one_process(outcomes: list[Outcome], case: Case) -> None:
    latents, expected = generate(Case(case.library, settings=case.settings))
    assert expected.reused_steps
    for of_rank, summary in outcomes:
        assert summary.computed_steps == expected.computed_steps
        assert close_numbers(summary.distances, expected.distances)
        assert close_numbers(summary.motion_scores, expected.motion_scores)
        assert close(of_rank, latents)


@pytest.mark.parametrize("name", EQUAL)
def test_two_ranks_are_equal_to_one_process(name: str, on_two: dict[str, list[Outcome]]) -> None:
    assert_equal_to_one_process(on_two[name], CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_ranks_decide_as_one(name: str, on_two: dict[str, list[Outcome]]) -> None:
    (first, of_first), (second, of_second) = on_two[name]
    assert of_first.reused_steps
    assert torch.equal(first, second)
    assert of_first.computed_steps == of_second.computed_steps
    assert of_first.distances == of_second.distances
    assert of_first.motion_scores == of_second.motion_scores


def test_padding_tokens_are_not_measured() -> None:
    """Three ranks have 18 tokens of a frame of 16."""
    case = CASES["VideoSys"]
    assert_equal_to_one_process(run_ranks(3, generate, case), case)


class Group:
    """A process group as far as padding needs it."""

    def __init__(self, rank: int, size: int) -> None:
        self._rank, self._size = rank, size

    def rank(self) -> int:
        return self._rank

    def size(self) -> int:
        return self._size


def test_padding_lies_on_the_last_ranks() -> None:
    # Five tokens on four ranks: two on each, and three of padding.
    found = [padding_on_rank(RankGroup(Group(i, 4), "shards", ""), 3, 2) for i in range(4)]
    assert found == [0, 0, 1, 2]
