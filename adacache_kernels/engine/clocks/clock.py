"""The interface of a step clock: step and branch of a forward call, without reading a tensor.

To read a timestep, the host would have to wait for the GPU. Clocks therefore watch what happens
around the model. On a bare model they count its calls. On a pipeline they watch the scheduler's
`set_timesteps` and `step`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

UNKNOWN_STEPS = -1
"""The number of steps of a bare model for which the user gave none."""


@dataclass(frozen=True)
class Call:
    """One forward call.

    Args:
        step: the denoising step, counted from 1.
        branch: the name of the guidance branch, or its index in the step ("0", "1").
        first_in_generation: True for the first call of the generation.
        first_in_step: True for the first call of the step.
        near_end: True if this may be one of the last two steps of a generation whose number of
            steps is unknown.
    """

    step: int
    branch: str
    first_in_generation: bool
    first_in_step: bool
    near_end: bool = False


class StepClock(Protocol):
    """Assigns a step and a guidance branch to every forward call of one model."""

    @property
    def num_steps(self) -> int:
        """Return the steps of the present generation; 0 before the first; or `UNKNOWN_STEPS`."""

    @property
    def scheduler(self) -> Any:
        """Return the scheduler that is watched; None on a bare model."""

    @property
    def has_guidance(self) -> bool | None:
        """Return True with classifier-free guidance, False without it, None if that is unknown."""

    def calls(self, with_guidance: int) -> int | None:
        """Return the number of calls in a step; None if that is unknown.

        Args:
            with_guidance: the number of calls in a step with classifier-free guidance.
        """

    def next_call(
        self, context: str | None, arguments: Mapping[str, Any] | None = None
    ) -> Call | None:
        """Return step and branch of the forward call that begins now.

        Args:
            context: the name of the innermost `cache_context`; None outside of any.
            arguments: the arguments of the forward call, by parameter name.

        Returns:
            None if the clock cannot assign a step; such a call must be computed.
        """

    def restart(self) -> None:
        """Begin a generation: the next call is its first one."""

    def detach(self) -> None:
        """Stop watching, and restore what was replaced to watch."""
