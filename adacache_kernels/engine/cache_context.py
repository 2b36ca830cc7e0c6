"""Name the guidance branch of forward calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_CURRENT: ContextVar[str | None] = ContextVar("adacache_context", default=None)


def current_context() -> str | None:
    """Return the name of the innermost `cache_context`; None outside of any."""
    return _CURRENT.get()


def leads_before(branch: str, leader: str) -> bool:
    """Return True if `branch` should decide instead of `leader`, judged by their names.

    A conditional branch leads before an unconditional one.
    """
    return _is_unconditional(leader) and not _is_unconditional(branch)


def _is_unconditional(branch: str) -> bool:
    return any(word in branch.lower() for word in ("uncond", "negative"))


@contextmanager
def cache_context(name: str) -> Iterator[None]:
    """Assign the forward calls inside to the guidance branch `name`.

    Each branch has its own residuals. On a bare model, a step ends when a name comes again.

    Args:
        name: for example "cond" or "uncond".

    Raises:
        TypeError: `name` is not a string.
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
