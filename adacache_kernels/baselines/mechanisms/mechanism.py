"""The base of all mechanisms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor

from ..counters import Counters

Original = Callable[[], Any]
"""Runs the model's own forward with the arguments of the call."""
Video = tuple[int, int]
"""The numbers of videos and of frames in a forward call."""


@dataclass(frozen=True)
class Step:
    """One denoising step.

    Args:
        number: counted from 1.
        timestep: the scheduler's timestep, None if the mechanism does not need it.
        guided: True if there is known to be guidance.
    """

    number: int
    timestep: float | None
    guided: bool


class BranchState(Protocol):
    """The state of a mechanism for one guidance branch."""

    def forget(self) -> None:
        """Remove everything that is stored."""

    def tensors(self) -> Iterable[Tensor]:
        """Return all tensors that are stored."""


Branch = TypeVar("Branch", bound=BranchState)
PolicyT = TypeVar("PolicyT", covariant=True)


class Method(Protocol[PolicyT]):
    """The config of a method that makes a policy for every generation."""

    def policy(self, num_steps: int, /) -> PolicyT:
        """Return the policy of a generation; `num_steps` is 0 if it is not known yet."""


class Mechanism(ABC, Generic[Branch]):
    """An object that runs the forward calls of one model under one method."""

    by_timestep = False
    """True if steps need the timestep."""
    decides_by_content = False
    """True if the computed steps depend on what this rank's part of the model computes."""

    def __init__(self) -> None:
        self._counters = Counters()
        self._step = 0

    def begin(self, num_steps: int, counters: Counters) -> None:
        """Begin a generation.

        Args:
            num_steps: steps of the generation, 0 if not known yet.
            counters: what the generation did is counted there.
        """
        self._counters, self._step = counters, 0

    @abstractmethod
    def branch(self, name: str) -> Branch:
        """Return the state of a new guidance branch."""

    def begin_step(self, step: Step, branches: Mapping[str, Branch]) -> None:
        """Begin a step.

        Args:
            step: the step.
            branches: the states of all branches, by name; the first one decides.
        """
        self._step = step.number

    @abstractmethod
    def run(self, branch: Branch, video: Video, original: Original) -> Any:
        """Run one forward call and return the model's output.

        Args:
            branch: the state of the call's branch.
            video: videos and frames of the call.
            original: runs the model's own forward.
        """
