"""A patched generation whose decisions come by the driver's mailbox, at a pace; a test runs it.

    python tests/protocol_script.py MODEL MOREG PACE...     prints a line of JSON for each pace

The model is on the CPU. The decide op is work of a stream of the fake driver: a kernel from Triton,
run as PTX when the stream comes to it, on a state in device memory. All else is the package's own.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import adacache_kernels as ak
from adacache_kernels import mailbox, meter, ops
from emulator import emulated
from fake_stream import FakeDevice, FakeStream
from tiny import TINY, denoise

STEPS = 50
SETTINGS = {"num_inference_steps": STEPS}


class StreamedOps:
    """The ops as the meter calls them; those on the state are work of a stream."""

    def __init__(self, device: FakeDevice, stream: FakeStream, pace: str) -> None:
        self._device, self._stream = device, stream
        self._random, self._is_random = random.Random(pace), "random" in pace

    def __getattr__(self, name: str) -> Any:
        return getattr(ops, name)

    def new_state(self, device: torch.device) -> Tensor:
        return self._device.tensor(ops.new_state("cpu"))

    def reset_state(self, state: Tensor) -> None:
        self._stream.put(lambda: ops.reset_state(state))

    def decide(self, state: Tensor, sums: Tensor, *arguments: Any, **options: Any) -> None:
        sums = sums.clone()
        if self._is_random and self._random.random() < 0.5:
            self._stream.dawdle()
        self._stream.put(lambda: on_triton(state, sums, *arguments, **options))


def on_triton(*arguments: Any, **options: Any) -> None:
    with mock.patch.dict(os.environ, {"ADACACHE_BACKEND": "triton"}):
        ops.decide(*arguments, **options)


class StreamMailbox(mailbox.NativeMailbox):
    """On a stream that torch does not know."""

    def __init__(self, stream: FakeStream) -> None:
        super().__init__(torch.device("cuda", 0))
        self._stream = stream

    def post(self, state: Tensor, sequence: int) -> None:
        self._native.post(self._stream.handle, state.data_ptr(), sequence)


@contextmanager
def on_stream(
    device: FakeDevice, stream: FakeStream, posted_on: FakeStream, pace: str
) -> Iterator[None]:
    with (
        emulated(90),
        torch.no_grad(),
        mock.patch.object(meter, "ops", StreamedOps(device, stream, pace)),
        mock.patch.object(meter, "make_mailbox", lambda *_: StreamMailbox(posted_on)),
    ):
        yield


def settings(name: str, moreg: bool) -> dict[str, Any]:
    """A codebook whose rates differ from step to step."""
    model = ak.patch(TINY[name].build(), codebook={1e9: 2}, apply_moreg=moreg, **SETTINGS)
    denoise(TINY[name], model, STEPS)
    found = sorted(d for d in ak.summary(model).distances if d is not None)
    return {"codebook": {found[len(found) // 2]: 4, 1e9: 2}, "apply_moreg": moreg, **SETTINGS}


def run(device: FakeDevice, name: str, chosen: dict[str, Any], pace: str) -> dict[str, Any]:
    """Two generations at a pace; with "misplaced:" before it, letters leave too early."""
    kind, _, rest = pace.partition(":")
    device.set("PACE", rest if kind == "misplaced" else pace)
    stream, other = device.stream(), device.stream()
    waits_before = device.driver.fakecuda_waits()
    with on_stream(device, stream, other if kind == "misplaced" else stream, pace):
        model = ak.patch(TINY[name].build(), **chosen)
        rows: list[Any] = []
        try:
            for _ in range(2):
                denoise(TINY[name], model, STEPS)
                found = ak.summary(model)
                rows.append([found.computed_steps, found.rates, len(found.waits)])
        except RuntimeError as error:
            return {"error": str(error)}
    return {"generations": rows, "waits": device.driver.fakecuda_waits() - waits_before}


def main() -> None:
    name, moreg, *paces = sys.argv[1:]
    chosen, device = settings(name, moreg == "moreg"), FakeDevice()
    model = ak.patch(TINY[name].build(), **chosen, decision="sync")
    denoise(TINY[name], model, STEPS)
    expected = ak.summary(model)
    print(json.dumps([expected.computed_steps, expected.rates]))
    for pace in paces:
        print(json.dumps(run(device, name, chosen, pace)), flush=True)
    assert device.driver.fakecuda_errors() == 0, device.driver.fakecuda_last_error()


if __name__ == "__main__":
    main()
