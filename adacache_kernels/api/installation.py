"""Set the patch on the instance of a transformer, and remove it again."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import nn

from ..engine.cache_context import cache_context
from ..engine.router import Router
from ..messages import warn_user
from ..models import Adapter
from ..models.method_proxy import MethodProxy
from ..models.other_libraries.conflicting_patches import second_cache_error
from ..models.other_libraries.forward_wrappers import (
    forward_attributes,
    innermost_forward,
    own_forward,
)
from ..models.other_libraries.torch_compile import refuse_to_be_traced, uncompiled
from ..models.probe.own_errors import is_misread, misread_message
from .outside_blocks import OutsideBlocks, runs_patched_forward

INSTALLATION = "_adacache_installation"
"""The attribute of a patched transformer that contains its `Installation`."""


class PatchedForward(MethodProxy):
    """The forward of a patched model.

    Args:
        model: the transformer.
        router: runs the forward calls.
        give_up: removes the patch if the model is not what its adapter describes.
    """

    def __init__(self, model: nn.Module, router: Router, give_up: Callable[[], None]) -> None:
        super().__init__(own_forward(model))
        self._model = type(model).__name__
        self._give_up = give_up
        self._router: Router | None = router
        self._refuse = refuse_to_be_traced()
        self._busy = threading.Lock()
        self._thread: int | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run a forward call; it waits while one of another thread runs.

        Raises:
            RuntimeError: a call of the model is running further up in this thread, or
                `torch.compile` traces this one.
            ValueError: the model is not what its adapter describes. It is no longer patched.
        """
        if self._router is None:
            return self._original(*args, **kwargs)
        if torch.compiler.is_compiling():
            self._refuse()
        with self.alone("was called"), runs_patched_forward(self):
            if self._router is None:
                return self._original(*args, **kwargs)
            try:
                return self._router.forward(self._original, args, kwargs)
            except Exception as error:
                if not is_misread(error):
                    raise
                self._give_up()
                raise ValueError(misread_message(self._model, error)) from error

    @contextmanager
    def alone(self, event: str) -> Iterator[None]:
        """Exclude calls of the model while the context is entered.

        Calls of several threads wait for each other, because a step that is reused replaces the
        blocks of the model while it runs.

        Args:
            event: what happens to the model inside, for the message of the error.

        Raises:
            RuntimeError: a call of the model is running further up in this thread.
        """
        if self._thread == threading.get_ident():
            raise RuntimeError(
                f"this patched {self._model} {event} while a call of it was running further up in "
                "this thread, for example by a hook; call it after that call"
            )
        with self._busy:
            self._thread = threading.get_ident()
            try:
                yield
            finally:
                self._thread = None

    def retire(self) -> None:
        """Call the original from now on, even if other code still has this object."""
        self._router = None


class NamedContext(MethodProxy):
    """A model's own `cache_context`; it also names the guidance branch for this package."""

    @contextmanager
    def _entered(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
        own = cache_context(name, **_place_in(kwargs))
        with self._original(name, *args, **kwargs) as value, own:
            yield value

    def __call__(
        self, name: str, *args: Any, **kwargs: Any
    ) -> contextlib.AbstractContextManager[Any]:
        """Return the model's own context, entered together with the one of this package."""
        return self._entered(name, args, kwargs)


class RefusedCache(MethodProxy):
    """A model's own `enable_cache`; it refuses a second cache."""

    def __call__(self, config: Any = None, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Refuse a second cache.

        Raises:
            ValueError: always.
        """
        raise second_cache_error(config)


def _place_in(kwargs: dict[str, Any]) -> dict[str, int]:
    """Return the step and the number of steps that a pipeline gives, if they are numbers."""
    step, steps = kwargs.get("step_index"), kwargs.get("num_inference_steps")
    if type(step) is not int or type(steps) is not int or not 0 <= step < steps:
        return {}
    return {"step_index": step, "num_inference_steps": steps}


PROXIES: dict[str, type[MethodProxy]] = {
    "cache_context": NamedContext,
    "enable_cache": RefusedCache,
}
"""The methods, beside `forward`, that are replaced on a patched model."""


class Installation:
    """The patch on one transformer.

    Args:
        transformer: the transformer; the patch is set on it.
        router: runs its forward calls.
        found: its adapter, or the names of its block lists.
    """

    def __init__(
        self, transformer: nn.Module, router: Router, found: Adapter | Sequence[str]
    ) -> None:
        attributes = vars(transformer)
        self.router = router
        self._transformer = transformer
        self._forward = PatchedForward(transformer, router, self.give_up)
        self._proxies: dict[str, MethodProxy] = {}
        for name, kind in PROXIES.items():
            original = getattr(transformer, name, None)
            if callable(original):
                self._proxies[name] = kind(original)
        self._previous = {name: attributes[name] for name in self._proxies if name in attributes}
        # This comes first: if it fails, nothing is set on the model yet.
        self._outside_blocks = OutsideBlocks(transformer, found, self._warn_of_bypass)
        attribute = innermost_forward(transformer)
        self._was_unset = attribute.name == "forward" and attribute.value is None
        attribute.set(self._forward)
        attributes.update(self._proxies)
        attributes[INSTALLATION] = self

    def alone(self, event: str) -> contextlib.AbstractContextManager[None]:
        """Exclude calls of the model; see `PatchedForward.alone`."""
        return self._forward.alone(event)

    @property
    def is_bypassed(self) -> bool:
        """Return True if another library has set the model's forward, without the patch in it."""
        values = [attribute.value for attribute in forward_attributes(self._transformer)]
        return self._forward not in values and values[-1] in (None, self._forward._original)

    def warn_if_bypassed(self) -> None:
        """Warn the user if the model runs without the patch."""
        if self.is_bypassed:
            self._warn_of_bypass(
                "another library has set this model's forward since patch(), so the model runs "
                "without adacache_kernels; unpatch() and patch() it again, after that library"
            )

    def _warn_of_bypass(self, text: str) -> None:
        self.router.engine.user_warnings.warn(text, text)

    def give_up(self) -> None:
        """Remove the patch and release its memory, because the model cannot be read."""
        self.router.clock.detach()
        self.router.reset()
        self.remove()

    def remove(self) -> None:
        """Restore the model's own methods; warn if another library has wrapped one of them."""
        was_bypassed = self.is_bypassed
        self._forward.retire()
        self._outside_blocks.remove()
        attributes = vars(self._transformer)
        del attributes[INSTALLATION]
        if not (was_bypassed or self._remove_forward()):
            self._warn_wrapped("forward")
        for name, proxy in self._proxies.items():
            if attributes.get(name) is not proxy:
                self._warn_wrapped(name)
            elif name in self._previous:
                attributes[name] = self._previous[name]
            else:
                del attributes[name]

    def _remove_forward(self) -> bool:
        """Restore the model's own forward; return False if it is below an unknown wrapper."""
        ours = [
            attribute
            for attribute in forward_attributes(self._transformer)
            if attribute.value is self._forward
        ]
        for attribute in ours:
            is_the_instances = attribute.attributes is vars(self._transformer)
            if attribute.name == "forward" and self._was_unset and is_the_instances:
                attribute.clear()
            else:
                attribute.set(self._forward._original)
        return bool(ours)

    @staticmethod
    def _warn_wrapped(name: str) -> None:
        warn_user(
            f"another library has wrapped this model's {name} after patch(); its wrapper still "
            "calls through adacache_kernels, which passes the call on and does nothing else"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """Return None: a copy of a patched model is not patched."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle None: an unpickled model is not patched."""
        return type(None), ()


def router_of(transformer: nn.Module) -> Router | None:
    """Return the router of a patched transformer; None if it is not patched."""
    # The wrapper that torch.compile puts around a patched model is not patched itself.
    installation = vars(uncompiled(transformer)).get(INSTALLATION)
    return installation.router if isinstance(installation, Installation) else None


def installation_of(transformer: nn.Module) -> Installation:
    """Return the patch on a transformer that is patched."""
    installation = vars(uncompiled(transformer))[INSTALLATION]
    assert isinstance(installation, Installation)
    return installation
