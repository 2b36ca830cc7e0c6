"""Name the guidance branch of forward calls, and their place in the generation."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class NamedCall:
    """The name and the place that the caller gives to its forward calls.

    Args:
        name: the guidance branch.
        step_index: the step, counted from 0; None if it is not given.
        num_inference_steps: the steps of the generation; None if it is not given.
        generation: identifies the generation among those that run at the same time; None if it is
            not given.
    """

    name: str
    step_index: int | None = None
    num_inference_steps: int | None = None
    generation: Hashable = None


_CURRENT: ContextVar[NamedCall | None] = ContextVar("adacache_context", default=None)


def current_context() -> NamedCall | None:
    """Return the innermost `cache_context`; None outside of any."""
    return _CURRENT.get()


def leads_before(branch: str, leader: str) -> bool:
    """Return True if `branch` should decide instead of `leader`, judged by their names.

    A conditional branch leads before an unconditional one.
    """
    return _is_unconditional(leader) and not _is_unconditional(branch)


def _is_unconditional(branch: str) -> bool:
    return any(word in branch.lower() for word in ("uncond", "negative"))


@contextmanager
def cache_context(
    name: str,
    *,
    step_index: int | None = None,
    num_inference_steps: int | None = None,
    generation: Hashable = None,
) -> Iterator[None]:
    """Assign the forward calls inside to the guidance branch `name`.

    Each branch has its own residuals. On a bare model whose steps do not show otherwise, a step
    ends when a name comes again. In a loop of your own, `step_index` and `num_inference_steps`
    prove the step of a call. Several loops that take turns on one model need `generation` as well.

    Args:
        name: for example "cond" or "uncond".
        step_index: the step, counted from 0.
        num_inference_steps: the steps of the generation.
        generation: any hashable value that identifies the generation, such as the id of a request.

    Raises:
        TypeError: `name` is not a string, a number is not an integer, or `generation` is not
            hashable.
        ValueError: `name` is empty, `step_index` is negative or not below `num_inference_steps`.
    """
    if not isinstance(name, str):
        raise TypeError(f"cache_context takes a name such as 'cond'; it was given {name!r}")
    if not name:
        raise ValueError("cache_context takes a name such as 'cond'; it was given an empty one")
    _check_place(step_index, num_inference_steps)
    if not isinstance(generation, Hashable):
        raise TypeError(f"generation is {generation!r}; it must be hashable, such as a string")
    token = _CURRENT.set(NamedCall(name, step_index, num_inference_steps, generation))
    try:
        yield
    finally:
        _CURRENT.reset(token)


def _check_place(step_index: Any, num_inference_steps: Any) -> None:
    given = {"step_index": step_index, "num_inference_steps": num_inference_steps}
    for name, value in given.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise TypeError(f"{name} is {value!r}; it must be an integer")
    if step_index is not None and step_index < 0:
        raise ValueError(f"step_index is {step_index}; it counts from 0")
    if num_inference_steps is not None and num_inference_steps <= (step_index or 0):
        raise ValueError(
            f"num_inference_steps is {num_inference_steps}; it must be above step_index, "
            f"{step_index or 0}"
        )
