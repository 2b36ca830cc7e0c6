"""Models of diffusers under its own context parallelism, against one process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig
from diffusers.models import attention_dispatch
from torch import Tensor, nn
from torch.distributed import _functional_collectives as functional

import adacache_kernels as ak
from adacache_kernels.engine.ranks.collective_watch import CollectiveWatch
from tests.engine.ranks import latte_shards
from tests.support.ranks import run_ranks
from tests.support.rounding import close, close_numbers
from tests.support.tiny_models.chained_models import IMAGES, VIDEOS
from tests.support.tiny_models.common_models import TINY

STEPS = 8
MEASURED: Mapping[str, Any] = {"codebook": {0.02: 4, 0.2: 3, 10.0: 2}}
MOTION: Mapping[str, Any] = {
    "codebook": {0.02: 4, 0.5: 3, 1e9: 2},
    "apply_moreg": True,
    "moreg_steps": (1, 6),
}
STATIC: Mapping[str, Any] = {"schedule": [1, 2, 5]}
OURS = "c10d._allgather_base_.default"
NO_MESSAGE = ("wait_tensor", "_wrap_tensor")
"""Parts of the names of operators that send nothing."""
BOUNDARY = "c10d.alltoall_base_.default"


@dataclass
class Case:
    """One generation.

    Args:
        model: name of a tiny model.
        settings: those of `patch`; None: unpatched.
        parallel: arguments of `ContextParallelConfig`; empty: one process.
        patch_first: whether `patch` comes before `enable_parallelism`.
        batch: videos in a batch.
    """

    model: str
    settings: Mapping[str, Any] | None
    parallel: Mapping[str, Any]
    patch_first: bool = False
    batch: int = 1


@dataclass
class Outcome:
    """The latents at the end, the collectives of each step, and the summary."""

    latents: Tensor
    collectives: list[list[str]]
    summary: ak.Summary | None


class Watch(CollectiveWatch):
    """A watch that stores every collective, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, and store its name if it is a collective."""
        output = super().__torch_dispatch__(func, types, args, kwargs)
        name = str(func)
        if name in self.seen and not any(part in name for part in NO_MESSAGE):
            self.calls.append(name)
        return output


def without_mask(latents: Tensor, step: int) -> dict[str, Any]:
    # diffusers 0.42 repeats the mask for all heads, of which a rank has a part, and fails.
    return {**VIDEOS["ltx"].inputs(latents, step), "encoder_attention_mask": None}


MODELS: Mapping[str, Any] = {
    **TINY,
    **IMAGES,
    "ltx": replace(VIDEOS["ltx"], inputs=without_mask),
}


def generate(case: Case) -> Outcome:
    """Run one generation on this rank."""
    torch.manual_seed(0)
    tiny = MODELS[case.model]
    model = tiny.build().eval()
    settings = None if case.settings is None else {**case.settings, "num_inference_steps": STEPS}
    if settings is not None and case.patch_first:
        ak.patch(model, **settings)
    if case.parallel and case.model == "latte":
        latte_shards.split(model)
    elif case.parallel:
        model.enable_parallelism(config=ContextParallelConfig(**case.parallel))
    if settings is not None and not case.patch_first:
        ak.patch(model, **settings)
    shape = tiny.latents if case.model not in TINY else (case.batch, *tiny.latents)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    collectives = []
    with torch.no_grad():
        for step in range(STEPS):
            with Watch() as watch, named(step):
                latents = latents - 0.05 * tiny.call(model, latents, step + 1)
            collectives.append(watch.calls)
    return Outcome(latents, collectives, None if settings is None else ak.summary(model))


def named(step: int) -> Any:
    return ak.cache_context("cond", step_index=step, num_inference_steps=STEPS)


def all_of(cases: list[Case]) -> list[Outcome]:
    attention_dispatch.TemplatedRingAttention = WholeKeys
    return [generate(case) for case in cases]


class WholeKeys:
    """Ring attention with the keys and values of all ranks at once.

    diffusers' own needs an attention that returns its log-sum-exp, which torch does not have on a
    CPU. The shards that the blocks get are the same.
    """

    @staticmethod
    def apply(query: Tensor, key: Tensor, value: Tensor, *_others: Any) -> Tensor:
        """Return the attention `[B, S, H, D]` of this rank's queries to all keys."""
        whole = [
            functional.all_gather_tensor(x.contiguous(), 1, dist.group.WORLD) for x in (key, value)
        ]
        by_head = [x.permute(0, 2, 1, 3) for x in (query, *whole)]
        return torch.nn.functional.scaled_dot_product_attention(*by_head).permute(0, 2, 1, 3)


ULYSSES = {"ulysses_degree": 2}
RING = {"ring_degree": 2}
ANYTHING = {"ulysses_degree": 2, "ulysses_anything": True}
CASES = {
    "wan": Case("wan", MEASURED, ULYSSES),
    "wan, patched first": Case("wan", MEASURED, ULYSSES, patch_first=True),
    "wan, static": Case("wan", STATIC, ULYSSES),
    "wan, motion": Case("wan", MOTION, ULYSSES),
    "wan, uneven shards": Case("wan", MEASURED, ANYTHING),
    "wan, two videos": Case("wan", MEASURED, ULYSSES, batch=2),
    "wan, forecast error": Case(
        "wan",
        {"codebook": {0.05: 3, 10.0: 2}, "forecast": 1, "measure": "forecast-error"},
        ULYSSES,
    ),
    "wan, eight bits": Case("wan", {**MEASURED, "cache_dtype": "int8"}, ULYSSES),
    "wan, ring": Case("wan", MEASURED, RING),
    "qwen": Case("qwen", MEASURED, ULYSSES),
    "flux": Case("flux", MEASURED, ULYSSES),
    "flux, patched first": Case("flux", MEASURED, ULYSSES, patch_first=True),
    "latte": Case("latte", MEASURED, ULYSSES),
    "latte, motion": Case("latte", {**MOTION, "moreg_strides": (1, 2)}, ULYSSES),
    "latte, static": Case("latte", STATIC, ULYSSES, patch_first=True),
    "ltx": Case("ltx", MEASURED, ULYSSES),
    "ltx, motion": Case("ltx", MOTION, ULYSSES),
}


@pytest.fixture(scope="module")
def on_ranks() -> dict[str, list[Outcome]]:
    """Return the outcomes of all cases on two ranks, by case."""
    by_rank = run_ranks(2, all_of, list(CASES.values()))
    return {name: [of_rank[i] for of_rank in by_rank] for i, name in enumerate(CASES)}


def alone(case: Case) -> Outcome:
    """Return the outcome of a case in this process alone."""
    return generate(Case(case.model, case.settings, {}, batch=case.batch))


@pytest.mark.parametrize("name", CASES)
def test_the_video_and_its_schedule_are_those_of_one_process(
    name: str, on_ranks: dict[str, list[Outcome]]
) -> None:
    expected = alone(CASES[name])
    assert expected.summary is not None
    assert expected.summary.reused_steps, "the case reuses nothing, so it shows nothing"
    for outcome in on_ranks[name]:
        assert outcome.summary is not None
        assert outcome.summary.computed_steps == expected.summary.computed_steps
        assert close_numbers(outcome.summary.distances, expected.summary.distances)
        assert close_numbers(outcome.summary.motion_scores, expected.summary.motion_scores)
        assert close(outcome.latents, expected.latents)


@pytest.mark.parametrize("name", CASES)
def test_every_rank_has_the_same_bits(name: str, on_ranks: dict[str, list[Outcome]]) -> None:
    first, second = on_ranks[name]
    assert first.summary is not None
    assert second.summary is not None
    assert torch.equal(first.latents, second.latents)
    assert first.summary.distances == second.summary.distances
    assert first.summary.motion_scores == second.summary.motion_scores


@pytest.mark.parametrize("name", CASES)
def test_collectives_of_ours_and_of_the_blocks(
    name: str, on_ranks: dict[str, list[Outcome]]
) -> None:
    for outcome in on_ranks[name]:
        assert outcome.summary is not None
        computed, reused = outcome.summary.computed_steps, outcome.summary.reused_steps
        decided = [rate is not None for rate in outcome.summary.rates]
        assert any(decided) == ("static" not in name)
        ours = [calls.count(OURS) for calls in outcome.collectives]
        # A fixed schedule decides nothing, and neither does the last forecast error.
        assert [ours[step - 1] for step in computed] == [int(decides) for decides in decided]
        assert [ours[step - 1] for step in reused] == [0] * len(reused)
        # The model gathers its output at the end of every step, and its blocks do nothing.
        gathers = {len(outcome.collectives[step - 1]) for step in reused}
        of_the_end = 2 if "uneven" in name else 1
        assert gathers == {of_the_end}
        assert all(len(outcome.collectives[step - 1]) > of_the_end + 2 for step in computed)


def test_motion_is_exchanged_once_a_computed_step_of_its_window(
    on_ranks: dict[str, list[Outcome]],
) -> None:
    for outcome in on_ranks["wan, motion"]:
        assert outcome.summary is not None
        for step in outcome.summary.computed_steps:
            calls = outcome.collectives[step - 1]
            # The first call of a branch is compared with nothing.
            assert calls.count(BOUNDARY) == int(1 < step <= 6)


def test_the_summary_names_the_ranks(on_ranks: dict[str, list[Outcome]]) -> None:
    for outcome in on_ranks["wan"]:
        assert outcome.summary is not None
        expected = "2 ranks with a shard of each video (diffusers' context parallelism)"
        assert outcome.summary.found.endswith(expected)


def graph_mode() -> str:
    model: nn.Module = TINY["wan"].build().eval()
    model.enable_parallelism(config=ContextParallelConfig(**ULYSSES))
    ak.patch(model, num_inference_steps=STEPS, decision="graph")
    with pytest.raises(ValueError, match='decision="graph"') as error, torch.no_grad(), named(0):
        TINY["wan"].call(model, TINY["wan"].noise(), 1)
    ak.unpatch(model)
    dist.barrier()
    return str(error.value)


def test_graph_mode_is_refused() -> None:
    for message in run_ranks(2, graph_mode):
        assert "exchange their sums in every measured step" in message
