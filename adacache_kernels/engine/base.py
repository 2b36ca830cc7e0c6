"""The lifecycle that all engines share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from torch import nn

from ..config.adacache_config import AdaCacheConfig
from .clocks.clock import Call, EngineClock
from .forward_call import ForwardCall
from .reports import user_warnings
from .reports.summary import Summary


class EngineConfig(Protocol):
    """The settings that every engine reads."""

    @property
    def num_inference_steps(self) -> int | None:
        """Return the number of steps that the user has given, or None."""

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as numbers, strings and lists, for JSON."""


ConfigT = TypeVar("ConfigT", bound=EngineConfig)


class EngineBase(ABC, Generic[ConfigT]):
    """The engine of one generation at a time of a patched model.

    A generation begins with the first call that is marked as such. It ends with the next one, or
    with `reset`.

    Args:
        model: the transformer.
        config: the settings.
        clock: describes the generation.
    """

    def __init__(self, model: nn.Module, config: ConfigT, clock: EngineClock) -> None:
        self.model = model
        self.config = config
        self.clock = clock
        self.user_warnings = user_warnings.UserWarnings(type(model).__name__)

    def run(self, call: Call, forward: ForwardCall) -> Any:
        """Run a forward call.

        An exception loses the stored residuals and their memory. The generation goes on, so the
        caller may free memory and repeat the call.
        """
        try:
            if call.first_in_generation:
                self.user_warnings.begin_generation()
                self._begin_generation()
            if call.notice is not None and not call.first_in_generation:
                self.user_warnings.note(call.notice.text, call.step)
            return self._run(call, forward)
        except BaseException:
            self._lose_residuals()
            raise

    def reset(self) -> None:
        """Forget the generation and release its memory. The next call begins a new generation."""
        self.user_warnings.begin_generation()
        self._forget_generation()

    @abstractmethod
    def summary(self) -> Summary:
        """Return what happened in the last generation."""

    @property
    @abstractmethod
    def reason_not_single(self) -> str | None:
        """Return the reason why no single `Engine` runs the model, or None if one does."""

    @abstractmethod
    def _begin_generation(self) -> None:
        """Prepare a generation, before its first call runs."""

    @abstractmethod
    def _run(self, call: Call, forward: ForwardCall) -> Any:
        """Run a forward call of the present generation."""

    @abstractmethod
    def _forget_generation(self) -> None:
        """Forget the generation and release its memory."""

    @abstractmethod
    def _lose_residuals(self) -> None:
        """Release the stored residuals and their memory; the generation goes on."""

    def _warn_of_other_num_steps(self, num_steps: int) -> None:
        planned = self.config.num_inference_steps
        if planned is not None and num_steps > 0 and num_steps != planned:
            text = user_warnings.number_of_steps(planned, num_steps)
            self.user_warnings.warn("number of steps", text)


AnyEngine: TypeAlias = EngineBase[Any]


class AdaCacheEngine(EngineBase[AdaCacheConfig]):
    """An engine of a model whose blocks are known, under an `AdaCacheConfig`."""

    @abstractmethod
    def join(self, call: Call) -> None:
        """Join a generation whose first call, `call`, was computed without this engine."""
