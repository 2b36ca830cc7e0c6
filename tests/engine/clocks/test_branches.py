"""Rules B1 to B6: which guidance branch a call belongs to."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
import torch
from torch import Tensor

from adacache_kernels.engine.cache_context import cache_context, current_context
from adacache_kernels.engine.clocks.branches import MOST_BRANCHES
from adacache_kernels.engine.clocks.step_clock import StepClock
from adacache_kernels.engine.evidence.call_evidence import CallEvidence
from adacache_kernels.engine.evidence.conditions import WINDOW, Conditions
from adacache_kernels.engine.evidence.tensor_identity import TensorIdentity
from tests.engine.clocks.calls import call, places

TEXT = torch.arange(6.0)
META = torch.ones(3, device="meta")


@dataclasses.dataclass
class Modality:
    latent: Tensor
    context: Tensor
    timesteps: Tensor


class Opaque:
    pass


OPAQUE = Opaque()


def test_unnamed_calls_are_told_apart_in_any_order() -> None:
    """B3."""
    clock, times = StepClock(), torch.linspace(900, 100, 4)
    texts = [torch.full((2,), float(i)) for i in range(3)]
    orders = [(0, 1, 2), (2, 0, 1), (1, 2, 0), (0, 2, 1)]
    calls = [
        call(clock, timestep=t, text=texts[i])
        for t, order in zip(times, orders, strict=True)
        for i in order
    ]
    assert [c.branch for c in calls] == [str(i) for order in orders for i in order]
    assert not any(c.reason or c.notice for c in calls)


def test_a_branch_that_is_left_out_and_comes_again() -> None:
    clock, times = StepClock(), torch.linspace(900, 100, 4)
    cond, uncond = torch.ones(2), torch.zeros(2)
    given = [(0, uncond), (0, cond), (1, cond), (2, uncond), (2, cond)]
    calls = [call(clock, timestep=times[i], text=text) for i, text in given]
    assert places(calls) == [(1, "0"), (1, "1"), (2, "1"), (3, "0"), (3, "1")]


def test_one_name_for_several_conditions() -> None:
    clock, times = StepClock(), torch.linspace(900, 100, 3)
    texts = [torch.full((2,), float(i)) for i in range(2)]
    calls = [call(clock, "cond", t, text) for t in times for text in texts]
    assert [c.branch for c in calls] == ["cond", "cond/1"] * 3
    assert not any(c.reason for c in calls)


def test_more_branches_than_a_generation_has_are_computed() -> None:
    """B6."""
    clock, times = StepClock(), torch.linspace(900, 100, 3)
    texts = [torch.full((2,), float(i)) for i in range(MOST_BRANCHES + 2)]
    calls = [call(clock, timestep=times[0], text=text) for text in texts]
    assert [c.reason is None for c in calls[-3:]] == [True, False, False]


SAME: dict[str, Callable[[], Any]] = {
    "the same tensor": lambda: TEXT,
    "equal values on the CPU": TEXT.clone,
    "the same memory": lambda: TEXT[:],
    "a tensor on a device": lambda: META,
    "a number": lambda: 0.5,
    "a list of tensors": lambda: [TEXT, TEXT.clone()],
    "a mapping": lambda: {"scale": 1.0, "mask": TEXT.clone(), "timestep": torch.rand(1)},
    "an object with equality": lambda: UUID(int=3),
    "the same object": lambda: OPAQUE,
    "a function made anew": lambda: lambda x: x,
    "a dataclass": lambda: Modality(torch.rand(2), TEXT.clone(), torch.rand(1)),
}


@pytest.mark.parametrize("make", SAME.values(), ids=SAME)
def test_conditions_that_are_the_same(make: Callable[[], Any]) -> None:
    conditions = Conditions({"x": torch.rand(2), "text": make(), "timestep": 1.0})
    given = {"x": torch.rand(2), "text": make(), "timestep": 2.0}
    assert conditions.difference(given) is None


OTHER: dict[str, tuple[Any, Any]] = {
    "other values": (TEXT, TEXT + 1),
    "another shape": (TEXT, TEXT[:3]),
    "another tensor on a device": (META, torch.ones(3, device="meta")),
    "another part of the memory": (META[:1], META[1:2]),
    "another number": (0.5, 0.25),
    "another type": (1, True),
    "nothing": (TEXT, None),
    "a shorter list": ([TEXT, TEXT], [TEXT]),
    "another entry": ({"scale": 1.0}, {"scale": 0.0}),
    "another key": ({"scale": 1.0}, {}),
    "another object": (OPAQUE, Opaque()),
    "an unequal object": (UUID(int=3), UUID(int=4)),
    "another context of a dataclass": (
        Modality(TEXT, TEXT, TEXT),
        Modality(TEXT, TEXT + 1, TEXT),
    ),
}


@pytest.mark.parametrize("before, now", OTHER.values(), ids=OTHER)
def test_conditions_that_differ(before: Any, now: Any) -> None:
    assert Conditions({"text": before}).difference({"text": now}) == "text"


@pytest.mark.parametrize("is_inference", [False, True])
def test_a_tensor_that_was_written(is_inference: bool) -> None:
    """An inference tensor does not count its writes; on the CPU, its values show them."""
    with torch.inference_mode(is_inference):
        text = torch.ones(3)
        conditions = Conditions({"text": text})
        assert conditions.difference({"text": text}) is None
        text[1] = 0
        assert conditions.difference({"text": text}) == "text"


def test_a_tensor_on_a_device_that_was_written() -> None:
    text = torch.ones(3, device="meta")
    conditions = Conditions({"text": text})
    text.add_(1)
    assert conditions.difference({"text": text}) == "text"


def test_only_a_tensor_that_does_not_count_its_writes_is_copied() -> None:
    for is_inference in (False, True):
        with torch.inference_mode(is_inference):
            text = torch.ones(3)
            values = TensorIdentity(text)._values
        assert values is not None and (values.data_ptr() != text.data_ptr()) is is_inference


@pytest.mark.parametrize("name", ["timestep", "timesteps_5d", "denoising_step", "sigmas", "t"])
def test_the_time_of_the_step_is_no_condition(name: str) -> None:
    assert Conditions({name: 1.0}).difference({name: 2.0}) is None


def test_windows_of_the_latents_differ_in_their_place() -> None:
    """B2."""
    video = torch.zeros(1, 4, 9, 2, 2)
    conditions = Conditions({"hidden_states": video[:, :, :3]})
    assert conditions.difference({"hidden_states": video.clone()[:, :, :3]}) is None
    assert conditions.difference({"hidden_states": video[:, :, 3:6]}) == WINDOW
    of_list = Conditions({"x": [video[:, :, :3], video[:, :, 3:6]]})
    assert of_list.difference({"x": [video[:, :, :3], video[:, :, 3:6]]}) is None
    assert of_list.difference({"x": [video[:, :, :3], video[:, :, 6:]]}) == WINDOW


def test_an_argument_that_is_missing() -> None:
    assert Conditions({"text": TEXT, "mask": TEXT}).difference({"text": TEXT}) == "mask"


def test_contexts_nest_and_end() -> None:
    def name() -> str | None:
        context = current_context()
        return None if context is None else context.name

    assert name() is None
    with cache_context("outer"):
        with cache_context("inner"):
            assert name() == "inner"
        assert name() == "outer"
    assert name() is None


@pytest.mark.parametrize(
    ("name", "more", "error", "match"),
    [
        ("", {}, ValueError, "takes a name"),
        (None, {}, TypeError, "takes a name"),
        ("a", {"step_index": 1.0}, TypeError, "step_index is 1.0"),
        ("a", {"step_index": -1}, ValueError, "step_index is -1"),
        ("a", {"step_index": 3, "num_inference_steps": 3}, ValueError, "above step_index, 3"),
        ("a", {"num_inference_steps": True}, TypeError, "num_inference_steps is True"),
        ("a", {"generation": []}, TypeError, "must be hashable"),
    ],
)
def test_wrong_contexts(name: Any, more: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match), cache_context(name, **more):
        pass


def test_the_evidence_of_a_call_reads_no_device() -> None:
    timestep = torch.linspace(900, 100, 5, device="meta")
    evidence = CallEvidence.of(None, {"timestep": timestep[2].expand(2)})
    assert evidence.time is None and evidence.place is not None
    assert (evidence.place.index, evidence.place.length) == (2, 5)
