"""Two transformers that share the steps of one generation, as in Wan 2.2."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import adacache_kernels as ak
from adacache_kernels.api.target import attached_engine
from tests.support.oracles.two_residuals_per_block import relative, two_residuals
from tests.support.tiny_models.common_models import TINY
from tests.support.tiny_pipelines.two_experts import NAMES, STEPS, by_expert, experts, run

LISTS = TINY["wan"].lists


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_rate_1_is_bit_equal(guidance: float) -> None:
    pipe = experts()
    plain = run(pipe, guidance=guidance)
    ak.patch(pipe, codebook={1.0: 1})
    assert torch.equal(run(pipe, guidance=guidance), plain)
    first, second = by_expert(pipe)
    assert first and second and [*first, *second] == list(range(1, STEPS + 1))
    ak.unpatch(pipe)
    assert not ak.is_patched(pipe)
    assert torch.equal(run(pipe, guidance=guidance), plain)
    assert all("forward" not in vars(getattr(pipe, name)) for name in NAMES)
    assert "step" not in vars(pipe.scheduler)


@pytest.mark.parametrize("config", ["fast", "forecast"])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_each_expert_begins_with_nothing_and_reuses_its_own(config: str, guidance: float) -> None:
    pipe = ak.patch(experts(), config, codebook={1e9: 3})
    video = run(pipe, guidance=guidance)
    summary, (first, second) = ak.summary(pipe), by_expert(pipe)
    assert sorted([*summary.computed_steps, *summary.reused_steps]) == list(range(1, STEPS + 1))
    assert {1, second[0], STEPS - 1, STEPS} <= set(summary.computed_steps)
    for own, name in ((first, "transformer"), (second, "transformer_2")):
        reused = ak.summary(getattr(pipe, name)).reused_steps
        assert len(reused) >= 2 and set(reused) <= set(own)
        assert min(reused) > own[0], "the first step of each has nothing to reuse"
    assert len(summary.rates) == len(summary.distances) == len(summary.computed_steps)
    assert torch.equal(run(pipe, guidance=guidance), video), "the next generation does the same"
    assert ak.summary(pipe).computed_steps == summary.computed_steps


def test_reuse_is_that_of_the_oracle_in_both() -> None:
    """Within 1e-5: float32 sums in another order, over 16 steps."""
    pipe = ak.patch(experts(), codebook={1e9: 3})
    video, computed = run(pipe, guidance=1.0), set(ak.summary(pipe).computed_steps)
    ak.unpatch(pipe)
    now = [1]

    def count(_pipe: Any, step: int, _timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        now[0] = step + 2
        return kwargs

    def computing() -> bool:
        return now[0] in computed

    with (
        two_residuals("wan", pipe.transformer, LISTS, computing),
        two_residuals("wan", pipe.transformer_2, LISTS, computing),
    ):
        expected = run(pipe, guidance=1.0, callback_on_step_end=count)
    plain = run(pipe, guidance=1.0)
    assert relative(video, expected) < 1e-5 < 1e-3 < relative(video, plain)


def test_one_arena_and_one_budget_for_both() -> None:
    pipe = ak.patch(experts(), codebook={1e9: 3})
    run(pipe)
    memories = [attached_engine(getattr(pipe, name))._memory for name in NAMES]
    arena = memories[0].arena
    assert arena is not None and arena is memories[1].arena
    summary = ak.summary(pipe)
    parts = [ak.summary(getattr(pipe, name)).cache_bytes for name in NAMES]
    assert summary.cache_bytes == sum(parts) and min(parts) > 0
    assert summary.memory.arena is not None and summary.memory.arena.leases == 2
    ak.unpatch(pipe)
    assert arena.stats().mapped == 0
    ak.patch(pipe, codebook={1e9: 3}, max_cache_bytes=arena_bytes(summary) * 3 // 4)
    with pytest.raises(ak.CacheBudgetError, match="does not fit"):
        run(pipe)


def arena_bytes(summary: ak.Summary) -> int:
    assert summary.memory.arena is not None
    return summary.memory.arena.mapped


def test_an_aborted_run_is_forgotten_by_both() -> None:
    pipe = ak.patch(experts(), codebook={1e9: 3})
    video = run(pipe)

    def stop(_pipe: Any, step: int, _timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        if step == 11:
            raise KeyboardInterrupt
        return kwargs

    with pytest.raises(KeyboardInterrupt):
        run(pipe, callback_on_step_end=stop)
    assert torch.equal(run(pipe), video)


def test_a_second_expert_without_a_step() -> None:
    """No timestep is below the boundary, so the second expert never runs."""
    pipe = ak.patch(experts(boundary=0.0001), codebook={1e9: 3})
    run(pipe)
    first, second = by_expert(pipe)
    assert first == list(range(1, STEPS + 1)) and second == []
    assert ak.summary(pipe).computed_steps == ak.summary(pipe.transformer).computed_steps


def test_a_failed_patch_leaves_both_alone() -> None:
    pipe = experts()
    ak.patch(pipe.transformer_2, num_inference_steps=STEPS)
    with pytest.raises(ValueError, match="patched already"):
        ak.patch(pipe)
    assert "forward" not in vars(pipe.transformer)
    assert "step" not in vars(pipe.scheduler)


def test_there_is_no_single_engine() -> None:
    pipe = ak.patch(experts())
    with pytest.raises(ValueError, match="has 2 transformers; name one"):
        attached_engine(pipe)
