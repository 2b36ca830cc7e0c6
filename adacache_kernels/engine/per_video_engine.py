"""The engine with `batch="each"`: every video of a batch has an engine of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map_only

from ..config.adacache_config import AdaCacheConfig
from ..models import Adapter
from .base import AdaCacheEngine
from .clocks.clock import Call, EngineClock
from .forward_call import ForwardCall
from .guidance_rows import videos_of
from .reports.merge_summaries import merge_parallel, with_reasons
from .reports.summary import Summary

WHAT_TO_DO = 'choose batch="any" or "mean", which take a batch as a whole'
CANNOT_BE_SPLIT = (
    'batch="each": the first call with the rows of one video alone has failed. If the model cannot '
    f"take them alone, {WHAT_TO_DO}"
)
TOKEN_POSITIONS = ("indices", "rope")
"""Parts of the names of arguments with the positions of tokens. If such a tensor has one dimension,
its length is a number of tokens and never of batch rows."""


class PerVideoEngine(AdaCacheEngine):
    """Splits each call of a model into one call for each video, with an engine for each video.

    Args:
        model: the transformer.
        adapter: the description of the model.
        config: the settings.
        clock: describes the generation.
        make: makes the engine of one video, from its clock.
    """

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        config: AdaCacheConfig,
        clock: EngineClock,
        make: Callable[[EngineClock], AdaCacheEngine],
    ) -> None:
        super().__init__(model, config, clock)
        self._adapter = adapter
        self._has_split = False
        self._make_engine = make
        self._engines = [self._make()]

    @property
    def reason_not_single(self) -> str:
        """Return the reason: each video has an engine."""
        return 'batch="each": each video has an engine; patch with another batch='

    def join(self, call: Call) -> None:
        """Join a generation whose first call, `call`, was computed without the engines."""
        for engine in self._engines:
            engine.join(call)

    def summary(self) -> Summary:
        """Return what happened in the last generation, with a summary for each video."""
        videos = merge_parallel([engine.summary() for engine in self._engines])
        return with_reasons(videos, self.user_warnings)

    def _begin_generation(self) -> None:
        """Do nothing: the engine of each video begins its own generation."""

    def _forget_generation(self) -> None:
        for engine in self._engines:
            engine.reset()

    def _lose_residuals(self) -> None:
        for engine in self._engines:
            engine._lose_residuals()

    def _run(self, call: Call, forward: ForwardCall) -> Any:
        rows = self._adapter.frames(self.model, forward.arguments)[0]
        videos = videos_of(rows, self.config, self._adapter, self.clock)
        self._ensure_engines(videos, call)
        if videos == 1:
            return self._engines[0].run(call, forward)
        parts = self._split(forward, rows, videos)
        try:
            outputs = [
                engine.run(call, part) for engine, part in zip(self._engines, parts, strict=True)
            ]
        except Exception:
            if not self._has_split:
                self.user_warnings.warn("cannot be split", CANNOT_BE_SPLIT)
            raise
        self._has_split = True
        return self._joined(outputs, rows // videos)

    def _ensure_engines(self, videos: int, call: Call) -> None:
        """Have one engine for each video.

        Only at the start of a generation, engines can be used for other videos than before.
        """
        if videos == len(self._engines):
            return
        kept = self._engines[:videos] if call.first_in_generation else []
        for engine in self._engines[len(kept) :]:
            engine.reset()
        new = [self._make() for _ in range(videos - len(kept))]
        self._engines = [*kept, *new]

    def _make(self) -> AdaCacheEngine:
        """Make the engine of one more video."""
        engine = self._make_engine(self.clock)
        self.user_warnings.share_topics_with(engine.user_warnings)
        return engine

    def _split(self, forward: ForwardCall, rows: int, videos: int) -> list[ForwardCall]:
        """Return a call for each video, with its rows of every argument that has batch rows."""
        given = (forward.args, dict(forward.kwargs))
        whole = {id(x) for x in _token_positions(forward.arguments)}
        values = [x for x in tree_flatten(given)[0] if isinstance(x, Tensor)]
        split = {id(x) for x in values if _has_rows(x, rows)} - whole
        if not split:
            raise ValueError(
                f'batch="each": no argument of {type(self.model).__name__} has the {rows} rows of '
                f"the batch in its first dimension, so the batch cannot be split; {WHAT_TO_DO}"
            )

        def part_of(video: int) -> ForwardCall:
            def take(x: Tensor) -> Tensor:
                # The rows lie `videos` apart, and models may need contiguous inputs.
                return x[video::videos].contiguous() if id(x) in split else x

            return forward.with_inputs(*tree_map_only(Tensor, take, given))

        return [part_of(video) for video in range(videos)]

    def _joined(self, outputs: Sequence[Any], rows: int) -> Any:
        """Return the output for the whole batch, from one output of `rows` rows for each video."""
        first = outputs[0]
        if isinstance(first, Tensor) and _has_rows(first, rows) and _have_one_shape(outputs):
            return torch.stack(tuple(outputs), dim=1).flatten(0, 1)
        if isinstance(first, tuple):
            items = [self._joined(column, rows) for column in zip(*outputs, strict=True)]
            return type(first)(*items) if hasattr(first, "_fields") else tuple(items)
        if isinstance(first, dict):
            return type(first)(
                **{name: self._joined([output[name] for output in outputs], rows) for name in first}
            )
        shapes = [tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in outputs]
        raise ValueError(
            f'batch="each": {type(self.model).__name__} returned {shapes} for the videos of a '
            f"batch, expected tensors of one shape with {rows} rows first, alone, in a tuple or in "
            f"a ModelOutput, so the outputs cannot be joined; {WHAT_TO_DO}"
        )


def _token_positions(arguments: Mapping[str, Any]) -> list[Tensor]:
    named = [arguments[name] for name in arguments if any(part in name for part in TOKEN_POSITIONS)]
    return [x for x in tree_flatten(named)[0] if isinstance(x, Tensor) and x.ndim == 1]


def _has_rows(x: Tensor, rows: int) -> bool:
    return x.ndim > 0 and x.shape[0] == rows


def _have_one_shape(outputs: Sequence[Tensor]) -> bool:
    return len({output.shape for output in outputs}) == 1
