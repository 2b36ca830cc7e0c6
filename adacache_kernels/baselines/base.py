"""What the other methods have in common: their settings, and what they decide about."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from ..config.validation import check_int
from ..models.module_names import Kind

Blocks = tuple[int, int | None]
"""First block, and the one after the last; None is the end. Counted over all lists of a model, the
two of a list that takes turns with another as one."""
WHOLE: Blocks = (0, None)


@dataclass(frozen=True, kw_only=True)
class BaselineConfig:
    """Settings that every method has.

    Args:
        num_inference_steps: steps of a generation. A pipeline tells it by itself, a bare model
            cannot do so.
        calls_per_step: forward calls that make one step of a bare model (2 for guidance in two
            calls). Named cache contexts need none.
    """

    num_inference_steps: int | None = None
    calls_per_step: int | None = None

    def __post_init__(self) -> None:
        check_int("num_inference_steps", self.num_inference_steps, at_least=1, optional=True)
        check_int("calls_per_step", self.calls_per_step, at_least=1, optional=True)

    def to_dict(self) -> dict[str, Any]:
        """The method's name, and numbers, strings and lists, for JSON."""
        values = {key: _plain(value) for key, value in asdict(self).items()}
        return {"method": type(self).__name__.removesuffix("Config")} | values


class ModulePolicy(Protocol):
    """Decides which modules return what they returned before. One a generation."""

    @property
    def by_timestep(self) -> bool:
        """Whether `begin_step` needs to be told the timestep."""

    @property
    def mean_after(self) -> int | None:
        """The step after which what is kept becomes the mean over the branches of guidance."""

    def begin_step(self, step: int, timestep: float | None) -> None:
        """The step that begins, counted from 1, and its timestep."""

    def reuses(self, kind: Kind, block: int) -> bool:
        """Whether this module's output is to be reused in this step."""

    def keeps(self, kind: Kind, block: int) -> bool:
        """Whether the output of a module that runs in this step is kept for later ones."""

    def order(self, step: int) -> int:
        """How many finite differences are kept with an output of `step`; 0 reuses it as it is."""


class BlockPolicy(Protocol):
    """Decides by step numbers which blocks add what they added before. One a generation."""

    def reuses(self, step: int) -> Blocks | None:
        """The blocks to be reused in `step`, counted from 1; None where all run."""

    def keeps(self, step: int) -> Blocks | None:
        """The blocks whose residual is kept where all of them run in `step`."""

    def computed(self, step: int) -> None:
        """All blocks have run in `step`, whatever `reuses` said."""


class ChangePolicy(Protocol):
    """Decides by what has changed in the middle of a forward. One a generation."""

    def asks(self, step: int) -> bool:
        """Whether `reuses` needs to be told the change in `step`; if not, nothing is read."""

    def reuses(self, step: int, change: float | None) -> bool:
        """Whether the rest of `step` is reused; `change` is None where there is nothing stored."""


def check_range(name: str, value: object) -> None:
    """A number of forwards of which the first computes."""
    check_int(name, value, at_least=1, optional=True)


def parse_numbers(name: str, value: object, check: Callable[[object], None]) -> tuple[Any, ...]:
    """A tuple of numbers that pass `check`.

    Raises:
        TypeError, ValueError: name the setting, its value and what it may be.
    """
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} is {value!r}; it must be a sequence of numbers")
    numbers = tuple(value)
    for number in numbers:
        check(number)
    return numbers


def parse_blocks(name: str, value: object) -> Blocks | None:
    """(first block, the one after the last), or None.

    Raises:
        TypeError, ValueError: name the setting, its value and what it may be.
    """
    if value is None:
        return None
    expected = "it must be (first block, the one after the last, or None for the end), or None"
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} is {value!r}; {expected}")
    pair = tuple(value)
    if len(pair) != 2:
        raise ValueError(f"{name} is {pair}; {expected}")
    start, stop = pair
    check_int(name, start, at_least=0)
    check_int(name, stop, at_least=start + 1, optional=True)
    return start, stop


def preset(name: object, presets: Iterable[str]) -> str:
    """`name`, if it is one of them.

    Raises:
        ValueError: it is not; names those that are.
    """
    known = tuple(presets)
    if name not in known:
        raise ValueError(f"the preset is {name!r}; there are {', '.join(map(repr, known))}")
    assert isinstance(name, str)
    return name


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
