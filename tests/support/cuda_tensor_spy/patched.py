"""Doubles of what a patched model needs from a device: cache memory and decisions.

No kernel runs, so the test chooses what the device decides. Everything else in the package runs
unchanged, down to the ops and to the calls of the compiled mailbox.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from adacache_kernels import _native
from adacache_kernels.engine.residuals.host_flags import HostFlags
from adacache_kernels.memory import arena
from adacache_kernels.memory import torch_arena as plain_arena
from adacache_kernels.memory.torch_arena import TorchArena
from adacache_kernels.ops import State

Rate = Callable[[int], int]
"""Maps a computed step to the number of steps until the next one."""


class FakeKernels(TorchDispatchMode):
    """A mode that runs the package's ops as their fakes, and stores the result of `decide`.

    Args:
        rate: chooses the rate after a computed step.
    """

    def __init__(self, rate: Rate) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.state: list[float] = []
        self._rate = rate

    def __torch_dispatch__(
        self,
        op: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if op.namespace == "adacache":
            self.calls[op._opname] += 1
        if op is torch.ops.adacache.decide.default:
            names = (argument.name for argument in op._schema.arguments)
            self._decide(dict(zip(names, args, strict=False)))
        return op(*args, **(kwargs or {}))

    def _decide(self, given: dict[str, Any]) -> None:
        step, sequence = given["step"], float(given["sequence"])
        rate = self._rate(step) if given["has_previous"] else 1
        state = [0.0] * len(State)
        state[State.SEQUENCE] = state[State.SEQUENCE_AGAIN] = sequence
        state[State.STEP], state[State.RATE], state[State.NEXT_STEP] = step, rate, step + rate
        state[State.DISTANCE] = state[State.RAW_DISTANCE] = 0.1
        state[State.MOTION] = state[State.PREVIOUS_MOTION] = 1.0
        self.state = state


class NativeMailbox:
    """A double of `_C.Mailbox` on a device that has always just finished."""

    def __init__(self, kernels: FakeKernels) -> None:
        self._kernels = kernels
        self._messages: dict[int, list[float]] = {}

    def post(self, stream: int, address: int, sequence: int) -> None:
        self._messages[sequence] = list(self._kernels.state)

    def collect(self, sequence: int) -> tuple[list[float], float]:
        return self._messages.pop(sequence), 0.0


def _no_flag(flags: HostFlags) -> list[bool]:
    return [False] * flags._flags.numel()


@contextmanager
def fake_parts(rate: Rate = lambda step: 3) -> Iterator[FakeKernels]:
    """Put caches into fake tensors and let `rate` decide, inside `fake_cuda`."""
    kernels = FakeKernels(rate)
    native = _native.module()
    with (
        mock.patch.object(arena, "_make_arena", TorchArena),
        mock.patch.object(plain_arena, "_current_stream", lambda device: None),
        mock.patch.object(HostFlags, "_values", _no_flag),
        mock.patch.object(native, "Mailbox", lambda index: NativeMailbox(kernels), create=True),
        kernels,
    ):
        yield kernels
