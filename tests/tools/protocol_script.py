"""Run patched generations with decisions on the driver stub; tests run it as a process.

    python -m tests.tools.protocol_script MODEL WHAT WAY...     prints a line of JSON for each way

WHAT is "plain", "moreg", or "two" for motion regularization of two videos in one batch.
The first line is the result of decision="sync". A way is a pace of the driver ("fast", "slow",
"random:3"), for decision="async" at that pace. With "misplaced:" before it, messages are copied too
early. "graph" is decision="graph". The model is on the CPU. The kernels that decide are compiled by
Triton and run as PTX: in the order of a stream, or between the graphs that the driver launches.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

import adacache_kernels as ak
from adacache_kernels import _native, ops
from adacache_kernels.engine.decision import decider, mailbox, step_graphs
from tests.support.cuda_driver_stub.emulated_device import FakeDevice
from tests.support.cuda_driver_stub.python_stream import FakeStream, put_on, tensor_on
from tests.support.ptx_emulator import emulated
from tests.support.tiny_models.common_models import TINY, denoise

STEPS = 50
SETTINGS = {"num_inference_steps": STEPS}


class TritonOps:
    """The ops of the package, with those in `names` replaced by Triton's kernels."""

    names = ("begin_step", "decide")

    def __getattr__(self, name: str) -> Any:
        return on_triton(name) if name in self.names else getattr(ops, name)


def on_triton(name: str) -> Callable[..., None]:
    def run(*arguments: Any, **options: Any) -> None:
        with mock.patch.dict(os.environ, {"ADACACHE_BACKEND": "triton"}):
            getattr(ops, name)(*arguments, **options)

    return run


class StreamedOps(TritonOps):
    """Ops whose work on the state goes to a stream; the state is in device memory."""

    def __init__(self, device: FakeDevice, stream: FakeStream, pace: str) -> None:
        self._device, self._stream = device, stream
        self._random, self._is_random = random.Random(pace), "random" in pace

    def new_state(self, device: torch.device) -> Tensor:
        return tensor_on(self._device, ops.new_state("cpu"))

    def reset_state(self, state: Tensor) -> None:
        self._stream.put(lambda: ops.reset_state(state))

    def decide(self, state: Tensor, sums: Tensor, *arguments: Any, **options: Any) -> None:
        sums = sums.clone()
        if self._is_random and self._random.random() < 0.5:
            self._stream.dawdle()
        self._stream.put(lambda: on_triton("decide")(state, sums, *arguments, **options))


class StreamMailbox(mailbox.NativeMailbox):
    """A mailbox on a stream that torch does not know."""

    def __init__(self, stream: FakeStream) -> None:
        super().__init__(torch.device("cuda", 0))
        self._stream = stream

    def post(self, state: Tensor, sequence: int) -> None:
        self._native.post(self._stream.handle, state.data_ptr(), sequence)


@dataclass
class DriverCapture:
    """A capture of graphs of the driver, each with one node: the forward in Python."""

    device: FakeDevice

    def record(self, run: Callable[[], None]) -> int:
        with self.device.captured() as (stream, graphs):
            put_on(self.device, stream, run)
        return graphs[0]

    def choose(self, flag: Tensor, taken: int, otherwise: int) -> DriverChoice:
        self.device.adopt(flag.numpy())
        graphs = (0, taken, otherwise)
        native = _native.module().ConditionalGraph(0, *graphs, flag.data_ptr())
        for graph in (taken, otherwise):
            self.device.call("cuGraphDestroy", ctypes.c_void_p(graph))
        return DriverChoice(self.device, native, self.device.stream())


@dataclass
class DriverChoice:
    device: FakeDevice
    native: Any
    stream: int

    def launch(self) -> None:
        self.native.launch(self.stream)
        self.device.synchronize(self.stream)  # Work outside the graph is not on the stream.


@contextmanager
def on_device(device: FakeDevice, way: str) -> Iterator[None]:
    kind, _, rest = way.partition(":")
    pace = {"misplaced": rest, "graph": "fast"}.get(kind, way)
    device.set_pace(pace)
    with ExitStack() as stack:
        stack.enter_context(emulated(90))
        patch = mock.patch.object
        if kind == "graph":
            stack.enter_context(patch(decider, "ops", TritonOps()))
            stack.enter_context(patch(step_graphs, "ops", TritonOps()))
            stack.enter_context(
                patch(step_graphs, "make_capture", lambda *_: DriverCapture(device))
            )
        else:
            stream = FakeStream(device)
            posted_on = FakeStream(device) if kind == "misplaced" else stream
            stack.enter_context(patch(decider, "ops", StreamedOps(device, stream, pace)))
            stack.enter_context(patch(decider, "make_mailbox", lambda *_: StreamMailbox(posted_on)))
        yield


def settings(name: str, what: str, batch: int) -> dict[str, Any]:
    """Return settings with a codebook whose rates differ from step to step."""
    chosen = SETTINGS | {"apply_moreg": what != "plain", "guidance_rows": 1}
    model = ak.patch(TINY[name].build(), codebook={1e9: 2}, **chosen)
    denoise(TINY[name], model, STEPS, batch)
    distances = sorted(d for d in ak.summary(model).distances if d is not None)
    # The threshold is between two distances, so rounding does not move a distance across it.
    middle = sum(distances[len(distances) // 2 :][:2]) / 2
    return chosen | {"codebook": {middle: 4, 1e9: 2}}


def run(
    device: FakeDevice, name: str, model: nn.Module, chosen: dict[str, Any], batch: int, way: str
) -> dict[str, Any]:
    """Run two generations, and return their results."""
    waits_before, device.ran[:] = device.driver.fakecuda_waits(), []
    decision: Any = "graph" if way == "graph" else "async"
    with on_device(device, way):
        ak.patch(model, **chosen, decision=decision)
        rows: list[Any] = []
        try:
            for _ in range(2):
                last = denoise(TINY[name], model, STEPS, batch)[-1]
                summary = ak.summary(model)
                video = last.double().sum().item()
                rows.append([summary.computed_steps, summary.rates, len(summary.waits), video])
        except RuntimeError as error:
            return {"error": str(error)}
        finally:
            ak.unpatch(model)
    waits = device.driver.fakecuda_waits() - waits_before
    return {"generations": rows, "waits": waits, "kernels": list(device.ran)}


def main() -> None:
    name, what, *ways = sys.argv[1:]
    batch = 2 if what == "two" else 1
    chosen, device = settings(name, what, batch), FakeDevice()
    model = ak.patch(TINY[name].build(), **chosen, decision="sync")
    # One model in all ways: in the same memory, videos are equal bit for bit.
    video = denoise(TINY[name], model, STEPS, batch)[-1].double().sum().item()
    expected = ak.summary(model)
    ak.unpatch(model)
    print(json.dumps([expected.computed_steps, expected.rates, video]))
    for way in ways:
        print(json.dumps(run(device, name, model, chosen, batch, way)), flush=True)
    assert device.driver.fakecuda_errors() == 0, device.driver.fakecuda_last_error()


if __name__ == "__main__":
    main()
