"""Replace a method on one instance, without a trace in its copies."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any


class MethodProxy:
    """A callable that replaces a method on one instance; it copies and pickles as that method.

    Args:
        original: the bound method that is replaced.
    """

    def __init__(self, original: Callable[..., Any]) -> None:
        # This comes first, because it copies all attributes of the original.
        functools.update_wrapper(self, original)
        self._original = original

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the original method."""
        return self._original(*args, **kwargs)

    def __get__(self, _instance: object, _owner: object = None) -> MethodProxy:
        """Return the proxy itself: it is bound already. cache-dit binds what it finds again."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Return a copy of the original method."""
        return copy.deepcopy(self._original, memo)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the original method."""
        return copy.copy, (self._original,)
