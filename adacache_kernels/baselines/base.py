"""The settings that all baselines share, their checks, and the policies that decide on reuse."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from ..config.validation import check_int
from ..models.module_names import Kind

Blocks = tuple[int, int | None]
"""The first block, and the one after the last or None for the end, counted over all lists of a
model. Two blocks of interleaved lists count as one."""
ALL_BLOCKS: Blocks = (0, None)


@dataclass(frozen=True, kw_only=True)
class BaselineConfig:
    """Settings that every method has.

    Args:
        num_inference_steps: steps of a generation. Needed for a bare model; a pipeline knows it.
        calls_per_step: forward calls in one step of a bare model, for example 2 for guidance in
            two calls. Not needed with named cache contexts.

    Raises:
        TypeError: a setting is not an integer; names it and its value.
        ValueError: a setting is below 1; names it and its value.
    """

    num_inference_steps: int | None = None
    calls_per_step: int | None = None

    def __post_init__(self) -> None:
        check_int("num_inference_steps", self.num_inference_steps, at_least=1, optional=True)
        check_int("calls_per_step", self.calls_per_step, at_least=1, optional=True)

    def to_dict(self) -> dict[str, Any]:
        """Return the method's name and its settings, as values that JSON can hold."""
        values = {key: _plain(value) for key, value in asdict(self).items()}
        return {"method": type(self).__name__.removesuffix("Config")} | values


class ModulePolicy:
    """The base of policies that decide which modules return their stored outputs.

    One object lives for one generation. This base reuses and stores nothing.
    """

    by_timestep = False
    """True if `begin_step` needs the timestep."""
    mean_after: int | None = None
    """The step after which stored outputs are averaged over the guidance branches."""

    def __init__(self) -> None:
        self._step = 0

    def begin_step(self, step: int, timestep: float | None) -> None:
        """Begin a step, counted from 1, with the scheduler's timestep if `by_timestep`."""
        self._step = step

    def reuses(self, kind: Kind, block: int) -> bool:
        """Return True if this module's stored output is reused in this step."""
        return False

    def stores(self, kind: Kind, block: int) -> bool:
        """Return True if the output of a module that runs in this step is stored."""
        return False

    def order(self, step: int) -> int:
        """Return how many finite differences are stored with an output; 0 reuses it as it is."""
        return 0


class BlockPolicy(ABC):
    """The base of policies that decide by step numbers which blocks add their stored residual.

    One object lives for one generation.
    """

    @abstractmethod
    def reuses(self, step: int) -> Blocks | None:
        """Return the blocks to reuse in `step`, counted from 1; None if all blocks run."""

    @abstractmethod
    def stores(self, step: int) -> Blocks | None:
        """Return the blocks whose residual is stored if all blocks run in `step`."""

    def computed(self, step: int) -> None:
        """Note that all blocks run in `step`, also if `reuses` returned some."""
        return


class ChangePolicy(ABC):
    """The base of policies that decide by a change that is measured in the middle of a forward.

    One object lives for one generation.
    """

    @abstractmethod
    def asks(self, step: int) -> bool:
        """Return True if `reuses` needs the change in `step`; otherwise it is not read."""

    @abstractmethod
    def reuses(self, step: int, change: float | None) -> bool:
        """Return True if the rest of `step` is reused; `change` is None if it was not read."""


def parse_numbers(name: str, value: object, check: Callable[[object], None]) -> tuple[Any, ...]:
    """Return `value` as a tuple of numbers that pass `check`.

    Args:
        name: name of the setting.
        value: its value.
        check: raises an error for a number that is not allowed.

    Raises:
        TypeError: `value` is not a sequence of numbers.
        ValueError: a number is not allowed.
    """
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} is {value!r}; it must be a sequence of numbers")
    numbers = tuple(value)
    for number in numbers:
        check(number)
    return numbers


def parse_blocks(name: str, value: object) -> Blocks | None:
    """Return `value` as (first block, the one after the last), or None.

    Args:
        name: name of the setting.
        value: its value.

    Raises:
        TypeError: `value` is not a sequence, or a block is not an integer.
        ValueError: `value` does not have two elements, or the range is empty.
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
    """Return `name` if it is one of `presets`.

    Raises:
        ValueError: it is not; names the presets.
    """
    known = tuple(presets)
    if name not in known:
        raise ValueError(f"the preset is {name!r}; there are {', '.join(map(repr, known))}")
    assert isinstance(name, str)
    return name


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
