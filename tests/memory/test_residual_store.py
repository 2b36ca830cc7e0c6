"""The residual store: planned from the first forward call, in the arena, within the budget."""

from __future__ import annotations

import gc
import json
from dataclasses import replace

import psutil
import pytest
import torch
from torch import nn

import adacache_kernels as ak
from adacache_kernels.api.target import attached_engine
from adacache_kernels.memory import plan as memory_plan
from adacache_kernels.memory import storage_choice
from tests.support.arenas import aligned
from tests.support.oracles.two_residuals_per_block import relative
from tests.support.rounding import close
from tests.support.tiny_models.common_models import FOUR, TINY, denoise

STEPS = 10
EVERY_THIRD = {float("inf"): 3}
FORECAST = {"measure": "forecast-error", "forecast": 1, "correct": True, "codebook": EVERY_THIRD}
KIB = 1024


def patched(name: str, **settings: object) -> nn.Module:
    """Return a tiny patched model, by default with the forecast and its three ring slots."""
    model = TINY[name].build()
    return ak.patch(model, num_inference_steps=STEPS, **{**FORECAST, **settings})


def arena_of(model: nn.Module) -> ak.CacheArena:
    arena = attached_engine(model)._memory.arena
    assert arena is not None
    return arena


def addresses(model: nn.Module) -> list[int]:
    plan = attached_engine(model)._memory._plan
    assert plan is not None
    return [tensor.data_ptr() for tensor in plan.tensors.values()]


@pytest.fixture
def separate_host_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat host memory as separate, as on a GPU; chunks have one or two tokens."""
    monkeypatch.setattr(storage_choice, "has_host_memory", lambda device: True)
    monkeypatch.setattr(memory_plan, "CHUNK_BYTES", 600)


@pytest.mark.parametrize("dtype", [None, "int8", "fp8"])
@pytest.mark.parametrize("name", FOUR)
def test_the_plan_is_what_is_used(name, dtype) -> None:
    model = patched(name, cache_dtype=dtype)
    denoise(TINY[name], model, 1)
    after_one_step = ak.summary(model).memory
    denoise(TINY[name], model, STEPS - 1)
    memory = ak.summary(model).memory
    assert memory == after_one_step
    assert memory.planned == memory.in_use == ak.summary(model).cache_bytes > 0
    assert memory.arena is not None
    tensors = attached_engine(model)._memory._plan.tensors.values()
    assert memory.arena.in_use == aligned(t.nbytes for t in tensors)
    assert memory.arena.planned == memory.planned
    assert (memory.arena.maps, memory.arena.unmaps, memory.arena.chunks) == (1, 0, 1)


def test_an_add_allocates_nothing() -> None:
    """A reused step allocates its streams, of which the adds are the values, and nothing else."""
    model = patched("cogvideox", schedule=[1, 2, 4, 7, 10])
    engine = attached_engine(model)
    denoise(TINY["cogvideox"], model, STEPS)
    first_run = ak.summary(model).memory.arena
    slots = engine._memory.slots
    allocated = []

    def counted(*args: object) -> None:
        with torch.profiler.profile(profile_memory=True) as profile:
            add(*args)
        allocated.append(sum(max(0, event.cpu_memory_usage) for event in profile.events()))

    add, slots.__dict__["add"] = slots.add, counted
    denoise(TINY["cogvideox"], model, STEPS)
    # Five reused steps of two streams, and the corrections of computed steps.
    assert len(allocated) >= 10 and not any(allocated)
    assert ak.summary(model).memory.arena == first_run


def test_too_much_is_refused_with_the_plan() -> None:
    model = patched("latte", max_cache_bytes=8 * KIB)
    with pytest.raises(ak.CacheBudgetError) as error:
        denoise(TINY["latte"], model, 1)
    # 4 frames of 16 tokens of 16 channels, three ring slots; one residual for both lists.
    message = str(error.value)
    assert "3 x residual [16, 4, 16] torch.float32" in message and "[4, 16, 16]" not in message
    assert (
        "full precision: 12 KiB" in message
        and "max_cache_bytes" in message
        and "over_budget" in message
    )
    assert ak.summary(model).cache_bytes == 0
    ak.unpatch(model)
    assert torch.isfinite(denoise(TINY["latte"], model, 1)[0]).all()


@pytest.mark.parametrize(
    ("name", "budget", "over_budget", "storage"),
    [
        ("wan", 64 * KIB, ("int8",), "full precision"),
        ("wan", 8 * KIB, ("int8", "refuse"), "int8"),
        ("wan", 8 * KIB, ("fp8", "int8"), "fp8"),
        ("cogvideox", 8 * KIB, ("host", "int8"), "full precision, in host memory"),
    ],
)
def test_a_plan_that_does_not_fit_is_stored_as_the_settings_say(
    separate_host_memory, name, budget, over_budget, storage
) -> None:
    model = patched(name, max_cache_bytes=budget, over_budget=over_budget)
    denoise(TINY[name], model, STEPS)
    summary = ak.summary(model)
    assert summary.memory.storage == storage
    assert summary.memory.in_use <= budget
    assert bool(summary.memory.refused) == (storage != "full precision")
    if summary.memory.refused:
        assert "did not fit: full precision" in str(summary)
        assert storage in str(summary)
    json.dumps(summary.to_dict())


def test_on_the_cpu_host_memory_is_not_separate() -> None:
    model = patched("wan", max_cache_bytes=8 * KIB, over_budget=("host",))
    with pytest.raises(ak.CacheBudgetError, match="host memory: the model runs in it"):
        denoise(TINY["wan"], model, 1)
    assert storage_choice.has_host_memory(torch.device("cuda"))


@pytest.mark.parametrize("name", FOUR)
@pytest.mark.parametrize(
    "settings", [FORECAST, {"codebook": EVERY_THIRD}], ids=["forecast", "fast"]
)
def test_in_host_memory_the_latents_are_the_same(separate_host_memory, name, settings) -> None:
    plain = TINY[name].build()
    ak.patch(plain, num_inference_steps=STEPS, **settings)
    spilled = TINY[name].build()
    ak.patch(spilled, num_inference_steps=STEPS, **settings)
    store = attached_engine(spilled)._memory
    store._choice = replace(store._choice, preferred=memory_plan.Storage(on_host=True))
    expected = denoise(TINY[name], plain, STEPS)
    assert close(denoise(TINY[name], spilled, STEPS), expected)
    assert ak.summary(spilled).memory.on_host > 0
    assert ak.summary(spilled).reused_steps == ak.summary(plain).reused_steps != []


@pytest.mark.parametrize("dtype", ["int8", "fp8"])
@pytest.mark.parametrize("name", FOUR)
def test_eight_bits_cost_little(name, dtype) -> None:
    """The error of the latents is below that of a stored residual.

    That is at most 1/254 (int8) or 2^-4 (fp8) of the token's largest element.
    """
    plain, eight = patched(name), patched(name, cache_dtype=dtype)
    expected = denoise(TINY[name], plain, STEPS)[-1]
    seen = denoise(TINY[name], eight, STEPS)[-1]
    bound = {"int8": 1 / 254, "fp8": 2**-4}[dtype]
    assert 0 < relative(seen, expected) < bound
    assert ak.summary(eight).reused_steps == ak.summary(plain).reused_steps


def test_the_same_shapes_get_the_same_addresses_again() -> None:
    model = patched("latte")
    denoise(TINY["latte"], model, STEPS)
    before, arena = addresses(model), arena_of(model)
    denoise(TINY["latte"], model, STEPS)
    assert addresses(model) == before and arena_of(model) is arena
    assert arena.stats().maps == 1


def test_another_batch_is_planned_again_in_the_same_reservation() -> None:
    model, fresh = patched("latte"), patched("latte")
    tiny = TINY["latte"]
    denoise(tiny, model, STEPS, batch=3)
    arena = arena_of(model)
    large, reserved = arena.stats().in_use, arena.stats().reserved
    seen = denoise(tiny, model, STEPS, batch=1)
    assert close(seen[-1], denoise(tiny, fresh, STEPS, batch=1)[-1])
    assert arena_of(model) is arena and arena.stats().reserved == reserved
    assert arena.stats().in_use == large // 3
    assert arena.stats().chunks == 1


def test_branches_that_were_not_expected_get_slots_beside_the_others() -> None:
    model, tiny = patched("wan"), TINY["wan"]
    runs = []
    for _ in range(2):
        runs.append(in_two_contexts(model))
        branches = ak.summary(model).branches
        assert branches == ["cond", "uncond"]
        assert ak.summary(model).recomputed == {}
    assert torch.equal(*runs)
    stats = arena_of(model).stats()
    # The first generation added the second branch; the next one planned both.
    assert (stats.maps, stats.unmaps) == (2, 0)
    assert ak.summary(model).memory.planned == 2 * 3 * 4 * tiny.frames * 16 * 24


def test_a_branch_that_does_not_fit_changes_the_storage_of_all() -> None:
    one = 3 * 4 * TINY["wan"].frames * 16 * 24
    model = patched("wan", max_cache_bytes=one + 8 * KIB, over_budget=("int8",))
    with pytest.warns(ak.AdaCacheWarning, match="planned again in the middle of a generation"):
        in_two_contexts(model)
    summary = ak.summary(model)
    assert summary.memory.storage == "int8"
    assert summary.reused_steps
    assert torch.isfinite(in_two_contexts(model)).all()


def test_calls_per_step_are_planned_at_once() -> None:
    model = patched("wan", calls_per_step=2)
    in_two_contexts(model, named=False)
    assert arena_of(model).stats().maps == 1
    assert ak.summary(model).memory.slots == 2 * 3


def in_two_contexts(model: nn.Module, named: bool = True) -> torch.Tensor:
    """Denoise with guidance in two calls a step; return the latents."""
    tiny = TINY["wan"]
    latents = tiny.noise()
    with torch.no_grad():
        for step in range(1, STEPS + 1):
            outputs = []
            for name, seed in (("cond", 100), ("uncond", 101)):
                if named:
                    with ak.cache_context(name):
                        outputs.append(tiny.call(model, latents, step, seed))
                else:
                    outputs.append(tiny.call(model, latents, step, seed))
            latents = latents - 0.05 * (2 * outputs[0] - outputs[1])
    return latents


def test_two_models_share_an_arena_and_its_budget() -> None:
    one = 3 * 4 * TINY["wan"].frames * 16 * 24
    with ak.CacheArena("cpu", 2 * one + 8 * KIB) as arena:
        models = [
            ak.patch(TINY["wan"].build(), num_inference_steps=STEPS, arena=arena, **FORECAST)
            for _ in range(3)
        ]
        alone = patched("wan")
        expected = denoise(TINY["wan"], alone, STEPS)[-1]
        for model in models[:2]:
            assert close(denoise(TINY["wan"], model, STEPS)[-1], expected)
        with pytest.raises(ak.CacheBudgetError):
            denoise(TINY["wan"], models[2], STEPS)
        ak.unpatch(models[0])
        assert close(denoise(TINY["wan"], models[2], STEPS)[-1], expected)
        # The second model still has its slots.
        assert close(denoise(TINY["wan"], models[1], STEPS)[-1], expected)
        for model in models[1:]:
            ak.unpatch(model)
        assert arena.stats().mapped == arena.stats().in_use == 0


def test_unpatch_and_reset_give_every_byte_back() -> None:
    for give_back in (ak.unpatch, ak.reset):
        model = patched("cogvideox")
        denoise(TINY["cogvideox"], model, STEPS)
        arena = arena_of(model)
        assert arena.stats().mapped > 0
        give_back(model)
        assert arena.stats().mapped == arena.stats().in_use == arena.stats().chunks == 0


def test_a_tensor_outlives_model_and_arena() -> None:
    model = patched("wan")
    denoise(TINY["wan"], model, STEPS)
    arena, plan = arena_of(model), attached_engine(model)._memory._plan
    tensor = next(iter(plan.tensors.values()))
    before = tensor.clone()
    ak.unpatch(model)
    del model, plan
    gc.collect()
    assert arena.stats().mapped > 0 and torch.equal(tensor, before)
    view = tensor[0]
    del tensor
    assert arena.stats().mapped > 0 and torch.equal(view, before[0])
    del view
    assert arena.stats().mapped == 0


def test_hundreds_of_rounds_leave_nothing_behind() -> None:
    """Resident memory grows by less than 1 MiB from round 100 to round 400.

    A leaked arena of 16 KiB a round would be 4.7 MiB.
    """
    tiny, model = TINY["wan"], TINY["wan"].build()
    resident = {}
    for round_ in range(1, 401):
        ak.patch(model, num_inference_steps=STEPS, **FORECAST)
        denoise(tiny, model, 1)
        assert arena_of(model).stats().mapped == 16 * KIB
        ak.unpatch(model)
        if round_ in (100, 400):
            gc.collect()
            resident[round_] = psutil.Process().memory_info().rss
    assert resident[400] - resident[100] < 2**20


def test_an_arena_and_a_budget_exclude_each_other() -> None:
    with ak.CacheArena("cpu", "1MiB") as arena:
        with pytest.raises(ValueError, match="an arena has a budget of its own"):
            patched("wan", arena=arena, max_cache_bytes="2MiB")
        with pytest.raises(TypeError, match="must be a CacheArena"):
            patched("wan", arena="1MiB")


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"max_cache_bytes": 0}, ValueError, "max_cache_bytes"),
        ({"max_cache_bytes": "2 apples"}, ValueError, "max_cache_bytes"),
        ({"max_cache_bytes": 1.5}, ValueError, "max_cache_bytes"),
        ({"cache_dtype": "int4"}, ValueError, "'int8', 'fp8'"),
        ({"over_budget": "int8"}, TypeError, "sequence"),
        ({"over_budget": ("int8", "disk")}, ValueError, "'disk'"),
        ({"over_budget": ("refuse", "int8")}, ValueError, "after 'refuse'"),
    ],
)
def test_wrong_settings(settings, error, match) -> None:
    with pytest.raises(error, match=match):
        ak.AdaCacheConfig(**settings)
