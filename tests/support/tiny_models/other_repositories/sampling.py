"""The sampling loop of the doubles, and a count of the calls that run the blocks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from tests.support.tiny_models.description import noise
from tests.support.tiny_models.other_repositories.double import Double

STEPS = 12
Around = Callable[[str], AbstractContextManager[object]]
"""Returns a context for a call of a branch."""


def no_context(_branch: str) -> AbstractContextManager[object]:
    """Return a context that does nothing."""
    return nullcontext()


def sample(
    double: Double, model: nn.Module, seed: int = 0, around: Around = no_context
) -> list[Tensor]:
    """Return the latents after each step of one video; the time is a view of the schedule."""
    latents, trajectory = noise(*double.latents, seed=seed), []
    with torch.inference_mode() if double.inference_mode else torch.no_grad():
        for t in torch.linspace(1.0, 0.02, STEPS):
            predictions = []
            for branch in double.branches:
                with around(branch):
                    prompt = double.prompt(branch, seed)
                    predictions.append(double.predict(model, latents, t, prompt))
            guided = predictions[-1] + 2 * (predictions[0] - predictions[-1])
            latents = latents - 0.1 * guided / guided.std()
            trajectory.append(latents.clone())
    return trajectory


class ComputedCalls:
    """A record of the calls that run the blocks, through hooks inside of the blocks."""

    def __init__(self, double: Double, model: nn.Module) -> None:
        self._runs, self.computed = 0, list[bool]()
        for path in double.streams:
            for block in model.get_submodule(path).children():
                leaf = next(m for m in block.modules() if next(m.children(), None) is None)
                leaf.register_forward_hook(self._note)

    def end_call(self) -> None:
        """Record that a call is over."""
        self.computed.append(self._runs > 0)
        self._runs = 0

    def _note(self, *_arguments: object) -> None:
        self._runs += 1
