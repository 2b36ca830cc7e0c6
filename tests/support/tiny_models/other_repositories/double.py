"""The description of a double: how to build it, call it, and where its streams are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn

from tests.support.tiny_models.description import noise
from tests.support.tiny_models.other_repositories.parts import CHANNELS, WORDS

Streams = dict[str, int | None]
"""By parameter of a block, the index of its new value in the output; None if it is the output."""
Predict = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]
"""Returns the prediction from the model, the latents, the time (a number) and the prompt."""


def whole(model: nn.Module) -> nn.Module:
    """Return the model itself: it is what a user patches."""
    return model


@dataclass(frozen=True)
class Double:
    """A model with the structure of another repository's model.

    Args:
        repository: name of the repository and the class.
        build: makes the model; every call gives the same parameters.
        predict: the call in a sampling loop.
        streams: by dotted name of a block list, its streams.
        latents: shape of the latents.
        target: returns what a user patches.
        inference_mode: whether the repository samples under `torch.inference_mode`.
        reason: pattern of the reason for which nothing is reused; empty if steps are reused.
        attention: whether the attention residual can be measured, not only that of the block.
        motion: whether the model takes a video, so that its frames are known.
        branches: the calls of a step; one if a call has both branches.
        prompts: embedded prompts, by branch and seed; made on demand.
    """

    repository: str
    build: Callable[[], nn.Module]
    predict: Predict
    streams: dict[str, Streams]
    latents: tuple[int, ...] = (1, 4, 3, 4, 4)
    target: Callable[[nn.Module], object] = whole
    inference_mode: bool = False
    reason: str = ""
    attention: bool = False
    motion: bool = True
    branches: tuple[str, ...] = ("cond", "uncond")
    prompts: dict[str, Tensor] = field(default_factory=dict)

    def prompt(self, branch: str, seed: int) -> Tensor:
        """Return the embedded prompt of a branch, `[1, WORDS, CHANNELS]`, as one object."""
        key = f"{branch} {seed}"
        salt = 2 * seed + (branch == "cond")
        return self.prompts.setdefault(key, noise(1, WORDS, CHANNELS, seed=100 + salt))
