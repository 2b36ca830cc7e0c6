"""A forked child that generates gets an error, and never a signal (A10)."""

from __future__ import annotations

import multiprocessing
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from tests.support.arenas import KINDS, MIB, byte_spec, make_arena
from tests.support.forks import in_child
from tests.support.tiny_models.common_models import TINY, denoise

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="forks"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
]
STEPS = 6
WAN = TINY["wan"]
SETTINGS: dict[str, Any] = dict(codebook={9.0: 2}, num_inference_steps=STEPS)
FORK = r"this is a fork of that one"


def patched(**settings: Any) -> nn.Module:
    return ak.patch(WAN.build(), **(SETTINGS | settings))


def generated(model: nn.Module) -> Tensor:
    return denoise(WAN, model, STEPS)[-1]


@pytest.mark.parametrize(
    "settings",
    [{}, {"forecast": 2, "correct": True}, {"cache_dtype": "int8"}, {"decide_for": "branch"},
     {"over_budget": ("host",)}, {"schedule": (1, 3, 6)}, {"batch": "each"}],
)  # fmt: skip
def test_a_generation_in_a_child_is_an_error(settings: dict[str, Any]) -> None:
    model = patched(**settings)
    expected = generated(model)
    assert ak.summary(model).reused_steps

    def work() -> None:
        with pytest.raises(ak.ArenaError, match=FORK):
            generated(model)

    in_child(work)
    assert torch.equal(generated(model), expected)


@pytest.mark.parametrize("steps", range(1, STEPS))
def test_a_child_that_goes_on_with_a_generation_gets_an_error(steps: int) -> None:
    model, latents = patched(), WAN.noise(seed=0)

    def step(number: int) -> None:
        nonlocal latents
        with torch.no_grad():
            latents = latents - 0.05 * WAN.call(model, latents, number)

    def work() -> None:
        with pytest.raises(ak.ArenaError, match=FORK):
            for number in range(steps + 1, STEPS + 1):
                step(number)

    for number in range(1, steps + 1):
        step(number)
    if steps < STEPS - 1:  # The last step stores and reuses nothing.
        in_child(work)
    before = ak.summary(model).cache_bytes
    for number in range(steps + 1, STEPS + 1):
        step(number)
    assert before > 0 and ak.summary(model).reused_steps


def test_an_arena_of_the_user_in_a_child() -> None:
    arena = make_arena("virtual", 64 * MIB)
    model = ak.patch(WAN.build(), arena=arena, **SETTINGS)
    expected = generated(model)

    def work() -> None:
        for _ in range(2):
            with pytest.raises(ak.ArenaError, match=FORK):
                generated(model)
        assert arena.stats().budget == 64 * MIB and repr(arena)
        arena.close()
        ak.unpatch(model)
        with ak.CacheArena("cpu", 64 * MIB) as own:
            again = ak.patch(model, arena=own, **SETTINGS)
            assert torch.equal(generated(again), expected)

    in_child(work)
    assert torch.equal(generated(model), expected)
    arena.close()

    def after_close() -> None:
        with pytest.raises(ak.ArenaError):
            generated(model)

    in_child(after_close)


def test_a_model_that_has_not_run_is_patched_for_its_children() -> None:
    model, alone = patched(), patched()
    expected = generated(alone)
    in_child(lambda: torch.testing.assert_close(generated(model), expected))


def test_a_child_of_a_released_model_can_generate() -> None:
    model = patched()
    expected = generated(model)
    ak.reset(model)
    in_child(lambda: torch.testing.assert_close(generated(model), expected))
    ak.unpatch(model)
    in_child(lambda: ak.patch(model, **SETTINGS) and generated(model))


@pytest.mark.parametrize("kind", KINDS)
def test_a_lease_in_a_child(kind: str) -> None:
    arena = make_arena(kind)
    lease = arena.lease()
    (tensor,) = lease.tensors([byte_spec(MIB)])
    tensor.fill_(5)

    def work() -> None:
        for use in (
            lambda: lease.tensors([byte_spec(1)]),
            lambda: lease.replan([byte_spec(MIB)]),
            lambda: arena.lease(),
        ):
            with pytest.raises(ak.ArenaError, match=FORK):
                use()
        # A copy: what the child writes, its parent does not see.
        assert (tensor == 5).all()
        tensor.fill_(6)

    in_child(work)
    assert (tensor == 5).all()


def generate_in_worker(model: nn.Module, results: Any) -> None:
    try:
        generated(model)
    except ak.ArenaError as error:
        results.put(str(error))


def test_multiprocessing() -> None:
    model = patched()
    generated(model)
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    process = context.Process(target=generate_in_worker, args=(model, results))
    process.start()
    process.join(60)
    assert process.exitcode == 0 and "fork of that one" in results.get()


class Videos(torch.utils.data.Dataset[Tensor]):
    """A data set that generates its items with the model of its parent."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Tensor:
        return generated(self.model)


def test_workers_of_a_data_loader() -> None:
    model = patched()
    generated(model)
    loader = torch.utils.data.DataLoader(
        Videos(model), num_workers=1, multiprocessing_context="fork"
    )
    with pytest.raises(RuntimeError, match="Caught ArenaError in DataLoader worker") as error:
        list(loader)
    assert "fork of that one" in str(error.value)
