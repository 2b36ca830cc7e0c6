"""What `patch` sets on a transformer's instance, and how it is taken off again."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import nn

from ..engine.base import AnyEngine
from ..engine.cache_context import cache_context
from ..models.method_proxy import MethodProxy
from ..models.other_libraries.conflicting_patches import refusal_of_another_cache
from ..models.other_libraries.forward_wrappers import (
    ForwardAttribute,
    innermost,
    own_forward,
    places,
)
from ..models.other_libraries.torch_compile import refuse_to_be_traced, uncompiled
from ..options import AdaCacheWarning

INSTALLATION = "_adacache_installation"


class PatchedForward(MethodProxy):
    """The forward of a patched model."""

    def __init__(self, model: nn.Module, engine: AnyEngine) -> None:
        super().__init__(own_forward(model))
        self._model = type(model).__name__
        self._engine: AnyEngine | None = engine
        self._refuse = refuse_to_be_traced()
        self._busy = threading.Lock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._engine is None:
            return self._original(*args, **kwargs)
        if torch.compiler.is_compiling():
            self._refuse()
        with self.alone("was called"):
            return self._engine.forward(self._original, args, kwargs)

    @contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """Nothing else may happen to the model inside.

        Raises:
            RuntimeError: a call of the model is running.
        """
        if not self._busy.acquire(blocking=False):
            raise RuntimeError(
                f"this patched {self._model} {what} while a call of it was running, in another "
                "thread or further up in this one; it caches one generation at a time, so give "
                "each thread a model of its own, patched by itself"
            )
        try:
            yield
        finally:
            self._busy.release()

    def use(self, engine: AnyEngine) -> None:
        """Go through this engine from now on."""
        self._engine = engine

    def retire(self) -> None:
        """Call the original from now on, wherever this object is still held."""
        self._engine = None


class NamedContext(MethodProxy):
    """A model's own `cache_context`, which names the branch for this package, too."""

    @contextmanager
    def _entered(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
        with self._original(name, *args, **kwargs) as value, cache_context(name):
            yield value

    def __call__(
        self, name: str, *args: Any, **kwargs: Any
    ) -> contextlib.AbstractContextManager[Any]:
        return self._entered(name, args, kwargs)


class RefusedCache(MethodProxy):
    """A model's own `enable_cache`, which says why not."""

    def __call__(self, config: Any = None, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise refusal_of_another_cache(config)


STANDING: dict[str, type[MethodProxy]] = {
    "cache_context": NamedContext,
    "enable_cache": RefusedCache,
}


class Installation:
    """What `patch` set on a transformer, and how it is taken off again."""

    def __init__(self, transformer: nn.Module, engine: AnyEngine) -> None:
        attributes = vars(transformer)
        self.engine = engine
        self._transformer = transformer
        self._forward = PatchedForward(transformer, engine)
        self._set: dict[str, MethodProxy] = {}
        for name, kind in STANDING.items():
            original = getattr(transformer, name, None)
            if callable(original):
                self._set[name] = kind(original)
        self._previous = {name: attributes[name] for name in self._set if name in attributes}
        place = innermost(transformer)
        self._is_first = place.name == "forward" and place.value is None
        place.put(self._forward)
        attributes.update(self._set)
        attributes[INSTALLATION] = self

    def use(self, engine: AnyEngine) -> None:
        """Go through this engine from now on."""
        self.engine = engine
        self._forward.use(engine)

    def alone(self, what: str) -> contextlib.AbstractContextManager[None]:
        """No call of the model may run inside; see `PatchedForward.alone`."""
        return self._forward.alone(what)

    @property
    def was_set_aside(self) -> bool:
        """Whether the model runs without the patch, for another library has set its forward."""
        values = [place.value for place in places(self._transformer)]
        return self._forward not in values and values[-1] in (None, self._forward._original)

    def say_if_set_aside(self) -> None:
        """Warn where nothing is reused for that reason."""
        if self.was_set_aside:
            warnings.warn(
                "another library has set this model's forward since patch(), so that it runs "
                "without adacache_kernels; unpatch() and patch() it again, after that library",
                AdaCacheWarning,
                stacklevel=3,
            )

    def remove(self) -> None:
        """Set back what was there, and warn where somebody else's wrapper lies on top."""
        was_set_aside = self.was_set_aside
        self._forward.retire()
        attributes = vars(self._transformer)
        del attributes[INSTALLATION]
        if not (was_set_aside or self._removed_forward()):
            self._warn_wrapped("forward")
        for name, ours in self._set.items():
            if attributes.get(name) is not ours:
                self._warn_wrapped(name)
            elif name in self._previous:
                attributes[name] = self._previous[name]
            else:
                del attributes[name]

    def _removed_forward(self) -> bool:
        """Whether it was found, below whatever lies on it."""
        found = [place for place in places(self._transformer) if place.value is self._forward]
        for place in found:
            if place.name == "forward" and self._is_first and self._is_the_instances(place):
                place.clear()
            else:
                place.put(self._forward._original)
        return bool(found)

    def _is_the_instances(self, place: ForwardAttribute) -> bool:
        return place.attributes is vars(self._transformer)

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

    def __reduce__(self) -> tuple[Any, ...]:
        """Nor is one that was pickled."""
        return type(None), ()


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
