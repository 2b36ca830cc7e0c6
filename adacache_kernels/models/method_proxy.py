"""What is set on an instance in the place of one of its methods."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any


class MethodProxy:
    """Stands on an instance for one of its methods; what is copied or pickled is that method."""

    def __init__(self, original: Callable[..., Any]) -> None:
        # First, for it takes over all attributes of what it wraps.
        functools.update_wrapper(self, original)
        self._original = original

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._original(*args, **kwargs)

    def __get__(self, _instance: object, _owner: object = None) -> MethodProxy:
        """Bound already, as the method is; cache-dit binds again what it has found."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self._original, memo)

    def __reduce__(self) -> tuple[Any, ...]:
        return copy.copy, (self._original,)
