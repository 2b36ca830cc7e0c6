"""`batch="each"`: every video of a batch by itself, with an engine of its own."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map_only

from ..config.adacache_config import AdaCacheConfig
from ..memory.arena_provider import ArenaProvider
from ..models import Adapter
from ..models.block_calls import Parameters
from . import user_warnings as notices
from .cache_context import current_context
from .clocks.clock import Call, StepClock
from .clocks.timestep_clock import RepeatedTimestepCheck
from .engine import Engine, Forward
from .guidance_rows import videos_of
from .merge_summaries import merge_parallel
from .summary import Summary

WHAT_TO_DO = 'choose batch="any" or "mean", which take a batch as a whole'
CANNOT_BE_SPLIT = (
    'batch="each": the first call with the rows of one video alone has failed. If the model cannot '
    f"take them alone, {WHAT_TO_DO}"
)
OF_TOKENS = ("indices", "rope")
"""In names of arguments that say where tokens are: a vector has no rows, whatever its length."""


class SharedCall:
    """The clock of several engines of one model: a call is read once, for all of them.

    Args:
        shared: where it is read.
        calls: that each engine has in a step; by default what the clock says.
    """

    def __init__(self, shared: StepClock, calls: int | None = None) -> None:
        self._shared = shared
        self._calls = calls
        self.call: Call | None = None
        """The one that has begun."""

    @property
    def num_steps(self) -> int:
        return self._shared.num_steps

    @property
    def scheduler(self) -> Any:
        return self._shared.scheduler

    @property
    def has_guidance(self) -> bool | None:
        return self._shared.has_guidance

    def calls(self, with_guidance: int) -> int | None:
        return self._calls or self._shared.calls(with_guidance)

    def next_call(
        self, context: str | None, arguments: Mapping[str, Any] | None = None
    ) -> Call | None:
        return self.call

    def restart(self) -> None:
        """Who reads the shared clock restarts it."""

    def detach(self) -> None:
        """Who reads the shared clock detaches it."""


class PerVideoEngine:
    """Splits the calls of a model into those of its videos; what an `Engine` is for one of them.

    Args:
        model: the transformer.
        adapter: what is known of its class.
        config: the settings.
        clock: tells steps and branches apart.
        arena: where the memory of all engines is from.
    """

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        config: AdaCacheConfig,
        clock: StepClock,
        arena: ArenaProvider,
    ) -> None:
        self.model = model
        self.config = config
        self.clock = clock
        self._adapter = adapter
        self._arena = arena
        self._parameters = Parameters(model)
        self._notices = notices.UserWarnings(type(model).__name__)
        self._repeats = RepeatedTimestepCheck(self._notices)
        self._has_split = False
        self._shared = SharedCall(clock)
        self._engines = [self._engine()]

    def forward(self, original: Forward, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """One forward call of the model, `original` being its own forward."""
        arguments = self._parameters.bind(args, kwargs)
        self._shared.call = self.clock.next_call(current_context(), arguments)
        if self._shared.call is None:
            return self._engines[0].forward(original, args, kwargs)
        try:
            return self._run(self._shared.call, original, args, kwargs)
        except BaseException:
            self.reset()
            raise

    def join(self, call: Call) -> None:
        """The generation has begun without the engines: this call was computed."""
        for engine in self._engines:
            engine.join(call)

    def reset(self) -> None:
        """Forget the generation and give its memory back; the next call begins a new one."""
        self.clock.restart()
        for engine in self._engines:
            engine.reset()

    def summary(self) -> Summary:
        """What happened in the last generation, with each video's own."""
        return merge_parallel([engine.summary() for engine in self._engines])

    def _run(
        self, call: Call, original: Forward, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        arguments = self._parameters.bind(args, kwargs)
        rows = self._adapter.frames(self.model, arguments)[0]
        videos = videos_of(rows, self.config, self._adapter, self.clock)
        self._have_engines(videos, call)
        if videos == 1:
            return self._engines[0].forward(original, args, kwargs)
        if call.first_in_step:
            self._repeats.note(arguments)
        parts = self._split(args, kwargs, rows, videos)
        try:
            outputs = [
                engine.forward(original, *part)
                for engine, part in zip(self._engines, parts, strict=True)
            ]
        except Exception:
            if not self._has_split:
                self._notices.say("cannot be split", CANNOT_BE_SPLIT)
            raise
        self._has_split = True
        return self._in_order(outputs, rows // videos)

    def _have_engines(self, videos: int, call: Call) -> None:
        """One for each video; in the middle of a generation, other videos need other engines."""
        if videos == len(self._engines):
            return
        kept = self._engines[:videos] if call.first_in_generation else []
        for engine in self._engines[len(kept) :]:
            engine.reset()
        self._engines = [*kept, *(self._engine() for _ in range(videos - len(kept)))]

    def _engine(self) -> Engine:
        return Engine(self.model, self._adapter, self.config, self._shared, self._arena)

    def _split(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], rows: int, videos: int
    ) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        """The arguments for each video: its rows of what has as many rows as the batch."""
        given = (args, dict(kwargs))
        whole = {id(x) for x in _vectors_of_tokens(self._parameters.bind(args, kwargs))}
        values = [x for x in tree_flatten(given)[0] if isinstance(x, Tensor)]
        split = {id(x) for x in values if _has_rows(x, rows)} - whole
        if not split:
            raise ValueError(
                f'batch="each": no argument of {type(self.model).__name__} has the {rows} rows of '
                f"the batch in its first dimension, so that it cannot be split; {WHAT_TO_DO}"
            )
        takes = [partial(_rows_of, video, videos, split) for video in range(videos)]
        return [tree_map_only(Tensor, take, given) for take in takes]

    def _in_order(self, parts: Sequence[Any], rows: int) -> Any:
        """What the videos' calls returned, each of `rows` rows, as the call of the whole would."""
        first = parts[0]
        if isinstance(first, Tensor) and _has_rows(first, rows) and _are_alike(parts):
            return torch.stack(tuple(parts), dim=1).flatten(0, 1)
        if isinstance(first, tuple):
            places = [self._in_order(column, rows) for column in zip(*parts, strict=True)]
            return type(first)(*places) if hasattr(first, "_fields") else tuple(places)
        if isinstance(first, dict):
            return type(first)(
                **{name: self._in_order([part[name] for part in parts], rows) for name in first}
            )
        shapes = [tuple(p.shape) if isinstance(p, Tensor) else type(p).__name__ for p in parts]
        raise ValueError(
            f'batch="each": {type(self.model).__name__} returned {shapes} for the videos of a '
            f"batch, expected tensors of one shape with {rows} rows first, alone, in a tuple or in "
            f"a ModelOutput, so that its batch cannot be split; {WHAT_TO_DO}"
        )


def make_engine(
    model: nn.Module,
    adapter: Adapter,
    config: AdaCacheConfig,
    clock: StepClock,
    arena: ArenaProvider,
) -> Engine | PerVideoEngine:
    """What runs a model's forwards: of the whole batch, or of each of its videos."""
    kind = PerVideoEngine if config.batch == "each" else Engine
    return kind(model, adapter, config, clock, arena)


def _vectors_of_tokens(arguments: Mapping[str, Any]) -> list[Tensor]:
    named = [arguments[name] for name in arguments if any(part in name for part in OF_TOKENS)]
    return [x for x in tree_flatten(named)[0] if isinstance(x, Tensor) and x.ndim == 1]


def _rows_of(video: int, videos: int, split: Container[int], x: Tensor) -> Tensor:
    # They lie `videos` apart, while models view their inputs as if they did not.
    return x[video::videos].contiguous() if id(x) in split else x


def _has_rows(x: Tensor, rows: int) -> bool:
    return x.ndim > 0 and x.shape[0] == rows


def _are_alike(parts: Sequence[Tensor]) -> bool:
    return len({part.shape for part in parts}) == 1
