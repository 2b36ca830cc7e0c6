"""The ops in opcheck, torch.compile, fake tensors and meta tensors, on each backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck

from adacache_kernels import ops
from adacache_kernels.ops.decide_settings import DecideStep, flatten
from tests.support.op_checks.operands import assert_same_bits
from tests.support.ptx_emulator import emulated

SETTINGS = ops.DecideSettings()


def arguments_of_each_op() -> list[tuple[str, tuple[Any, ...]]]:
    slot, x_out, x_in = (torch.randn(2, 3, 4, 5) for _ in range(3))
    one = torch.ones(1, dtype=torch.int32)
    decision = (
        ops.new_state("cpu"),
        torch.rand(2, 2, 3, 5),
        torch.tensor([[0.1, 0.2], [3.0, 2.0]]),
    )
    clock, ones = torch.tensor([3.0, 1.0, 1.0]), torch.ones(2)
    codes, scale = torch.ones(2, 3, 4, 5, dtype=torch.int8), torch.ones(2, 3, 4, 1)
    quantised = [codes, x_out]
    moreg, l2 = ops.DecideSettings(apply_moreg=True), ops.DecideSettings("l2")
    mean = ops.DecideSettings(apply_moreg=True, batch="mean")
    return [
        (
            "distance_update",
            (slot.clone(), x_out, x_in, [], None, [1, 2], "l1", "previous", None, []),
        ),
        (
            "distance_update",
            (slot.clone(), x_out, x_in, [x_in], torch.ones(2), [1, 2], "l1", "previous", None, []),
        ),
        (
            "distance_update",
            (slot.clone(), x_out, x_in, [x_in], torch.ones(1), [], "l2", "nothing", None, []),
        ),
        (
            "distance_update",
            (slot.bfloat16(), x_out.bfloat16(), None, [], None, [], "cosine", "nothing", None, []),
        ),
        ("distance_update", (codes, x_out, x_in, [], None, [1], "l1", "previous", scale, [])),
        (
            "distance_update",
            (
                codes,
                x_out,
                None,
                [codes.clone()],
                None,
                [],
                "l1",
                "nothing",
                scale,
                [scale.clone()],
            ),
        ),
        ("residual_update", (slot.clone(), x_out, x_in)),
        ("conditional_add", (slot.clone(), slot, [x_out, x_in], [None] * 2, torch.ones(2), one)),
        (
            "conditional_add",
            (slot.half(), x_in.half(), [x_out.half()], [None], torch.ones(1), 0 * one),
        ),
        (
            "conditional_add",
            (slot, x_in, quantised, [torch.ones(2, 3, 4, 1), None], torch.ones(2), one),
        ),
        ("decide", (*decision, *flatten(moreg, DecideStep(3, in_window=True)))),
        ("decide", (*decision, *flatten(l2, DecideStep(3, has_previous=False, sequence=7)))),
        ("decide", (*decision, *flatten(moreg, DecideStep(0, sequence=7, clock=clock)))),
        ("decide", (*decision, *flatten(mean, DecideStep(3, videos=2, motions=ones)))),
        ("begin_step", (clock.clone(), torch.zeros(2, dtype=torch.int32), decision[0], 3, 9, 1, 4)),
    ]


@pytest.mark.parametrize("case", range(len(arguments_of_each_op())))
def test_opcheck(case: int) -> None:
    name, arguments = arguments_of_each_op()[case]
    opcheck(getattr(torch.ops.adacache, name).default, arguments)


def a_step(
    slot: Tensor, x_out: Tensor, x_in: Tensor, state: Tensor, codebook: Tensor
) -> tuple[Tensor, Tensor]:
    sums = ops.distance_update(slot, x_out, x_in, strides=(1, 2), metric="l2")
    settings = ops.DecideSettings("l2", apply_moreg=True)
    ops.decide(state, sums.unsqueeze(0), codebook, settings, 3, in_window=True)
    ops.residual_update(slot, x_out, x_in)
    on = torch.ones(1, dtype=torch.int32)
    out = ops.conditional_add(x_in, [slot], torch.ones(1), on)
    ops.conditional_add(x_out, [slot], torch.ones(1), on, out=x_out)
    return sums, out


def arguments_of_a_step() -> list[Tensor]:
    tensors = [torch.randn(2, 4, 3, 5) for _ in range(3)]
    return [*tensors, ops.new_state("cpu"), torch.tensor([[0.1, 0.2], [3.0, 2.0]])]


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile(backend: str) -> None:
    eager = arguments_of_a_step()
    compiled = [argument.clone() for argument in eager]
    expected = a_step(*eager)
    actual = torch.compile(a_step, fullgraph=True, backend=backend)(*compiled)
    for a, b in zip([*actual, *compiled], [*expected, *eager], strict=True):
        assert_same_bits(a, b)


def test_meta_and_fake_tensors() -> None:
    meta = [argument.to("meta") for argument in arguments_of_a_step()]
    sums = ops.distance_update(*meta[:3], strides=(1, 2))
    assert (sums.device.type, sums.shape, sums.dtype) == ("meta", (2, 1, 7), torch.float32)
    ops.decide(meta[3], sums[None], meta[4], SETTINGS, 3)
    ops.residual_update(*meta[:3])
    with FakeTensorMode() as mode:
        sums, out = a_step(*(mode.from_tensor(argument) for argument in arguments_of_a_step()))
    assert (sums.shape, out.shape) == ((2, 1, 7), (2, 4, 3, 5))


def test_fake_cuda_tensors() -> None:
    """torch.compile traces these on a machine without a GPU: one partial sum for each program."""
    torch._C._ensureCUDADeviceGuardSet()
    with FakeTensorMode(), torch.device("cuda"):
        arguments = [torch.empty(2, 4, 300, 512, dtype=torch.bfloat16) for _ in range(3)]
        sums, _ = a_step(*arguments, torch.empty(10), torch.empty(2, 2))
    # A small sample: 300 * 512 columns; a program takes 64 groups of 8.
    assert (sums.device.type, sums.shape) == ("cuda", (2, 300, 7))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile_on_triton(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADACACHE_BACKEND", "triton")
    torch._dynamo.reset()
    eager = arguments_of_a_step()
    compiled = [argument.clone() for argument in eager]
    with emulated(90):
        expected = a_step(*eager)
        actual = torch.compile(a_step, fullgraph=True, backend=backend)(*compiled)
    for a, b in zip([*actual, *compiled], [*expected, *eager], strict=True):
        assert_same_bits(a, b)


@pytest.mark.parametrize("case", range(len(arguments_of_each_op())))
def test_opcheck_on_triton(case: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADACACHE_BACKEND", "triton")
    name, arguments = arguments_of_each_op()[case]
    with emulated(90):
        opcheck(getattr(torch.ops.adacache, name).default, arguments)
