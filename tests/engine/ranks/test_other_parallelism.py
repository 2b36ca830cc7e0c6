"""Models that are spread over ranks otherwise than by context parallelism, against one process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import adacache_kernels as ak
from tests.support.ranks import run_ranks
from tests.support.rounding import close, close_numbers
from tests.support.tiny_models.common_models import TINY

STEPS = 8
WAN = TINY["wan"]
MEASURED: Mapping[str, Any] = {"codebook": {0.15: 4, 10.0: 2}}
XDIT = "xfuser.core.distributed.parallel_state"


@dataclass
class Outcome:
    """The latents at the end, the number of gathers of ours, and the summary."""

    latents: Tensor
    gathers: int
    summary: ak.Summary


def imported(name: str, **attributes: Any) -> None:
    """Make a module with these attributes look imported, in this process."""
    module = ModuleType(name)
    vars(module).update(attributes)
    sys.modules[name] = module


class CountedGathers:
    """Count the gathers of sums; those of FSDP have one dimension."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> CountedGathers:
        self._name = "all_gather_single"
        if not hasattr(dist, self._name):
            self._name = "all_gather_into_tensor"
        self._original = getattr(dist, self._name)
        setattr(dist, self._name, self)
        return self

    def __call__(self, result: Tensor, own: Tensor, **kwargs: Any) -> Any:
        """Count a gather and make it."""
        self.count += own.ndim > 1
        return self._original(result, own, **kwargs)

    def __exit__(self, *_: object) -> None:
        setattr(dist, self._name, self._original)


def wan(spread: Callable[[nn.Module], None] | None = None) -> nn.Module:
    model: nn.Module = WAN.build().eval()
    if spread is not None:
        spread(model)
    return model


def text_of(latents: Tensor, seeds: tuple[int, ...]) -> Tensor:
    return torch.cat([WAN.text(1, seed) for seed in seeds]).to(latents)


def generate(
    model: nn.Module,
    videos: tuple[int, ...],
    texts: Mapping[str, int] | None = None,
    join: Callable[[Tensor], Tensor] = lambda prediction: prediction,
    **settings: Any,
) -> Outcome:
    """Run one generation.

    Args:
        model: a tiny Wan.
        videos: the seed of each video of the batch.
        texts: the seed of the text in each guidance branch; None: one branch with a text for each
            video.
        join: returns the prediction from the mean over the branches of this process.
        settings: those of `patch`.
    """
    ak.patch(model, num_inference_steps=STEPS, **settings)
    latents = torch.cat([WAN.noise(1, seed) for seed in videos])
    branches = {name: (seed,) for name, seed in texts.items()} if texts else {"cond": videos}
    with torch.no_grad(), CountedGathers() as gathers:
        for step in range(STEPS):
            predictions = []
            for name, seeds in branches.items():
                with ak.cache_context(name, step_index=step, num_inference_steps=STEPS):
                    predictions.append(
                        model(
                            hidden_states=latents,
                            encoder_hidden_states=text_of(latents, seeds),
                            timestep=torch.full((len(latents),), 900 - 30 * step),
                            return_dict=False,
                        )[0]
                    )
            latents = latents - 0.05 * join(torch.stack(predictions).mean(0))
    outcome = Outcome(latents, gathers.count, ak.summary(model))
    ak.unpatch(model)
    return outcome


def mean_over_ranks(prediction: Tensor) -> Tensor:
    both = [torch.empty_like(prediction) for _ in range(2)]
    dist.all_gather(both, prediction.contiguous())
    return torch.stack(both).mean(0)


def mesh() -> Any:
    return init_device_mesh("cpu", (2,))


def by_fsdp2(model: nn.Module) -> None:
    for block in (*model.blocks, model):  # type: ignore[misc]
        fully_shard(block, mesh=mesh())


def by_fsdp1(model: nn.Module) -> None:
    for index, block in enumerate(model.blocks):  # type: ignore[arg-type]
        wrapped = FullyShardedDataParallel(block, device_id=torch.device("cpu"))
        model.blocks[index] = wrapped  # type: ignore[index, operator]


def by_shards_and_fsdp2(model: nn.Module) -> None:
    model.enable_parallelism(  # type: ignore[operator]
        config=ContextParallelConfig(ulysses_degree=2)
    )
    by_fsdp2(model)


def by_tensors(model: nn.Module) -> None:
    plan: dict[str, Any] = {
        "blocks.*.ffn.net.0.proj": ColwiseParallel(),
        "blocks.*.ffn.net.2": RowwiseParallel(),
    }
    parallelize_module(model, mesh(), plan)
    # Replicas may differ in the last bits, as on GPUs of two kinds.
    if dist.get_rank() == 1:
        with torch.no_grad():
            model.patch_embedding.weight.mul_(1 + 2**-20)  # type: ignore[operator, union-attr]


def cfg_parallel() -> Outcome:
    """Run one guidance branch on each rank, as xDiT does."""
    imported(XDIT, get_cfg_group=lambda: SimpleNamespace(device_group=dist.group.WORLD))
    texts = dict([TWO_BRANCHES[dist.get_rank()]])
    outcome = generate(wan(), (7,), texts, mean_over_ranks, **MEASURED)
    del sys.modules[XDIT]
    return outcome


def data_parallel() -> Outcome:
    """Run different videos; rank 1 makes two generations and rank 0 one."""
    rank = dist.get_rank()
    for _ in range(rank):
        generate(wan(), (rank,), **MEASURED)
    return generate(wan(), (rank,), **MEASURED)


def own_video(spread: Callable[[nn.Module], None]) -> Outcome:
    return generate(wan(spread), (dist.get_rank(),), **MEASURED)


def one_video(spread: Callable[[nn.Module], None]) -> Outcome:
    return generate(wan(spread), (7,), **MEASURED)


TWO_BRANCHES = (("cond", 100), ("uncond", 101))
KINDS: Mapping[str, Callable[[], Outcome]] = {
    "FSDP2": lambda: own_video(by_fsdp2),
    "FSDP1": lambda: own_video(by_fsdp1),
    "shards and FSDP2": lambda: one_video(by_shards_and_fsdp2),
    "tensors": lambda: one_video(by_tensors),
    "guidance": cfg_parallel,
    "data": data_parallel,
}


def of_all_kinds() -> dict[str, Outcome]:
    return {name: run() for name, run in KINDS.items()}


@pytest.fixture(scope="module")
def on_ranks() -> list[dict[str, Outcome]]:
    """Return the outcomes of all kinds on two ranks."""
    return run_ranks(2, of_all_kinds)


def of(kind: str, on_ranks: list[dict[str, Outcome]]) -> tuple[Outcome, Outcome]:
    first, second = (of_rank[kind] for of_rank in on_ranks)
    return first, second


@pytest.mark.parametrize("kind", ["FSDP2", "FSDP1", "shards and FSDP2", "tensors", "guidance"])
def test_ranks_decide_as_one(kind: str, on_ranks: list[dict[str, Outcome]]) -> None:
    first, second = of(kind, on_ranks)
    assert first.summary.reused_steps
    assert first.summary.computed_steps == second.summary.computed_steps
    assert first.summary.distances == second.summary.distances


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("FSDP2", "2 ranks with videos of their own (FSDP)"),
        ("FSDP1", "2 ranks with videos of their own (FSDP)"),
        ("shards and FSDP2", "2 ranks with a shard of each video (diffusers' context parallelism)"),
        ("tensors", "2 ranks with the same videos (tensor parallelism)"),
        ("guidance", "2 ranks with the same videos (xDiT)"),
    ],
)
def test_the_summary_names_the_only_group(
    kind: str, expected: str, on_ranks: list[dict[str, Outcome]]
) -> None:
    for outcome in of(kind, on_ranks):
        assert outcome.summary.found.endswith(f", {expected}")
        assert outcome.summary.found.count(" ranks ") == 1


@pytest.mark.parametrize("kind", ["FSDP2", "shards and FSDP2", "tensors", "guidance"])
def test_each_measured_step_has_one_gather(kind: str, on_ranks: list[dict[str, Outcome]]) -> None:
    for outcome in of(kind, on_ranks):
        assert outcome.gathers == len(outcome.summary.computed_steps)


def test_videos_of_two_ranks_are_those_of_a_batch(on_ranks: list[dict[str, Outcome]]) -> None:
    expected = generate(wan(), (0, 1), **MEASURED)
    alone = [generate(wan(), (video,), **MEASURED).summary for video in (0, 1)]
    # The two videos would decide differently, and their ranks would wait for each other forever.
    assert alone[0].computed_steps != alone[1].computed_steps
    for rank, outcome in enumerate(of("FSDP2", on_ranks)):
        assert outcome.summary.computed_steps == expected.summary.computed_steps
        assert close_numbers(outcome.summary.distances, expected.summary.distances)
        assert close(outcome.latents, expected.latents[rank : rank + 1])


def test_wrapped_blocks_are_found_by_their_first_forward(
    on_ranks: list[dict[str, Outcome]],
) -> None:
    for rank, outcome in enumerate(of("FSDP1", on_ranks)):
        expected = generate(wan(), (rank,), schedule=outcome.summary.computed_steps)
        assert close(outcome.latents, expected.latents)


@pytest.mark.parametrize("kind", ["shards and FSDP2", "tensors"])
def test_one_video_is_that_of_one_process(kind: str, on_ranks: list[dict[str, Outcome]]) -> None:
    expected = generate(wan(), (7,), **MEASURED)
    for outcome in of(kind, on_ranks):
        assert outcome.summary.computed_steps == expected.summary.computed_steps
        # The changed replica differs by 2**-20 in one layer.
        assert torch.allclose(outcome.latents, expected.latents, rtol=1e-4, atol=1e-5)


def test_replicas_that_differ_use_the_numbers_of_the_first(
    on_ranks: list[dict[str, Outcome]],
) -> None:
    first, second = of("tensors", on_ranks)
    assert not torch.equal(first.latents, second.latents)
    assert first.summary.distances == second.summary.distances


def test_guidance_branches_on_two_ranks_are_those_of_one_process(
    on_ranks: list[dict[str, Outcome]],
) -> None:
    expected = generate(wan(), (7,), dict(TWO_BRANCHES), **MEASURED)
    alone = [generate(wan(), (7,), dict([branch]), **MEASURED) for branch in TWO_BRANCHES]
    assert alone[0].summary.distances != alone[1].summary.distances
    for outcome in of("guidance", on_ranks):
        assert outcome.summary.computed_steps == expected.summary.computed_steps
        assert close_numbers(outcome.summary.distances, expected.summary.distances)
        assert close(outcome.latents, expected.latents)


def test_data_parallel_ranks_do_not_wait_for_each_other(
    on_ranks: list[dict[str, Outcome]],
) -> None:
    for rank, outcome in enumerate(of("data", on_ranks)):
        expected = generate(wan(), (rank,), **MEASURED)
        assert outcome.gathers == 0
        assert " ranks " not in outcome.summary.found
        assert outcome.summary.computed_steps == expected.summary.computed_steps
        assert close(outcome.latents, expected.latents)
