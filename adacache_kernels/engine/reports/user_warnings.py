"""The warnings about a patched model, and the reasons why steps of a generation were computed."""

from __future__ import annotations

from ...messages import logger, show_warning

IN_PLACE = (
    "a block wrote into its input, so its residual cannot be measured; every step is computed"
)
METRIC_BLOCK = (
    "the metric block did not run in this forward, so nothing was decided and the next step is "
    "computed"
)
NOT_FINITE = (
    "the distance is not finite (NaN or infinity in the metric block's residual); the step after "
    "such a distance is computed"
)
ZERO = (
    "the metric block's residual is zero throughout, so there is no distance and the next step is "
    "computed; measure another block (cache_loc) or residual (cache_res)"
)
CHANGED = (
    "the shapes, dtypes or other inputs of the call changed, so the stored residuals do not belong "
    "to it"
)
NOT_STORED = "the branch has no residual of the last computed step"
PLANNED_AGAIN = (
    "the cache was planned again in the middle of a generation, because a forward needed slots "
    "that the plan did not have (more guidance branches than expected, or other shapes); the "
    "stored residuals are lost, and the steps that needed them are computed"
)


class ShownTopics:
    """The topics of the warnings that were shown for one model."""

    def __init__(self) -> None:
        self.topics: set[str] = set()


class UserWarnings:
    """The warnings about one patched model, and the reasons of the present generation.

    A warning is shown once for each model and topic, and it is logged once for each generation.
    It is a reason of every generation in which it applies, even if it is not shown again.

    Args:
        model: the name of the model's class.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._shown = ShownTopics()
        self._reasons: dict[str, list[int]] = {}

    @property
    def given(self) -> set[str]:
        """Return the topics of the warnings that were shown."""
        return self._shown.topics

    def share_topics_with(self, engine_inside: UserWarnings) -> None:
        """Show no topic again that an engine inside of this one shows, and the reverse."""
        engine_inside._shown = self._shown

    def use_topics(self, topics: set[str]) -> None:
        """Share the shown topics with all engines of the model, for those inside this one too."""
        self._shown.topics = topics

    def continue_from(self, other: UserWarnings) -> None:
        """Take over the reasons of an engine that ran the generation so far."""
        self._reasons = dict(other._reasons)

    def begin_generation(self) -> None:
        """Forget the reasons of the last generation."""
        self._reasons = {}

    @property
    def reasons(self) -> list[str]:
        """Return the reasons of the present generation, in the order in which they came."""
        return list(self._reasons)

    @property
    def reason_steps(self) -> dict[str, list[int]]:
        """Return the steps of each reason that belongs to steps."""
        return {text: list(steps) for text, steps in self._reasons.items() if steps}

    def warn(self, topic: str, message: str | None, step: int | None = None) -> None:
        """Warn the user, unless the message is None or a warning of the topic was shown before.

        Args:
            topic: the subject of the warning.
            message: the text; a reason of this generation.
            step: the step that is computed for this reason, if it belongs to one.
        """
        if message is None:
            return
        at = "" if step is None else f" (step {step})"
        text = f"adacache_kernels, {self._model}: {message}{at}"
        if self._add_reason(message, step):
            logger().warning("%s", text)
        if topic not in self.given:
            self.given.add(topic)
            show_warning(text)

    def note(self, message: str | None, step: int | None = None) -> None:
        """Add a reason that needs no warning, because the user's settings or calls explain it.

        Args:
            message: the reason; None adds nothing.
            step: the step that is computed for this reason, if it belongs to one.
        """
        if message is not None and self._add_reason(message, step):
            logger().info("adacache_kernels, %s: %s", self._model, message)

    def _add_reason(self, message: str, step: int | None) -> bool:
        """Store a reason and its step; return True if the reason is new in this generation."""
        is_new = message not in self._reasons
        steps = self._reasons.setdefault(message, [])
        if step is not None and step not in steps:
            steps.append(step)
        return is_new


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
