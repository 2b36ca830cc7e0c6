"""Runs that change their inputs or are aborted, and pipelines in threads."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from tests.support.tiny_models.chained_models import VIDEOS
from tests.support.tiny_models.description import noise
from tests.support.tiny_pipelines.checks import EVERY_THIRD
from tests.support.tiny_pipelines.latte_and_wan import latte, run_latte, run_wan, wan

STEPS = 15
REUSING = {"codebook": {float("inf"): 3}, "num_inference_steps": STEPS}
CHRONO = VIDEOS["chronoedit"]


def call(model: nn.Module, frames: int, step: int) -> Tensor:
    x = noise(1, 4, frames, 8, 8, seed=step)
    with torch.no_grad():
        output: Tensor = model(return_dict=False, **CHRONO.inputs(x, step))[0]
    return output


@pytest.mark.filterwarnings("ignore:.*planned again")
@pytest.mark.parametrize("shapes", [(3, 2), (2, 3), (3, 2, 3), (1, 3)])
def test_the_sequence_becomes_shorter_or_longer_during_a_run(shapes: tuple[int, ...]) -> None:
    """ChronoEdit cuts its video to two frames: each part computes first and reuses later."""
    model = CHRONO.build()
    each = STEPS // len(shapes)
    frames = [shapes[min(step // each, len(shapes) - 1)] for step in range(STEPS)]
    plain = [call(model, count, step + 1) for step, count in enumerate(frames)]
    ak.patch(model, **REUSING)
    found = [call(model, count, step + 1) for step, count in enumerate(frames)]
    computed = set(ak.summary(model).computed_steps)
    changes = {1 + step for step in range(1, STEPS) if frames[step] != frames[step - 1]}
    assert changes | {1, STEPS - 1, STEPS} <= computed
    for step in range(1, STEPS + 1):
        assert torch.equal(found[step - 1], plain[step - 1]) == (step in computed)
    for start in {1, *changes}:
        assert set(range(start, start + each)) - computed, "no step of this part was reused"


def test_short_trajectories_one_after_another() -> None:
    """Each window of a longer video is a generation (diffusion forcing, Helios)."""
    pipe = wan()
    plain = [run_wan(pipe, steps) for steps in (6, 6, 9)]
    ak.patch(pipe, codebook=EVERY_THIRD)
    for steps in (6, 6, 9):
        run_wan(pipe, steps)
        summary = ak.summary(pipe)
        assert summary.num_steps == steps and summary.computed_steps[:2] == [1, 2]
        assert summary.computed_steps[-2:] == [steps - 1, steps] and summary.reused_steps
    ak.unpatch(pipe)
    assert all(map(torch.equal, plain, [run_wan(pipe, steps) for steps in (6, 6, 9)]))


class Stop(Exception):
    pass


def stopping(error: type[BaseException], at: int) -> Callable[..., Any]:
    def callback(pipe: Any, step: int, *_: Any) -> dict[str, Any]:
        if step == at:
            raise error
        return {}

    return callback


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
@pytest.mark.parametrize("at", [0, 2, 5])
@pytest.mark.parametrize("make, run", [(latte, run_latte), (wan, run_wan)], ids=["latte", "wan"])
def test_a_run_after_an_aborted_one(
    make: Any, run: Any, at: int, error: type[BaseException]
) -> None:
    """The callback of the pipeline raises between two steps."""
    pipe = ak.patch(make(), codebook=EVERY_THIRD)
    expected = run(pipe)
    schedule = ak.summary(pipe).computed_steps
    with pytest.raises(error):
        run(pipe, callback_on_step_end=stopping(error, at))
    assert torch.equal(run(pipe), expected)
    assert ak.summary(pipe).computed_steps == schedule


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_block_that_fails_once(index: int) -> None:
    pipe = ak.patch(wan(), codebook=EVERY_THIRD)
    expected = run_wan(pipe)
    calls = [0]

    def fail(*_: Any) -> None:
        calls[0] += 1
        if calls[0] == 5:
            raise Stop

    handle = pipe.transformer.blocks[index].register_forward_pre_hook(fail)
    with pytest.raises(Stop):
        run_wan(pipe)
    handle.remove()
    assert torch.equal(run_wan(pipe), expected)


def in_threads(*tasks: Callable[[], Any]) -> list[Any]:
    """Run the tasks in threads that start together; return results or errors, in order."""
    results: list[Any] = [None] * len(tasks)
    ready = threading.Barrier(len(tasks))

    def work(index: int) -> None:
        ready.wait()
        try:
            results[index] = tasks[index]()
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("shared", [False, True], ids=["own arenas", "one arena"])
def test_two_pipelines_in_two_threads(shared: bool) -> None:
    arena = {"arena": ak.CacheArena("cpu", "16MiB")} if shared else {}
    first = ak.patch(latte(), codebook=EVERY_THIRD, **arena)
    second = ak.patch(wan(), codebook=EVERY_THIRD, **arena)
    expected = run_latte(first), run_wan(second)
    for _ in range(3):
        found = in_threads(lambda: run_latte(first), lambda: run_wan(second))
        assert all(isinstance(video, Tensor) for video in found), found
        assert all(map(torch.equal, found, expected))
    ak.unpatch(first)
    ak.unpatch(second)


def test_a_pipeline_whose_patched_transformer_is_never_called() -> None:
    """The transformer is replaced after the patch, and a warning comes after a few steps."""
    pipe = wan()
    ak.patch(pipe, codebook={float("inf"): 3})
    patched, pipe.transformer = pipe.transformer, copy.deepcopy(pipe.transformer)
    with pytest.warns(ak.AdaCacheWarning, match="without a call of the patched transformer"):
        run_wan(pipe)
    pipe.transformer = patched
    run_wan(pipe)
    assert ak.summary(pipe).reused_steps
