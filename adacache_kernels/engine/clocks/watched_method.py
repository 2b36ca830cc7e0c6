"""Watch the calls of one method of one object."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from ...models.method_proxy import MethodProxy

Action = Callable[[], None]


class WatchedMethod(MethodProxy):
    """A method that calls `after` after each of its calls; set on the instance, not on its class.

    Args:
        owner: the object.
        name: the name of the method.
        after: called after each call.
        action_of_copy: called when the object is copied. It returns what the method of the copy
            calls after each call, or None if the copy is not watched.
    """

    def __init__(
        self,
        owner: Any,
        name: str,
        after: Action,
        action_of_copy: Callable[[], Action | None] | None = None,
    ) -> None:
        # Pipelines read the signature to learn which arguments a scheduler takes.
        super().__init__(getattr(owner, name))
        self._owner, self._name, self._after = owner, name, after
        self._action_of_copy = action_of_copy
        self._was_on_instance = name in vars(owner)
        setattr(owner, name, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method, then `after`; return the result of the method."""
        result = self._original(*args, **kwargs)
        self._after()
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Return the method of the copied object, which does not call `after` of this one."""
        copied_owner = memo.get(id(self._owner))
        action = None if self._action_of_copy is None else self._action_of_copy()
        if copied_owner is None or action is None:
            return super().__deepcopy__(memo)
        watching = weakref.ref(self)

        def act_while_watching() -> None:
            original = watching()
            if original is not None and original.is_watching:
                action()

        return WatchedMethod(copied_owner, self._name, act_while_watching)

    @property
    def is_watching(self) -> bool:
        """Return True if this method is still set on the object."""
        return vars(self._owner).get(self._name) is self

    def remove(self) -> None:
        """Restore the method, unless other code has replaced this one."""
        if not self.is_watching:
            return
        if self._was_on_instance:
            setattr(self._owner, self._name, self._original)
        else:
            delattr(self._owner, self._name)
