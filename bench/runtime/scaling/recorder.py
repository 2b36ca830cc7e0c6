"""Record the collectives of this rank, and the messages that the hosts exchange."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from adacache_kernels.engine.ranks import ranks
from adacache_kernels.engine.ranks.collective_watch import NAMESPACES

Owner = Literal["model", "ours"]
OURS = "adacache_kernels.engine.ranks."
SILENT = ("wait_tensor", "_wrap_tensor_autograd")
"""Operators of these namespaces that send nothing."""
OUTPUT_FIRST = ("_allgather_base_", "alltoall_base_", "_reduce_scatter_base_")
"""In-place collectives whose first argument is the tensor that they write."""


@dataclass(frozen=True)
class Message:
    """One collective of this rank.

    Args:
        step: the step in which it ran, counted from 1.
        name: the operator.
        owner: "ours" if this package calls it, else "model".
        sent: bytes of the tensors that this rank gives to it.
    """

    step: int
    name: str
    owner: Owner
    sent: int


class Recorder(TorchDispatchMode):
    """A context that records every collective which runs inside it.

    The caller sets `step`. Collectives of other threads are not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.step = 0
        self.messages: list[Message] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operator, and record it if it is a collective."""
        name = str(getattr(func, "overloadpacket", func)).rpartition(".")[2]
        if getattr(func, "namespace", "") in NAMESPACES and name not in SILENT:
            given = args[1:] if name in OUTPUT_FIRST else args[:1]
            self.messages.append(Message(self.step, name, owner(), sum(map(_bytes, given))))
        return func(*args, **(kwargs or {}))


def owner() -> Owner:
    """Return whose code has called: the collectives of this package come from one folder."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(OURS):
            return "ours"
        frame = frame.f_back  # type: ignore[assignment]
    return "model"


def _bytes(value: object) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, list | tuple):
        return sum(map(_bytes, value))
    return 0


@dataclass(frozen=True)
class Meeting:
    """One exchange of messages between the hosts.

    Args:
        sent: characters of this rank's message.
        seconds: time until the messages of all ranks are there.
    """

    sent: int
    seconds: float


@contextmanager
def meetings() -> Iterator[list[Meeting]]:
    """Record the meetings of the hosts inside of this context."""
    found: list[Meeting] = []
    original: Callable[..., Any] = ranks.meet

    def meet(group: Any, message: Mapping[str, Any]) -> Any:
        with _disable_current_modes():  # A late rank is no long meeting; nothing records this.
            torch.distributed.barrier()
        start = time.perf_counter()
        messages = original(group, message)
        found.append(Meeting(len(json.dumps(message)), time.perf_counter() - start))
        return messages

    ranks.meet = meet
    try:
        yield found
    finally:
        ranks.meet = original
