"""The baselines on several ranks: those that decide by the step work, the others are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch.distributed as dist
from diffusers import ContextParallelConfig
from torch import Tensor, nn

import adacache_kernels as ak
from tests.support.baseline_runs import STEPS
from tests.support.fake_world import fake_world
from tests.support.ranks import run_ranks
from tests.support.rounding import close
from tests.support.tiny_models.common_models import TINY, denoise

WAN = TINY["wan"]
BY_STEP: Mapping[str, Any] = {
    "PAB": ak.baselines.PABConfig(spatial=3, cross=2, window=(660, 870)),
    "T-GATE": ak.baselines.TGATEConfig(gate_step=7, interval=2, warmup=2),
    "delta-DiT": ak.baselines.DeltaDiTConfig(boundary=4, interval=2, front=(0, 2), back=(2, 3)),
    "interval": ak.baselines.FixedIntervalConfig(interval=3),
    "TaylorSeer": ak.baselines.TaylorSeerConfig(interval=3, order=1),
    "MagCache": ak.baselines.MagCacheConfig(ratios=(1.0,) * STEPS, threshold=0.1),
}
BY_CONTENT = (
    ak.baselines.TeaCacheConfig(threshold=0.1),
    ak.baselines.FirstBlockCacheConfig(threshold=0.1),
    ak.baselines.AdaCachePerLayerConfig(codebook={9.0: 3}),
)


def generate(config: Any, *, sharded: bool) -> tuple[Tensor, ak.Summary]:
    model = WAN.build().eval()
    if sharded:
        model.enable_parallelism(config=ContextParallelConfig(ulysses_degree=2))
    ak.patch(model, config, num_inference_steps=STEPS)
    return denoise(WAN, model, STEPS)[-1], ak.summary(model)


def all_on_rank() -> dict[str, tuple[Tensor, ak.Summary]]:
    return {name: generate(config, sharded=True) for name, config in BY_STEP.items()}


@pytest.fixture(scope="module")
def on_ranks() -> list[dict[str, tuple[Tensor, ak.Summary]]]:
    """Return the latents and summaries of all baselines under context parallelism."""
    return run_ranks(2, all_on_rank)


@pytest.mark.parametrize("name", BY_STEP)
def test_a_baseline_that_decides_by_the_step(
    name: str, on_ranks: list[dict[str, tuple[Tensor, ak.Summary]]]
) -> None:
    latents, expected = generate(BY_STEP[name], sharded=False)
    computed, total = expected.units or (0, 0)
    assert computed < total, "the case reuses nothing, so it shows nothing"
    for of_rank in on_ranks:
        found, summary = of_rank[name]
        assert summary.units == expected.units
        assert close(found, latents)


def patched(config: Any, group: Any = None) -> nn.Module:
    return ak.patch(WAN.build().eval(), config, num_inference_steps=STEPS, process_group=group)


@pytest.mark.parametrize("config", BY_CONTENT, ids=lambda config: type(config).__name__)
def test_a_baseline_that_decides_by_content_is_refused(config: Any) -> None:
    name = type(config).__name__
    with fake_world(2) as world:
        model = patched(config, world)
        with pytest.raises(ValueError, match=f"{name} decides by what each rank computes") as error:
            denoise(WAN, model, 1)
        ak.unpatch(model)
        denoise(WAN, model, 1)
    assert "the ranks [0, 1] (process_group=) have to decide as one" in str(error.value)
    assert "Use AdaCacheConfig, with which ranks agree, or a method that" in str(error.value)


def communicate(_module: nn.Module, _args: Any, output: Tensor) -> None:
    dist.all_reduce(output)


@pytest.mark.parametrize("config", BY_CONTENT, ids=lambda config: type(config).__name__)
def test_ranks_of_an_unknown_group_are_named(config: Any) -> None:
    with fake_world(2):
        model = patched(config)
        model.proj_out.register_forward_hook(communicate)  # type: ignore[operator, union-attr]
        with pytest.raises(ValueError, match=r"this WanTransformer3DModel communicates with other"):
            denoise(WAN, model, 1)


@pytest.mark.parametrize("config", BY_CONTENT, ids=lambda config: type(config).__name__)
def test_ranks_with_models_of_their_own_are_not_refused(config: Any) -> None:
    expected = denoise(WAN, patched(config), STEPS)
    with fake_world(2):
        found = denoise(WAN, patched(config), STEPS)
    assert close(found, expected)


def test_all_baselines_are_tested() -> None:
    tested = {type(config).__name__ for config in (*BY_STEP.values(), *BY_CONTENT)}
    assert tested == {name for name in ak.baselines.__all__ if name != "BaselineConfig"}
