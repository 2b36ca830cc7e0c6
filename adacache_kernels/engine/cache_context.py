"""Named cache contexts: which branch of guidance a forward call belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_CURRENT: ContextVar[str | None] = ContextVar("adacache_context", default=None)


def current_context() -> str | None:
    """Name of the innermost `cache_context`, None outside of any."""
    return _CURRENT.get()


def leads_before(branch: str, leader: str) -> bool:
    """Whether the branch `branch` should decide in place of `leader`: a conditional one, by its
    name, in place of an unconditional one."""
    return _is_unconditional(leader) and not _is_unconditional(branch)


def _is_unconditional(branch: str) -> bool:
    return any(word in branch.lower() for word in ("uncond", "negative"))


@contextmanager
def cache_context(name: str) -> Iterator[None]:
    """Forward calls inside belong to the branch `name`, for example "cond" and "uncond".

    Each branch has residuals of its own. On a bare model, a step ends when a name comes again.

    Raises:
        TypeError: `name` is no string.
        ValueError: `name` is empty.
    """
    if not isinstance(name, str):
        raise TypeError(f"cache_context takes a name such as 'cond'; it was given {name!r}")
    if not name:
        raise ValueError("cache_context takes a name such as 'cond'; it was given an empty one")
    token = _CURRENT.set(name)
    try:
        yield
    finally:
        _CURRENT.reset(token)
