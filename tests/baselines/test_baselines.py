"""The baselines on tiny models, compared with plain oracles."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import adacache_kernels as ak
from tests.support.baseline_runs import STEPS, THRESHOLDS, assert_close, assert_equal, run_patched
from tests.support.oracles.baselines import (
    FirstBlock,
    Layer,
    Steps,
    StoredBlock,
    WatchedBlock,
    blocks_of,
    everything_added,
    installed,
    norms_ratio,
    stored_modules,
)
from tests.support.tiny_models.common_models import TINY, denoise

THREE = ("latte", "wan", "cogvideox")


NOTHING_REUSED: dict[str, Any] = {
    "PAB": ak.baselines.PABConfig(spatial=1, window=(0, 1000)),
    "TaylorSeer": ak.baselines.TaylorSeerConfig(interval=1, order=2),
    "delta-DiT": ak.baselines.DeltaDiTConfig(boundary=4, interval=1, front=(0, 2), back=(1, 3)),
    "interval": ak.baselines.FixedIntervalConfig(interval=1),
    "MagCache": ak.baselines.MagCacheConfig(ratios=(1.0,) * STEPS, threshold=0.0),
    "first block": ak.baselines.FirstBlockCacheConfig(threshold=0.0),
    "timestep": ak.baselines.TeaCacheConfig(threshold=0.0, watched="timestep"),
    "input": ak.baselines.TeaCacheConfig(threshold=0.0, watched="input"),
    "per layer": ak.baselines.AdaCachePerLayerConfig(codebook={1.0: 1}),
}


@pytest.mark.parametrize("name", THREE)
@pytest.mark.parametrize("method", NOTHING_REUSED)
def test_nothing_reused_is_bit_equal(name: str, method: str) -> None:
    tiny = TINY[name]
    model = tiny.build()
    plain = denoise(tiny, model, STEPS)
    found, summary = run_patched(name, NOTHING_REUSED[method], model=model)
    assert_equal(found, plain)
    assert summary.computed_steps == list(range(1, STEPS + 1))
    assert summary.computed_fraction == 1.0 and not summary.reused_steps


def test_tgate_with_its_gate_at_the_end_is_bit_equal() -> None:
    for name in ("latte", "wan"):
        tiny = TINY[name]
        model = tiny.build()
        plain = denoise(tiny, model, STEPS)
        config = ak.baselines.TGATEConfig(gate_step=STEPS, interval=1)
        found, summary = run_patched(name, config, model=model)
        assert_equal(found, plain)
        assert summary.computed_fraction == 1.0


# The timesteps of `denoise` are 900, 870 ... 660 in steps 1 to 9. Inside (660, 870) are steps 3 to
# 8, which are steps 2 to 7 if counted from 0.
PAB_CASES = [
    (
        "latte",
        ak.baselines.PABConfig(
            spatial=2, temporal=3, cross=6, window=(660, 870), mlp_timesteps=(840,), mlp_blocks=(0,)
        ),
        {"spatial": {4, 6, 8}, "temporal": {3, 5, 6, 8}, "cross": {3, 4, 5, 6, 8}, "mlp": {4, 5}},
        # In each of 9 steps: 3 spatial, 3 temporal and 3 cross attentions, and 6 MLPs.
        1 - (3 * 3 + 3 * 4 + 3 * 5 + 2 * 2) / (9 * 15),
    ),
    (
        "wan",
        ak.baselines.PABConfig(spatial=3, cross=2, window=(660, 870)),
        {"spatial": {3, 5, 6, 8}, "cross": {4, 6, 8}},
        1 - (3 * 4 + 3 * 3) / (9 * 9),
    ),
    (
        "cogvideox",
        ak.baselines.PABConfig(spatial=2, window=(660, 870), mlp_timesteps=(780, 720), mlp_count=1),
        {"spatial": {4, 6, 8}, "mlp": {6, 8}},
        1 - (3 * 3 + 3 * 2) / (9 * 6),
    ),
]


@pytest.mark.parametrize(("name", "config", "reused", "fraction"), PAB_CASES)
def test_pab_returns_stored_outputs(
    name: str, config: Any, reused: dict[str, Any], fraction: float
) -> None:
    tiny = TINY[name]
    model = tiny.build()
    steps = Steps(model)
    with installed(stored_modules(name, model, steps, reused, mlp_blocks=1 + 4 * (name != "latte")),
                   steps):  # fmt: skip
        expected = denoise(tiny, model, STEPS)
    found, summary = run_patched(name, config, model=model)
    assert_equal(found, expected)
    assert summary.computed_fraction == pytest.approx(fraction)
    assert summary.reused_steps == sorted(set().union(*reused.values()))
    assert summary.cache_bytes > 0 and summary.cache_tensors > 0


@pytest.mark.parametrize("name", ["latte", "wan"])
def test_tgate_reuses_self_attention_early_and_cross_attention_late(name: str) -> None:
    tiny = TINY[name]
    model = tiny.build()
    reused = {"spatial": {4, 6}, "temporal": {4, 6}, "cross": {8, 9}}
    steps = Steps(model)
    with installed(stored_modules(name, model, steps, reused), steps):
        expected = denoise(tiny, model, STEPS)
    config = ak.baselines.TGATEConfig(gate_step=7, interval=2, warmup=2)
    found, summary = run_patched(name, config, model=model)
    assert_equal(found, expected)
    assert summary.reused_steps == [4, 6, 8, 9]


RANGES = [
    # For each block, the steps in which it is reused.
    (
        ak.baselines.DeltaDiTConfig(boundary=4, interval=2, front=(0, 2), back=(2, 3)),
        [{6, 8}, {6, 8}, {2, 4}],
    ),
    (
        ak.baselines.DeltaDiTConfig(boundary=0, interval=3, front=(1, None)),
        [set(), *[{2, 3, 5, 6, 8, 9}] * 2],
    ),
    (ak.baselines.FixedIntervalConfig(interval=3, computed_last=2), [{2, 3, 5, 6}] * 3),
    (
        # Step 1 is retained. The errors: 2: 0.02, 3: 0.0596, 5: 0.02, 6: 0.2, 7: 0.01, 8: 0.0299.
        # Steps 4 and 9 would each be the third reused step in a row.
        ak.baselines.MagCacheConfig(
            ratios=(1, 0.98, 0.98, 0.98, 0.98, 1.2, 0.99, 0.99, 0.99),
            threshold=0.1,
            max_skips=2,
            retention=0.12,
        ),
        [{2, 3, 5, 7, 8}] * 3,
    ),
]


@pytest.mark.parametrize("name", THREE)
@pytest.mark.parametrize(("config", "reused"), RANGES)
def test_ranges_add_the_residuals_of_their_blocks(
    name: str, config: Any, reused: list[set[int]]
) -> None:
    tiny = TINY[name]
    model = tiny.build()
    steps = Steps(model)
    kept = [
        StoredBlock(block, lambda index=index: steps.now in reused[index])
        for attribute in tiny.lists
        for index, block in enumerate(getattr(model, attribute))
    ]
    with installed(kept, steps):
        expected = denoise(tiny, model, STEPS)
    found, summary = run_patched(name, config)
    assert_close(found, expected)
    assert summary.computed_fraction == pytest.approx(1 - sum(map(len, reused)) / (3 * STEPS))
    assert summary.reused_steps == sorted(set().union(*reused))
    assert summary.waits == []


@pytest.mark.parametrize("name", THREE)
def test_the_first_block_decides_for_the_others(name: str) -> None:
    tiny = TINY[name]
    model = tiny.build()
    probe = FirstBlock(blocks_of(tiny, model)[0], 0.0)
    with installed([probe]):
        denoise(tiny, model, STEPS)
    threshold = 1.01 * sorted(probe.changes)[STEPS // 2]
    first = FirstBlock(blocks_of(tiny, model)[0], threshold)
    rest = [StoredBlock(block, lambda: first.reuse) for block in blocks_of(tiny, model)[1:]]
    with installed([first, *rest]):
        expected = denoise(tiny, model, STEPS)
    reused = [step for step, reuse in enumerate(first.reused, start=1) if reuse]
    assert 2 <= len(reused) <= STEPS - 3, "the oracle's threshold must divide the steps"

    found, summary = run_patched(name, ak.baselines.FirstBlockCacheConfig(threshold=threshold))
    assert summary.reused_steps == reused
    assert_close(found, expected)
    blocks = len(rest) + 1
    assert summary.units == (STEPS * blocks - len(reused) * len(rest), STEPS * blocks)
    assert len(summary.waits) == STEPS - 1


@pytest.mark.parametrize("name", THREE)
@pytest.mark.parametrize("watched", ["input", "timestep"])
def test_the_watched_input_decides_for_all_blocks(name: str, watched: Any) -> None:
    tiny = TINY[name]
    model = tiny.build()
    timestep = None
    if watched == "timestep":
        timestep = "timestep" if name == "latte" else "temb"

    def oracle(threshold: float) -> tuple[WatchedBlock, list[Tensor]]:
        steps = Steps(model)
        first = WatchedBlock(blocks_of(tiny, model)[0], threshold, steps, STEPS, timestep)
        rest = [StoredBlock(block, lambda: first.reuse) for block in blocks_of(tiny, model)[1:]]
        with installed([first, *rest], steps):
            return first, denoise(tiny, model, STEPS)

    changes = oracle(0.0)[0].changes
    threshold = 2.5 * sum(changes) / len(changes)
    first, expected = oracle(threshold)
    reused = [step for step, reuse in enumerate(first.reused, start=1) if reuse]
    assert 2 <= len(reused) <= STEPS - 3, "the oracle's threshold must divide the steps"

    config = ak.baselines.TeaCacheConfig(threshold=threshold, watched=watched)
    found, summary = run_patched(name, config)
    assert summary.reused_steps == reused
    assert_close(found, expected)
    assert summary.computed_fraction == pytest.approx(1 - len(reused) / STEPS)
    # Neither the first nor the last step can be reused, so nothing is read there.
    assert len(summary.waits) == STEPS - 2
    measured = {step: change for step, change in enumerate(first.changes, start=2)}
    distances = dict(zip(summary.computed_steps, summary.distances, strict=True))
    assert distances.pop(1) is None and distances.pop(STEPS) is None
    assert distances == pytest.approx({step: measured[step] for step in distances}, rel=1e-4)


@pytest.mark.parametrize("name", THREE)
def test_each_layer_has_its_own_schedule(name: str) -> None:
    tiny, count = TINY[name], 12
    model = tiny.build()

    def oracle(thresholds: tuple[float, float]) -> tuple[list[Layer], list[Tensor]]:
        steps = Steps(model)
        layers = [Layer(block, steps, count, thresholds) for block in blocks_of(tiny, model)]
        with installed(layers, steps):
            return layers, denoise(tiny, model, count)

    thresholds = THRESHOLDS[name]
    layers, expected = oracle(thresholds)
    schedules = {tuple(layer.computed) for layer in layers}
    assert len(schedules) > 1, "the layers' schedules must differ"

    low, high = thresholds
    config = ak.baselines.AdaCachePerLayerConfig(codebook={low: 3, high: 2, float("inf"): 1})
    found, summary = run_patched(name, config, count, model)
    assert_equal(found, expected)
    ran = sum(len(layer.computed) for layer in layers)
    assert summary.units == (ran, count * len(layers))
    # Nothing is measured in the first step, and the distances of the last step are not read.
    assert 0 < len(summary.waits) <= count - 2


def test_ratios_are_those_of_the_norms_of_the_residuals() -> None:
    for name in ("wan", "cogvideox"):
        tiny = TINY[name]
        model = tiny.build()
        residuals = everything_added(model, lambda: denoise(tiny, model, STEPS), tiny.lists[0])  # noqa: B023
        ratios = ak.measure_ratios(model, lambda: denoise(tiny, model, STEPS), STEPS)  # noqa: B023
        assert ratios == pytest.approx(norms_ratio(residuals), rel=1e-5)
        assert not ak.is_patched(model)
        assert len(set(ratios)) == STEPS


def test_an_unfinished_generation_gives_no_ratios() -> None:
    tiny = TINY["wan"]
    model = tiny.build()
    with pytest.raises(ValueError, match="ran 3 of 9 steps"):
        ak.measure_ratios(model, lambda: denoise(tiny, model, 3), STEPS)
    assert not ak.is_patched(model)


def test_mag_cache_starts_again_after_a_recomputed_step() -> None:
    tiny = TINY["wan"]
    config = ak.baselines.MagCacheConfig(
        ratios=(0.99,) * 8, threshold=9.0, max_skips=2, retention=0.0
    )
    model = ak.patch(tiny.build(), config, num_inference_steps=8)
    with torch.no_grad():
        for step in range(1, 8):
            tiny.call(model, tiny.noise(1 if step < 3 else 2), step)
    summary = ak.summary(model)
    assert summary.reused_steps == [2, 4, 5, 7]
    assert summary.recomputed == {"0": [3]}


def test_the_watched_input_with_a_timestep_per_token_is_the_input_of_the_attention() -> None:
    from adacache_kernels.models.module_names import module_names_for

    model, seen = TINY["wan"].build(), []
    units = module_names_for(model)
    assert units is not None and units.modulated is not None
    block = model.blocks[0]
    handles = [
        block.register_forward_pre_hook(
            lambda _block, args: seen.append(
                units.modulated(block, {"hidden_states": args[0], "temb": args[2]})
            )
        ),
        block.attn1.register_forward_pre_hook(lambda _module, args: seen.append(args[0])),
    ]
    timestep = torch.arange(48).reshape(1, 48)
    tiny = TINY["wan"]
    with torch.no_grad():
        model(tiny.noise(), timestep, tiny.text())
    for handle in handles:
        handle.remove()
    assert seen[0].ndim == 3 and torch.equal(*seen)
