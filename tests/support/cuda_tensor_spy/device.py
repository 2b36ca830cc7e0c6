"""`fake_cuda`: make tensors on a CUDA device that does not exist.

The tensors have shapes and dtypes but no values. Code that needs a value raises; all other Python
code runs unchanged. `torch.cuda` has one device, with streams and events that are done at once.
Waits are recorded by `waits.note`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from .guard import install_guard
from .waits import note

GiB = 2**30


class _Mode(FakeTensorMode):
    """A mode that does not initialise the device, although `torch.cuda` reports one."""

    @property
    def avoid_device_init(self) -> bool:
        return True


class Event:
    """An event that is done at once."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def record(self, stream: Stream | None = None) -> None:
        """Do nothing: there is no work to wait for."""

    def wait(self, stream: Stream | None = None) -> None:
        """Do nothing: the device waits, not the host."""

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        note("Event.synchronize")


class Stream:
    """The only stream of the device."""

    cuda_stream = 0

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def record_event(self, event: Event | None = None) -> Event:
        return event or Event()

    def wait_event(self, event: Event) -> None:
        """Do nothing: the device waits, not the host."""

    def wait_stream(self, stream: Stream) -> None:
        """Do nothing: the device waits, not the host."""

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        note("Stream.synchronize")


def _doubles() -> dict[str, Any]:
    """Return the doubles of functions and classes of `torch.cuda`."""
    stream = Stream()
    return {
        "Event": Event,
        "Stream": Stream,
        "current_device": lambda: 0,
        "current_stream": lambda device=None: stream,
        "default_stream": lambda device=None: stream,
        "device": lambda device: nullcontext(),
        "device_count": lambda: 1,
        "empty_cache": lambda: None,
        "get_device_capability": lambda device=None: (9, 0),
        "is_available": lambda: True,
        "is_current_stream_capturing": lambda: False,
        "mem_get_info": lambda device=None: (64 * GiB, 80 * GiB),
        "stream": lambda stream: nullcontext(),
        "synchronize": lambda device=None: note("torch.cuda.synchronize"),
    }


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Make tensors without values inside, also on cuda:0.

    Tensors from outside are used as tensors of their own device without values. The default device
    stays the CPU, as on a machine with a GPU.
    """
    install_guard()
    with ExitStack() as stack:
        for name, double in _doubles().items():
            stack.enter_context(mock.patch.object(torch.cuda, name, double))
        stack.enter_context(_Mode(allow_non_fake_inputs=True))
        yield


def to_fake_cuda(module: nn.Module) -> nn.Module:
    """Move the module's parameters and buffers to cuda:0, inside `fake_cuda`; return the module.

    `Module.to` cannot do this: it swaps tensors, which fake tensors do not allow.
    """
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(_like(parameter), parameter.requires_grad)
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else _like(buffer)
    return module


def _like(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
