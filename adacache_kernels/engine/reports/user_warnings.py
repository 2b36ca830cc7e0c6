"""The warnings about a patched model, each given once."""

from __future__ import annotations

import warnings

from ...options import AdaCacheWarning
from ...schedule.codebook import Codebook
from ..clocks.clock import UNKNOWN_STEPS, EngineClock
from .summary import History

IN_PLACE = (
    "a block wrote into its input, so its residual cannot be measured; every step is computed"
)
METRIC_BLOCK = (
    "the metric block did not run in this forward, so nothing was decided and the next step is "
    "computed"
)
PLANNED_AGAIN = (
    "the cache was planned again in the middle of a generation, because a forward needed slots "
    "that the plan did not have (more guidance branches than expected, or other shapes); the "
    "stored residuals are lost, and the steps that needed them are computed"
)


class UserWarnings:
    """The warnings about one patched model.

    Args:
        model: the name of its class.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self.given: set[str] = set()
        """The topics of the warnings that were given."""

    def warn(self, topic: str, message: str | None) -> None:
        """Warn the user, unless the message is None or the topic had a warning before."""
        if message is None or topic in self.given:
            return
        self.given.add(topic)
        text = f"adacache_kernels, {self._model}: {message}"
        warnings.warn(text, AdaCacheWarning, stacklevel=3)


def open_ended(clock: EngineClock) -> str | None:
    """Return the message for a generation without a number of steps; None for all others."""
    if clock.num_steps != UNKNOWN_STEPS:
        return None
    return (
        "num_inference_steps is not known. Presets are used as for 50 steps. The last two steps, "
        "which are always computed, and a new generation are recognised by the timesteps on the CPU"
    )


def number_of_steps(planned: int, num_steps: int) -> str:
    """Return the message for a setting that differs from the scheduler's number of steps."""
    return (
        f"num_inference_steps={planned}, but the scheduler runs {num_steps} steps; the scheduler's "
        "number is used, so leave the setting out"
    )


def last_list(attribute: str) -> str:
    """Return the message for a last block list that did not run to its end."""
    return (
        f"{attribute} did not run to its end in this forward, so forecasts are neither compared "
        "nor corrected"
    )


def not_finite(step: int) -> str:
    """Return the message for a distance that is not finite."""
    return (
        f"the distance at step {step} is not finite (NaN or infinity in the metric block's "
        "residual); the step after such a distance is computed"
    )


def zero(step: int) -> str:
    """Return the message for a residual of zeros."""
    return (
        f"the metric block's residual is zero throughout at step {step}, so there is no distance "
        "and the next step is computed; measure another block (cache_loc) or residual (cache_res)"
    )


def never_engaged(history: History, codebook: Codebook) -> str | None:
    """Return the message for a generation without a reused step.

    Returns:
        None if a step was reused, no distance was measured, or the codebook never reuses.
    """
    distances = [d.distance for d in history.decisions.values() if d.distance is not None]
    reusing = [threshold for threshold, rate in codebook if rate > 1]
    if history.reused or not distances or not reusing:
        return None
    return (
        f"no step of {history.num_steps} was reused: the smallest distance was "
        f"{min(distances):.3g}, and the codebook reuses below {max(reusing):.3g}; raise its "
        "thresholds for this model"
    )
