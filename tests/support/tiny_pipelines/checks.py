"""Checks of a pipeline's run: its steps, its latents against the oracle, its interruption."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torch import Tensor

import adacache_kernels as ak
from tests.support.oracles.pipeline_residual import stored_blocks
from tests.support.oracles.two_residuals_per_block import relative

ALWAYS = {float("inf"): 1}
"""A codebook that computes every step."""
EVERY_THIRD = {float("inf"): 3}
"""A codebook that computes every third step, the first two and the last two."""


def every_third(steps: int) -> list[int]:
    """Return the steps that `EVERY_THIRD` computes."""
    return sorted({1, *range(2, steps, 3), steps - 1, steps})


@contextmanager
def no_user_warning() -> Iterator[None]:
    """Turn user warnings of the package into errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", ak.AdaCacheWarning)
        yield


def check_all_steps_are_made(pipe: Any, steps: int) -> None:
    """Check that each step was either computed or reused, once."""
    summary = ak.summary(pipe)
    assert summary.num_steps == steps
    assert sorted([*summary.computed_steps, *summary.reused_steps]) == list(range(1, steps + 1))


def check_every_third(pipe: Any, steps: int) -> None:
    """Check that the schedule of the last generation is that of `EVERY_THIRD`."""
    check_all_steps_are_made(pipe, steps)
    assert ak.summary(pipe).computed_steps == every_third(steps)


def check_oracle(
    pipe: Any,
    latents: Tensor,
    run: Callable[[], Tensor],
    models: list[Any] | None = None,
    always: tuple[int, ...] = (),
) -> None:
    """Check latents of the last generation against one residual a block and call; unpatch `pipe`.

    They agree within 3e-6: float32 sums in another order, over 6 steps of guidance by up to 7.5.

    Args:
        pipe: the patched pipeline.
        latents: what it made.
        run: makes the same with the unpatched pipeline.
        models: its transformers; by default `pipe.transformer`.
        always: indices of the calls of a step that are computed in every step.
    """
    summary = ak.summary(pipe)
    ak.unpatch(pipe)
    plain = run()
    models = models or [pipe.transformer]
    with stored_blocks(models, summary.num_steps, summary.computed_steps, always):
        expected = run()
    assert relative(latents, expected) < 3e-6 < 3e-5 < relative(latents, plain)


class Stopped(Exception):
    """An exception that the user's code raises."""


def interrupt(
    run: Callable[..., object],
    step: int,
    aborts: str = "callback_on_step_end",
    error: type[BaseException] = KeyboardInterrupt,
) -> None:
    """Run with a callback that raises `error` at the end of a step, counted from 0."""

    def stop(_pipe: Any, index: int, _timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        if index == step:
            raise error
        return values

    with pytest.raises(error):
        run(**{aborts: stop})
