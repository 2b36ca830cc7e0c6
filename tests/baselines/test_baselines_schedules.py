"""The schedules of the baselines on hand-made inputs, by the definitions in their papers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest

import adacache_kernels as ak
from adacache_kernels.baselines.teacache import polynomial

TEN_TIMESTEPS = [950, 850, 750, 650, 550, 450, 350, 250, 150, 50]


def reused_modules(
    policy: Any, kind: str, timesteps: Iterable[float | None], block: int = 0
) -> set[int]:
    """Return the steps, counted from 1, in which a module of this kind is reused."""
    found = set()
    for step, timestep in enumerate(timesteps, start=1):
        policy.begin_step(step, timestep)
        if policy.reuses(kind, block):
            found.add(step)
    return found


def reused_blocks(policy: Any, steps: int) -> dict[int, Any]:
    """Return the reused range of blocks by step, counted from 1; other steps are left out."""
    found = {}
    for step in range(1, steps + 1):
        blocks = policy.reuses(step)
        if blocks is None:
            policy.computed(step)
        else:
            found[step] = blocks
    return found


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # Counted from 0, steps 2 to 8 are inside (100, 800), and multiples of the range run.
        ("spatial", {4, 6, 8}),
        ("temporal", {3, 5, 6, 8, 9}),
        ("cross", {3, 4, 5, 6, 8, 9}),
        ("mlp", set()),
    ],
)
def test_pab_reuses_by_range_inside_its_window(kind: str, expected: set[int]) -> None:
    config = ak.baselines.PABConfig(spatial=2, temporal=3, cross=6, window=(100, 800))
    assert reused_modules(config.policy(10), kind, TEN_TIMESTEPS) == expected


def test_pabs_window_is_exclusive() -> None:
    config = ak.baselines.PABConfig(spatial=9, window=(100, 800))
    timesteps = [801, 800, 799, 101, 100, 99]
    assert reused_modules(config.policy(6), "spatial", timesteps) == {3, 4}


@pytest.mark.parametrize(("block", "expected"), [(0, {4, 5, 8, 9}), (1, {4, 5, 8, 9}), (2, set())])
def test_pabs_mlps_are_reused_after_the_timesteps_named(block: int, expected: set[int]) -> None:
    config = ak.baselines.PABConfig(mlp_timesteps=(750, 350), mlp_blocks=(0, 1), mlp_count=2)
    assert reused_modules(config.policy(10), "mlp", TEN_TIMESTEPS, block) == expected


def test_pab_runs_an_mlp_at_a_timestep_named_even_where_it_could_be_reused() -> None:
    config = ak.baselines.PABConfig(mlp_timesteps=(750, 650), mlp_count=2)
    assert reused_modules(config.policy(10), "mlp", TEN_TIMESTEPS) == {5, 6}


def test_pabs_published_settings() -> None:
    slow, fast = (
        ak.baselines.PABConfig.preset("latte-slow"),
        ak.baselines.PABConfig.preset("latte-fast"),
    )
    assert (slow.spatial, slow.temporal, slow.cross) == (2, 3, 6)
    assert (fast.spatial, fast.temporal, fast.cross) == (4, 6, 9)
    assert slow.window == fast.window == (100, 800)
    plan = ak.baselines.PABConfig.preset("open-sora-plan-slow")
    assert plan.mlp_timesteps[0] == 738 and plan.mlp_timesteps[-1] == 426
    assert len(plan.mlp_timesteps) == 14 and plan.mlp_blocks == tuple(range(7))
    assert ak.baselines.PABConfig.preset("latte-slow", cross=7).cross == 7


@pytest.mark.parametrize(
    ("config", "attention", "cross"),
    [
        # Counted from 0: 2 is stored, 3 and 6 run as multiples of 3, 8 is the gate.
        (ak.baselines.TGATEConfig(gate_step=9, interval=3, warmup=2), {5, 6, 8}, {10, 11, 12}),
        (ak.baselines.TGATEConfig(gate_step=6, interval=2, warmup=2), {4}, {7, 8, 9, 10, 11, 12}),
        (ak.baselines.TGATEConfig(gate_step=6, interval=1, warmup=0), set(), {7, 8, 9, 10, 11, 12}),
        (ak.baselines.TGATEConfig(gate_step=2, interval=5, warmup=4), set(), set(range(3, 13))),
    ],
)
def test_tgate(config: ak.baselines.TGATEConfig, attention: set[int], cross: set[int]) -> None:
    for kind in ("spatial", "temporal"):
        assert reused_modules(config.policy(12), kind, [None] * 12) == attention
    assert reused_modules(config.policy(12), "cross", [None] * 12) == cross
    assert reused_modules(config.policy(12), "mlp", [None] * 12) == set()


def test_tgate_stores_self_attention_before_reused_steps_and_cross_attention_at_the_gate() -> None:
    policy = ak.baselines.TGATEConfig(gate_step=6, interval=2, warmup=2).policy(8)
    kept: dict[str, set[int]] = {"spatial": set(), "cross": set()}
    for step in range(1, 9):
        policy.begin_step(step, None)
        for kind, steps in kept.items():
            if policy.stores(kind, 0):  # type: ignore[arg-type]
                steps.add(step)
    assert kept == {"spatial": {3, 4, 5}, "cross": {6}}


def test_tgates_published_settings() -> None:
    for name, gate, interval in (("open-sora", 12, 2), ("open-sora-plan", 90, 6), ("latte", 20, 2)):
        config = ak.baselines.TGATEConfig.preset(name)
        assert (config.gate_step, config.interval) == (gate, interval)


def test_delta_dit_reuses_back_blocks_early_and_front_blocks_late() -> None:
    config = ak.baselines.DeltaDiTConfig(boundary=4, interval=2, front=(0, 2), back=(3, 5))
    expected = {2: (3, 5), 4: (3, 5), 6: (0, 2), 8: (0, 2)}
    assert reused_blocks(config.policy(8), 8) == expected


def test_each_phase_of_delta_dit_begins_with_a_step_that_runs_everything() -> None:
    config = ak.baselines.DeltaDiTConfig(boundary=4, interval=3, front=(0, 2), back=(3, None))
    expected = {2: (3, None), 3: (3, None), 6: (0, 2), 7: (0, 2)}
    assert reused_blocks(config.policy(8), 8) == expected


def test_delta_dit_without_a_range_in_a_phase() -> None:
    assert reused_blocks(ak.baselines.DeltaDiTConfig.preset("latte").policy(50), 50) == {50: (0, 2)}
    assert set(reused_blocks(ak.baselines.DeltaDiTConfig.preset("open-sora").policy(30), 30)) == {
        27,
        29,
    }


@pytest.mark.parametrize(
    ("config", "computed"),
    [
        # The authors' counter: from 0, the warm-up ends at 2, then every third step runs.
        (ak.baselines.TaylorSeerConfig(interval=3, warmup=3), {1, 2, 3, 6, 9, 12}),
        # diffusers' cache_interval=2, disable_cache_before_step=3: 0 to 2, then 4, 6, 8, 10.
        (ak.baselines.TaylorSeerConfig(interval=2, warmup=3), {1, 2, 3, 5, 7, 9, 11}),
        (ak.baselines.TaylorSeerConfig(interval=4), {1, 5, 9}),
        (ak.baselines.TaylorSeerConfig(interval=4, computed_last=2), {1, 5, 9, 11, 12}),
        (ak.baselines.TaylorSeerConfig(interval=9, computed_steps=5), {1, 4, 8, 11, 12}),
        (ak.baselines.TaylorSeerConfig(interval=1), set(range(1, 13))),
    ],
)
def test_taylorseer_runs_every_module_in_the_same_steps(
    config: ak.baselines.TaylorSeerConfig, computed: set[int]
) -> None:
    for kind in ("spatial", "temporal", "cross", "mlp"):
        assert set(range(1, 13)) - reused_modules(config.policy(12), kind, [None] * 12) == computed


@pytest.mark.parametrize(
    ("config", "steps", "count"),
    [
        (ak.baselines.TaylorSeerConfig(interval=2), 50, 25),
        (ak.baselines.TaylorSeerConfig(interval=3), 50, 17),
        (ak.baselines.TaylorSeerConfig(interval=2), 100, 50),
        (ak.baselines.TaylorSeerConfig(interval=3), 100, 34),
        (ak.baselines.TaylorSeerConfig(interval=2, warmup=3), 50, 26),
        (ak.baselines.TaylorSeerConfig(computed_steps=25), 50, 25),
    ],
)
def test_steps_that_taylorseer_computes(
    config: ak.baselines.TaylorSeerConfig, steps: int, count: int
) -> None:
    assert len(config.run_steps(steps)) == count


def test_taylorseer_stores_outputs_that_a_later_step_forecasts_from() -> None:
    policy, kept = ak.baselines.TaylorSeerConfig(interval=3, warmup=2, order=2).policy(10), []
    for step in range(1, 11):
        policy.begin_step(step, None)
        if policy.stores("mlp", 0) and not policy.reuses("mlp", 0):
            kept.append(step)
    # Steps 1, 2, 5 and 8 run. Differences begin with the last step of the warm-up.
    assert kept == [1, 2, 5, 8]
    assert [policy.order(step) for step in (1, 2, 5)] == [0, 2, 2]


@pytest.mark.parametrize(
    ("config", "computed"),
    [
        (ak.baselines.FixedIntervalConfig(interval=3), {1, 4, 7}),
        (ak.baselines.FixedIntervalConfig(interval=3, computed_last=2), {1, 4, 7, 8}),
        (ak.baselines.FixedIntervalConfig(interval=1), set(range(1, 9))),
    ],
)
def test_fixed_interval(config: ak.baselines.FixedIntervalConfig, computed: set[int]) -> None:
    assert set(range(1, 9)) - set(reused_blocks(config.policy(8), 8)) == computed


def test_mag_cache_accumulates_the_error_of_the_ratios() -> None:
    # Steps 1 and 2 are retained. The errors: 3: 0.02, 4: 0.0596, 5: above 0.06, 6: 0.1, 7: 0.01,
    # 8: 0.0299, 10: 0.01. Step 9 would be the third reused step in a row.
    ratios = (1.0, 1.0, 0.98, 0.98, 0.97, 0.9, 0.99, 0.99, 0.99, 0.99)
    config = ak.baselines.MagCacheConfig(ratios=ratios, threshold=0.06, max_skips=2, retention=0.2)
    assert set(reused_blocks(config.policy(10), 10)) == {3, 4, 7, 8, 10}


def test_mag_cache_counts_growth_like_decline_and_starts_again_after_a_recomputed_step() -> None:
    ratios = (9.0, 1.04, 1.0, 1.04, 1.0, 1.0)
    policy = ak.baselines.MagCacheConfig(
        ratios=ratios, threshold=0.1, max_skips=9, retention=0.0
    ).policy(6)
    asked = []
    for step in range(1, 7):
        asked.append(policy.reuses(step) is not None)
        if step == 3:
            policy.computed(step)
    # The errors: 2: 0.04, 3: 0.08 (recomputed, nothing was stored), 4: 0.04, 5: 0.08, 6: 0.12.
    assert asked == [False, True, True, True, True, False]


def test_first_block_reuses_below_its_threshold() -> None:
    policy = ak.baselines.FirstBlockCacheConfig(threshold=0.1).policy(6)
    changes = [None, 0.05, 0.1, 0.2, 0.0999, math.nan]
    reused = [policy.reuses(step, change) for step, change in enumerate(changes, start=1)]
    assert reused == [False, True, False, False, True, False]
    still = ak.baselines.FirstBlockCacheConfig(threshold=0.0).policy(2)
    assert not still.asks(2) and not still.reuses(2, 0.0)


def test_teacache_accumulates_the_polynomial_of_the_change() -> None:
    # The doubled changes add up to 0.1, 0.22 (runs), 0.18, 0.22 (runs). The last step always runs.
    policy = ak.baselines.TeaCacheConfig(threshold=0.2, coefficients=(2.0, 0.0)).policy(6)
    changes = [None, 0.05, 0.06, 0.09, 0.02, 0.0]
    reused = [policy.reuses(step, change) for step, change in enumerate(changes, start=1)]
    assert reused == [False, True, False, True, False, False]


def test_a_change_that_is_not_a_number_starts_again() -> None:
    policy = ak.baselines.TeaCacheConfig(threshold=0.2).policy(9)
    changes = [None, 0.1, math.nan, 0.1]
    reused = [policy.reuses(step, change) for step, change in enumerate(changes, start=1)]
    assert reused == [False, True, False, True]


def test_first_steps_that_always_run_accumulate_nothing() -> None:
    config = ak.baselines.TeaCacheConfig(threshold=0.2, computed_first=3, computed_last=0)
    policy = config.policy(5)
    changes = [None, 0.15, 0.15, 0.15, 0.15]
    reused = [policy.reuses(step, change) for step, change in enumerate(changes, start=1)]
    assert reused == [False, False, False, True, False]


def test_the_polynomials_first_coefficient_is_of_the_highest_power() -> None:
    assert polynomial((1.0, 2.0, 3.0), 2.0) == 11.0


def test_each_layer_follows_the_codebook_by_its_own_distances() -> None:
    config = ak.baselines.AdaCachePerLayerConfig(codebook={0.1: 3, 0.2: 2, math.inf: 1})
    distances = {2: 0.15, 4: 0.05, 7: 0.5, 8: 0.05}
    policy, computed = config.policy(10), []
    for step in range(1, 11):
        if not policy.reuses(step):
            computed.append(step)
            policy.observe(step, distances.get(step))
    assert computed == [1, 2, 4, 7, 8, 9, 10]
