"""Remember the conditions of a forward call: prompts, masks, controls, guidance, windows.

A stored residual is valid only for a call with the same conditions. Two arguments are no condition,
because they change with every step: the latents and the timestep.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from torch import Tensor

from .tensor_identity import TensorIdentity

LATENTS = frozenset(
    {
        "hidden_states",
        "audio_hidden_states",
        "vision_tokens",
        "sound_tokens",
        "latents",
        "latent",
        "latent_model_input",
        "noisy_latents",
        "sample",
        "x",
        "img",
        "argument 0",
    }
)
"""Arguments with the latents of the step. A forward of `*args` has no names, but models take the
latents first and the timestep second."""
TIMES = ("timestep", "sigma", "step", "time")
"""Parts of the names of arguments with the time of the step."""
SHORT_TIMES = frozenset({"t", "r", "argument 1"})


def is_time(name: str) -> bool:
    """Return True if an argument of this name changes with every step."""
    return name in SHORT_TIMES or any(part in name.lower() for part in TIMES)


class Token(Protocol):
    """The memory of one value."""

    def matches(self, value: object) -> bool:
        """Return True if `value` is the remembered one."""


class Conditions:
    """The conditions of one forward call.

    Args:
        arguments: the arguments of the call, by parameter name.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self._tokens = {name: _remember(value) for name, value in _conditions_in(arguments)}
        self._window = _window_of(arguments)

    def difference(self, arguments: Mapping[str, Any]) -> str | None:
        """Return the name of an argument that differs; None if all conditions are the same."""
        if self._window != _window_of(arguments):
            return WINDOW
        count = 0
        for name, value in _conditions_in(arguments):
            token = self._tokens.get(name)
            if token is None or not token.matches(value):
                return name
            count += 1
        if count == len(self._tokens):
            return None
        return next(iter(set(self._tokens) - {name for name, _ in _conditions_in(arguments)}))


WINDOW = "the window of the latents"
"""The name of the difference of two calls with other parts of the same latents."""


def _conditions_in(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in arguments.items():
        if name not in LATENTS and not is_time(str(name)):
            yield name, value


def _window_of(arguments: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the places of the latents in their storages: windows of one video differ in them."""
    latents = [arguments[name] for name in sorted(LATENTS & arguments.keys())]
    return tuple(int(x.storage_offset()) for value in latents for x in _tensors_in(value))


def _tensors_in(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        yield from (x for x in value if isinstance(x, Tensor))


@dataclasses.dataclass(frozen=True)
class _Equal:
    """A plain value."""

    value: object

    def matches(self, value: object) -> bool:
        return type(value) is type(self.value) and bool(value == self.value)


class _SameObject:
    """An object of a class that is not known: the same object is the same condition."""

    def __init__(self, value: object) -> None:
        self._class = type(value)
        try:
            self._reference: Callable[[], object] = weakref.ref(value)
        except TypeError:
            self._reference = lambda: value

    def matches(self, value: object) -> bool:
        return self._reference() is value


class _Function:
    """A function: its name counts, because callers often make the function anew."""

    def __init__(self, value: object) -> None:
        self._name = _name_of(value)

    def matches(self, value: object) -> bool:
        return callable(value) and _name_of(value) == self._name


class _Items:
    """A list or a tuple."""

    def __init__(self, values: list[Any] | tuple[Any, ...]) -> None:
        self._tokens = [_remember(value) for value in values]

    def matches(self, value: object) -> bool:
        if not isinstance(value, list | tuple) or len(value) != len(self._tokens):
            return False
        return all(token.matches(x) for token, x in zip(self._tokens, value, strict=True))


class _Mapping:
    """A mapping, or a dataclass by its fields."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._conditions = Conditions(values)

    def matches(self, value: object) -> bool:
        values = _mapping_of(value)
        return values is not None and self._conditions.difference(values) is None


def _remember(value: Any) -> Token:
    if isinstance(value, Tensor):
        return TensorIdentity(value)
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return _Equal(value)
    if isinstance(value, list | tuple):
        return _Items(value)
    mapping = _mapping_of(value)
    if mapping is not None:
        return _Mapping(mapping)
    if callable(value) and hasattr(value, "__qualname__"):
        return _Function(value)
    return _Equal(value) if _has_own_equality(type(value)) else _SameObject(value)


def _has_own_equality(cls: Any) -> bool:
    return cls.__eq__ is not object.__eq__ and cls.__hash__ is not None


def _mapping_of(value: object) -> Mapping[str, Any] | None:
    if isinstance(value, Mapping):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return None


def _name_of(value: object) -> tuple[object, object]:
    return getattr(value, "__module__", None), getattr(value, "__qualname__", None)
