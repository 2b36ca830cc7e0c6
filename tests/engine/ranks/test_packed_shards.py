"""Open-Sora 2.0 over ranks with parts of packed tokens, of which the last have no text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

import adacache_kernels as ak
from tests.support.ranks import run_ranks
from tests.support.rounding import close, close_numbers
from tests.support.tiny_models.description import noise
from tests.support.tiny_models.original_parts import CHANNELS, FRAMES, TOKENS
from tests.support.tiny_models.originals import MMDiTModel
from tests.support.tiny_models.sharded_mmdit import ShardedMMDiT

STEPS = 8
WORDS = 6
"""With the 48 tokens of the video, they divide into two and three equal parts."""
CASES: Mapping[str, Any] = {
    "measured": {"codebook": {0.08: 4, 0.2: 3, 1e9: 2}},
    "static": {"schedule": [1, 2, 5]},
    "eight bits": {"codebook": {0.08: 4, 0.2: 3, 1e9: 2}, "cache_dtype": "int8"},
}
Outcome = tuple[Tensor, ak.Summary]


def generate(settings: Mapping[str, Any], *, sharded: bool = True) -> Outcome:
    torch.manual_seed(0)
    model = (ShardedMMDiT(dist.group.WORLD) if sharded else MMDiTModel()).eval()
    model.positions.data = noise(1, WORDS + FRAMES * TOKENS, CHANNELS, seed=9)
    ak.patch(model, num_inference_steps=STEPS, guidance_rows=1, **settings)
    latents, text = noise(1, FRAMES * TOKENS, 16, seed=5), noise(1, WORDS, CHANNELS, seed=6)
    with torch.no_grad():
        for step in range(STEPS):
            with ak.cache_context("all", step_index=step, num_inference_steps=STEPS):
                prediction = model(latents, text, torch.full((1,), 900.0 - 60 * step))
            latents = latents - 0.05 * prediction
    return latents, ak.summary(model)


def all_on_rank() -> dict[str, Outcome]:
    return {name: generate(settings) for name, settings in CASES.items()}


@pytest.fixture(scope="module", params=[2, 3])
def on_ranks(request: pytest.FixtureRequest) -> list[dict[str, Outcome]]:
    """Return the outcomes of all cases, on each rank."""
    return run_ranks(request.param, all_on_rank)


@pytest.mark.parametrize("name", CASES)
def test_ranks_are_equal_to_one_process(name: str, on_ranks: list[dict[str, Outcome]]) -> None:
    expected, summary = generate(CASES[name], sharded=False)
    assert summary.reused_steps
    first = on_ranks[0][name]
    for of_rank in on_ranks:
        found, of_one = of_rank[name]
        assert of_one.computed_steps == summary.computed_steps
        assert close_numbers(of_one.distances, summary.distances)
        assert close(found, expected)
        assert torch.equal(found, first[0])
        assert of_one.distances == first[1].distances
        assert "with a shard of each video (ColossalAI's" in of_one.found
