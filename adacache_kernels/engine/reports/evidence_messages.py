"""The reasons why calls are computed that belong to no known place in a generation."""

from __future__ import annotations

LOST_STEPS = (
    "the scheduler's steps cannot be assigned to the calls, so calls are computed in full; in a "
    "loop of your own, name the steps with "
    "ak.cache_context(name, step_index=i, num_inference_steps=n), or patch the transformer itself "
    "with num_inference_steps="
)
NO_EVIDENCE = (
    "nothing shows which step a call belongs to: num_inference_steps is not known, and to read "
    "timesteps on the device, the host would wait for it. So every step is computed; give "
    "num_inference_steps, or name the steps with "
    "ak.cache_context(name, step_index=i, num_inference_steps=n)"
)
AMBIGUOUS = (
    "one step had several calls with the same conditions, such as windows of a long video, and "
    "nothing tells them apart. Such calls are computed; name each with ak.cache_context, for "
    'example ak.cache_context("window 3")'
)
OPEN_END = (
    "num_inference_steps is not known. Presets are used as for 50 steps. The last two steps, which "
    "are always computed, and a new generation are recognised by the timesteps on the CPU"
)
SAME_TIMESTEP = (
    "two calls in a row had the same timestep and the same conditions, so each counts as the first "
    "step of a generation, and nothing is reused. If they are two steps, name them with "
    "ak.cache_context(name, step_index=i, num_inference_steps=n)"
)
INTERRUPTED = (
    "a call failed, and nothing shows whether the next call repeats it or begins another video, so "
    "calls are computed until the generation ends; call ak.reset(model) before the next video"
)


def conditions_changed(name: str) -> str:
    """Return the message for a branch whose conditions changed in the middle of a generation.

    Args:
        name: the argument that has changed.
    """
    return (
        f"{name} changed in the middle of a generation, so the stored residuals no longer fit and "
        "the step is computed. If it is made anew in every step, with the same values, make it "
        "once before the loop"
    )


def too_many_branches(most: int) -> str:
    """Return the message for a generation with more different calls than `most`."""
    return (
        f"a generation had more than {most} different calls; their arguments change from step to "
        "step, so further ones are computed"
    )


def too_many_steps(planned: int) -> str:
    """Return the message for steps beyond the number of steps of the generation."""
    return (
        f"the generation goes on after its {planned} steps, so further steps are computed in full; "
        "if num_inference_steps was given, give the real number"
    )


def needs_steps(setting: str) -> str:
    """Return the message for a generation without a number of steps, which a setting needs."""
    return (
        f"{setting} needs the number of steps, and this call shows none, so it is computed; name "
        "the steps with ak.cache_context(name, step_index=i, num_inference_steps=n)"
    )


def ended_early(planned: int, ran: int) -> str:
    """Return the message for a generation that had fewer steps than the user had given."""
    return (
        f"num_inference_steps={planned}, but a generation ended after {ran} steps. Unless it was "
        "stopped, give the real number, because the last two steps are always computed"
    )
