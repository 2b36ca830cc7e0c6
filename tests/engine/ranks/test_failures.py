"""Ranks that fail, are late, or differ: an error on every rank that can raise one, and no hang."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

import adacache_kernels as ak
from tests.support.ranks import RankFailed, run_ranks
from tests.support.tiny_models.common_models import TINY

STEPS = 6
SHORT = timedelta(seconds=4)
WAN = TINY["wan"]


def patched(**settings: Any) -> nn.Module:
    model: nn.Module = WAN.build().eval()
    return ak.patch(model, num_inference_steps=STEPS, process_group=dist.group.WORLD, **settings)


def step(model: nn.Module, index: int) -> None:
    with torch.no_grad(), ak.cache_context("cond", step_index=index, num_inference_steps=STEPS):
        WAN.call(model, WAN.noise(), index + 1)


def error_of(model: nn.Module, first: int = 0) -> str:
    """Return type and text of the error of the steps from `first` on, and unpatch the model."""
    try:
        for index in range(first, STEPS):
            step(model, index)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
    else:
        text = "no error"
    ak.unpatch(model)
    step(model, 0)
    return text


DIFFERENT: Mapping[str, list[Mapping[str, Any]]] = {
    "rank 1 has codebook='slow' and rank 0 has codebook='fast'": [
        {"codebook": "fast"},
        {"codebook": "slow"},
    ],
    "rank 1 has schedule=[1, 3] and rank 0 has schedule=[1, 2]": [
        {"schedule": [1, 2]},
        {"schedule": [1, 3]},
    ],
    "rank 1 has metric='l2' and rank 0 has metric='l1'": [{"metric": "l1"}, {"metric": "l2"}],
}


def with_own_settings() -> list[str]:
    return [error_of(patched(**by_rank[dist.get_rank()])) for by_rank in DIFFERENT.values()]


def test_other_settings_are_named_on_every_rank() -> None:
    for texts in run_ranks(2, with_own_settings):
        for text, expected in zip(texts, DIFFERENT, strict=True):
            assert text.startswith("ValueError: ")
            assert expected in text
            assert "use the same versions, settings and files" in text


def with_another_torch() -> str:
    if dist.get_rank() == 1:
        torch.__version__ = "2.6.0"  # type: ignore[assignment]
    return error_of(patched())


def test_another_torch_is_named() -> None:
    for text in run_ranks(2, with_another_torch):
        assert "rank 1 has torch='2.6.0' and rank 0 has torch=" in text


def with_a_late_rank() -> str:
    if dist.get_rank() == 1:
        time.sleep(2)
    return error_of(patched())


def test_a_late_rank_is_waited_for() -> None:
    assert run_ranks(2, with_a_late_rank) == ["no error", "no error"]


def without_the_other_rank() -> tuple[str, float]:
    """Begin a generation that rank 1 never begins; return its error, and the seconds until it."""
    if dist.get_rank() == 1:
        return "", 0.0
    model = patched()
    begun = time.monotonic()
    return error_of(model), time.monotonic() - begun


def test_a_rank_that_never_comes_is_an_error_within_the_timeout_of_the_group() -> None:
    text, seconds = run_ranks(2, without_the_other_rank, timeout=SHORT)[0]
    assert text.startswith("RuntimeError: the ranks [0, 1]")
    # Within the timeout, and the time of a few forward calls on a busy machine.
    assert SHORT.total_seconds() <= seconds < SHORT.total_seconds() + 60


def with_a_dead_rank() -> str:
    model = patched()
    step(model, 0)
    if dist.get_rank() == 1:
        os._exit(1)
    return error_of(model, first=1)


def test_a_dead_rank_is_an_error_on_the_others() -> None:
    text = first_of(with_a_dead_rank)
    assert "could not agree on the next computed step" in text
    assert "Look for an error of another rank" in text


def first_of(function: Any) -> str:
    """Return what rank 0 returns, although rank 1 dies."""
    results = run_ranks(2, function, timeout=timedelta(seconds=20), may_die=True)
    assert isinstance(results[1], RankFailed)
    return str(results[0])


def with_a_destroyed_group() -> str:
    model = patched()
    step(model, 0)
    dist.barrier()
    dist.destroy_process_group()
    return error_of(model, first=1)


def test_a_group_that_was_destroyed_is_an_error() -> None:
    for text in run_ranks(2, with_a_destroyed_group):
        assert text.startswith("RuntimeError: ")
        assert "the process group was destroyed" in text


def with_a_failing_rank() -> list[str]:
    """Lose the residuals of one rank by an error, and begin again on both."""
    model = patched()
    texts = []
    try:
        step(model, 0)
        if dist.get_rank() == 1:
            raise MemoryError
    except MemoryError:
        texts.append("error")
    ak.reset(model)
    texts.append(error_of(model))
    return texts


def test_the_next_generation_works_after_an_error_of_one_rank() -> None:
    assert run_ranks(2, with_a_failing_rank) == [["no error"], ["error", "no error"]]


def wrong_group(value: Any) -> None:
    ak.patch(WAN.build().eval(), num_inference_steps=STEPS, process_group=value)


def test_a_wrong_group_is_refused() -> None:
    with pytest.raises(TypeError, match=r"process_group is 3, expected a torch.distributed.Proc"):
        wrong_group(3)
    with pytest.raises(ValueError, match="process_group has the role 'tokens'; expected 'shards'"):
        wrong_group({"tokens": None})
