"""Call, unpatch or reset a model from another thread while a forward runs."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from tests.api.tiny_wan import COMPUTED, EVERY_THIRD, STEPS, build, patch, run
from tests.support.rounding import close
from tests.support.tiny_models.common_models import TINY
from tests.support.tiny_pipelines.latte_and_wan import run_wan
from tests.support.tiny_pipelines.latte_and_wan import wan as wan_pipeline

LONG = 30.0
TWICE = r"WanTransformer3DModel {} while a call of it was running further up in this thread"


@contextmanager
def held(model: nn.Module, module: nn.Module, call: int) -> Iterator[list[Tensor]]:
    """Stop a run of the model, in another thread, in a call of `module` until the context ends."""
    found: list[Tensor] = []
    calls, inside, go_on = [0], threading.Event(), threading.Event()

    def wait(*_: Any) -> None:
        calls[0] += 1
        if calls[0] == call:
            inside.set()
            assert go_on.wait(LONG)

    handle = module.register_forward_pre_hook(wait)
    thread = threading.Thread(target=lambda: found.append(run(model)))
    thread.start()
    try:
        assert inside.wait(LONG)
        yield found
    finally:
        go_on.set()
        thread.join(LONG)
        handle.remove()


@pytest.mark.parametrize("call", [2, 3])
def test_a_second_thread_waits_and_each_makes_its_own_video(call: int) -> None:
    """The first run stops in a computed step, or in a reused one; the second one waits for it."""
    model = patch(build())
    expected = run(model)
    second: list[Tensor] = []
    with held(model, model.norm_out, call) as found:
        thread = threading.Thread(target=lambda: second.append(run(model)))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive() and not second
        assert ak.is_patched(model)
    thread.join(LONG)
    assert torch.equal(found[0], expected) and torch.equal(second[0], expected)
    ak.unpatch(model)
    assert close(run(model), run(build()))


def test_a_model_that_calls_itself_is_refused() -> None:
    model = patch(build())
    tiny = TINY["wan"]
    handle = model.blocks[1].register_forward_pre_hook(
        lambda *_: tiny.call(model, tiny.noise(), 1) and None
    )
    with pytest.raises(RuntimeError, match=TWICE.format("was called")):
        run(model)
    handle.remove()
    run(model)
    assert ak.summary(model).computed_steps == COMPUTED


def test_a_refused_unpatch_of_two_experts_leaves_both_patched() -> None:
    from tests.support.tiny_pipelines.two_experts import experts

    pipe = ak.patch(experts())
    seen = []

    def unpatch(*_: Any) -> None:
        with pytest.raises(RuntimeError, match=TWICE.format("was unpatched")):
            ak.unpatch(pipe)
        seen.append(ak.is_patched(pipe.transformer) and ak.is_patched(pipe.transformer_2))

    handle = pipe.transformer_2.norm_out.register_forward_pre_hook(unpatch)
    run_wan(pipe)
    handle.remove()
    assert seen and all(seen)
    ak.unpatch(pipe)


def test_threads_with_a_copy_each_return_the_same_as_one_alone() -> None:
    """Copies of a patched model are not patched; each is patched, with one arena for all."""
    original = patch(build())
    expected = run(original)
    arena = ak.CacheArena("cpu", "16MiB")
    models = [copy.deepcopy(original) for _ in range(3)]
    for model in models:
        ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS, arena=arena)
    for _ in range(3):
        assert all(close(video, expected) for video in run_in_threads(run, models))
    assert all(ak.summary(model).computed_steps == COMPUTED for model in models)
    for model in models:
        ak.unpatch(model)
    assert arena.stats().mapped == 0


def run_in_threads(run: Callable[[Any], Tensor], models: list[Any]) -> list[Tensor]:
    found: list[Any] = [None] * len(models)
    start = threading.Barrier(len(models))

    def work(index: int) -> None:
        start.wait(LONG)
        found[index] = run(models[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(models))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert all(isinstance(video, Tensor) for video in found)
    return found


def test_a_scheduler_copied_for_another_thread_ends_no_steps_here() -> None:
    """While the first pipeline is inside a step, the other one runs all of its steps."""
    pipe, other = ak.patch(wan_pipeline(), codebook=EVERY_THIRD), wan_pipeline()
    expected, schedule = run_wan(pipe), ak.summary(pipe).computed_steps
    other.scheduler = copy.deepcopy(pipe.scheduler)
    calls = [0]

    def run_the_other(*_: Any) -> None:
        calls[0] += 1
        if calls[0] in (2, 7):
            thread = threading.Thread(target=run_wan, args=(other,))
            thread.start()
            thread.join(LONG)

    handle = pipe.transformer.norm_out.register_forward_pre_hook(run_the_other)
    assert torch.equal(run_wan(pipe), expected)
    handle.remove()
    assert calls[0] > 7 and ak.summary(pipe).computed_steps == schedule
