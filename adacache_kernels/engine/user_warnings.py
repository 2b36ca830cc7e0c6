"""What a patched model tells its user, each thing once."""

from __future__ import annotations

import warnings

from ..options import AdaCacheWarning
from ..schedule.codebook import Codebook
from .summary import History

LOST_STEPS = (
    "the scheduler's steps cannot be told from the calls (no scheduler step was seen for long, or "
    "more than set_timesteps announced), so calls are computed in full; in a loop of your own, "
    "patch the transformer itself with num_inference_steps="
)
IN_PLACE = (
    "a block wrote into its input, so that what it added cannot be told; every step is computed"
)
METRIC_BLOCK = (
    "the metric block did not run in this forward, so that nothing was decided and the next step "
    "is computed"
)
SAME_TIMESTEP = (
    "two steps in a row were called with the very same timestep tensor. If they are the two calls "
    "of one step (guidance), they share residuals that belong to one of them, which ruins the "
    "video: name the branches with ak.cache_context, or give calls_per_step=2"
)
PLANNED_ANEW = (
    "the cache was planned anew in the middle of a generation, for a forward came that it had no "
    "slots for (more branches of guidance than expected, or other shapes); what was stored is lost "
    "and the steps that needed it are computed"
)


class UserWarnings:
    """Warnings about one patched model.

    Args:
        model: its class.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self.said: set[str] = set()
        """Topics."""

    def say(self, topic: str, message: str | None) -> None:
        """Unless there is nothing to say, or something was said about it before."""
        if message is None or topic in self.said:
            return
        self.said.add(topic)
        text = f"adacache_kernels, {self._model}: {message}"
        warnings.warn(text, AdaCacheWarning, stacklevel=3)


def number_of_steps(planned: int, num_steps: int) -> str:
    return (
        f"num_inference_steps={planned}, but the scheduler runs {num_steps} steps; the scheduler's "
        "number holds, leave the setting out"
    )


def last_list(attribute: str) -> str:
    return (
        f"{attribute} did not run to its end in this forward, so that forecasts are neither "
        "compared nor corrected"
    )


def not_finite(step: int) -> str:
    return (
        f"the distance at step {step} is not finite (NaN or infinity in the metric block's "
        "residual); the step after such a distance is computed"
    )


def zero(step: int) -> str:
    return (
        f"the metric block's residual is zero throughout at step {step}, so that there is no "
        "distance and the next step is computed; measure another block (cache_loc) or residual "
        "(cache_res)"
    )


def never_engaged(history: History, codebook: Codebook) -> str | None:
    """Where no step was reused, although distances were measured and the codebook reuses at all."""
    distances = [d.distance for d in history.decisions.values() if d.distance is not None]
    reusing = [threshold for threshold, rate in codebook if rate > 1]
    if history.reused or not distances or not reusing:
        return None
    return (
        f"no step of {history.num_steps} was reused: the smallest distance was "
        f"{min(distances):.3g}, and the codebook reuses below {max(reusing):.3g}; raise its "
        "thresholds for this model"
    )
