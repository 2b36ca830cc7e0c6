"""What `patch` sets on a transformer's instance, and how it is taken off again."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import nn

from .compiled import refuse_to_be_traced, uncompiled
from .context import cache_context
from .probing import AnyEngine
from .types import AdaCacheWarning

INSTALLATION = "_adacache_installation"


class PatchedForward:
    """The forward of a patched model, set on the instance."""

    def __init__(self, model: nn.Module, engine: AnyEngine) -> None:
        self._model = model
        self._engine: AnyEngine | None = engine
        self._original = model.forward
        self._refuse = refuse_to_be_traced()
        functools.update_wrapper(self, self._original)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._engine is None:
            return self._original(*args, **kwargs)
        if torch.compiler.is_compiling():
            self._refuse()
        return self._engine.forward(self._original, args, kwargs)

    def use(self, engine: AnyEngine) -> None:
        """Go through this engine from now on."""
        self._engine = engine

    def retire(self) -> None:
        """Call the original from now on, wherever this object is still held."""
        self._engine = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        # The copy of a patched model is unpatched, and must not run the original's blocks.
        copy = memo.get(id(self._model), self._model)
        return MethodType(type(copy).forward, copy)


class NamedContext:
    """A model's own `cache_context`, which names the branch for this package, too."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._original: Callable[..., Any] = model.cache_context  # type: ignore[assignment]
        functools.update_wrapper(self, self._original)

    @contextmanager
    def _entered(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
        with self._original(name, *args, **kwargs) as value, cache_context(name):
            yield value

    def __call__(
        self, name: str, *args: Any, **kwargs: Any
    ) -> contextlib.AbstractContextManager[Any]:
        return self._entered(name, args, kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copy = memo.get(id(self._model), self._model)
        return MethodType(type(copy).cache_context, copy)


class Installation:
    """What `patch` set on a transformer, and how it is taken off again."""

    def __init__(self, transformer: nn.Module, engine: AnyEngine) -> None:
        attributes = vars(transformer)
        self.engine = engine
        self._attributes = attributes
        self._forward = PatchedForward(transformer, engine)
        self._set: dict[str, Any] = {"forward": self._forward}
        if callable(getattr(transformer, "cache_context", None)):
            self._set["cache_context"] = NamedContext(transformer)
        self._previous = {name: attributes[name] for name in self._set if name in attributes}
        attributes.update(self._set)
        attributes[INSTALLATION] = self

    def use(self, engine: AnyEngine) -> None:
        """Go through this engine from now on."""
        self.engine = engine
        self._forward.use(engine)

    def remove(self) -> None:
        """Set back what was there, and warn where somebody else's wrapper lies on top."""
        self._forward.retire()
        del self._attributes[INSTALLATION]
        for name, ours in self._set.items():
            if self._attributes.get(name) is not ours:
                self._warn_wrapped(name)
            elif name in self._previous:
                self._attributes[name] = self._previous[name]
            else:
                del self._attributes[name]

    @staticmethod
    def _warn_wrapped(name: str) -> None:
        warnings.warn(
            f"another library has wrapped this model's {name} after patch(); its wrapper still "
            "calls through adacache_kernels, which passes the call on and does nothing else",
            AdaCacheWarning,
            stacklevel=4,
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copy of a patched model is not patched."""
        return None


def engine_of(transformer: nn.Module) -> AnyEngine | None:
    """The engine of a patched transformer; None of one that is not patched."""
    # A wrapper that torch.compile has put around a patched model is not patched itself.
    installation = vars(uncompiled(transformer)).get(INSTALLATION)
    return installation.engine if isinstance(installation, Installation) else None


def installation_of(transformer: nn.Module) -> Installation:
    """What was set on a transformer that is patched."""
    installation = vars(uncompiled(transformer))[INSTALLATION]
    assert isinstance(installation, Installation)
    return installation
