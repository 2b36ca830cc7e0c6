"""The numbers of videos and frames of a forward call, read from its arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from .misfit import Misfit

Count = Callable[[nn.Module, Mapping[str, Any]], tuple[int, int]]
"""From the model and its forward's arguments by name to (videos, frames of tokens in a video)."""


@dataclass(frozen=True)
class Frames:
    """A function that returns the videos and frames of a call, with a list of what it reads.

    Args:
        count: the function.
        arguments: arguments of the model's forward that it requires.
        attributes: attributes of the model that it reads, as dotted paths.
        unknown: the reason why `count` returns 1 for every video; empty if it knows the frames.
    """

    count: Count
    arguments: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    unknown: str = ""

    def __call__(self, model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
        """Return the numbers of videos and of frames of tokens in each.

        Raises:
            Misfit: the arguments are not those that the adapter describes.
        """
        try:
            return self.count(model, arguments)
        except Exception as error:
            names = ", ".join(self.arguments) or "no argument"
            raise Misfit(
                f"the frames of this {type(model).__name__} cannot be read from {names} of its "
                f"forward ({type(error).__name__}: {error})"
            ) from error
