"""One forward call of a patched model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..models.block_calls import Parameters

Forward = Callable[..., Any]


class ForwardCall:
    """A forward call: the model's own forward, and the arguments that the caller gave.

    Args:
        original: the model's own forward.
        args: the positional arguments.
        kwargs: the named arguments.
        parameters: the names of the parameters of `original`.
    """

    def __init__(
        self,
        original: Forward,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        parameters: Parameters,
    ) -> None:
        self.args = args
        self.kwargs = kwargs
        self.arguments = parameters.bind(args, kwargs)
        self._original = original
        self._parameters = parameters

    def run(self) -> Any:
        """Call the model's own forward and return its output."""
        return self._original(*self.args, **self.kwargs)

    def with_inputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> ForwardCall:
        """Return a call of the same forward with other arguments."""
        return ForwardCall(self._original, args, kwargs, self._parameters)

    @cached_property
    def signature(self) -> object:
        """Return the shapes, dtypes, devices and switches. Stored residuals fit only the same."""
        return _signature_of(self.arguments)

    @property
    def device(self) -> torch.device:
        """Return the first device that is not the CPU, or the CPU. Timesteps may be on the CPU."""
        devices = [value.device for value in self.arguments.values() if isinstance(value, Tensor)]
        accelerators = (device for device in devices if device.type != "cpu")
        return next(accelerators, torch.device("cpu"))


def _signature_of(arguments: Mapping[str, Any]) -> object:
    return tuple((name, _trait_of(value)) for name, value in sorted(arguments.items()))


def _trait_of(value: object) -> object:
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype, value.device
    if isinstance(value, list | tuple):
        return tuple(map(_trait_of, value))
    if isinstance(value, Mapping):
        return _signature_of(value)
    # A number counts by its type only: it may be a timestep, which changes with every step.
    return value if isinstance(value, bool | str) else type(value)
