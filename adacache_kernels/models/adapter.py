"""What an adapter says of a model: where its blocks, streams, layouts and residuals are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from ..options import CacheRes


class Layout(Enum):
    """Order of a hidden stream of B videos of F frames of S tokens of C channels."""

    FRAME_MAJOR = "[B, F*S, C]"
    FRAMES_IN_BATCH = "[B*F, S, C]"
    TOKENS_IN_BATCH = "[B*S, F, C]"
    UNBATCHED = "[F*S, C]"
    TOKENS_FIRST = "[F*S, B, C]"

    def shape(self, batch: int, frames: int, tokens: int, channels: int) -> tuple[int, ...]:
        """Shape of a stream of `batch` videos of `frames` frames of `tokens` tokens."""
        if self is Layout.UNBATCHED:
            return frames * tokens, channels
        if self is Layout.TOKENS_FIRST:
            return frames * tokens, batch, channels
        if self is Layout.FRAME_MAJOR:
            return batch, frames * tokens, channels
        if self is Layout.FRAMES_IN_BATCH:
            return batch * frames, tokens, channels
        return batch * tokens, frames, channels

    def split(self, x: Tensor, batch: int, frames: int) -> Tensor:
        """`x` as a view [B, F, S, C], without a copy.

        Raises:
            ValueError: the shape does not divide into `batch` videos of `frames` frames.
        """
        channels = x.shape[-1]
        tokens, rest = divmod(x.numel(), max(1, batch * frames * channels))
        if x.ndim != self.value.count(",") + 1 or rest:
            raise ValueError(
                f"a residual of shape {tuple(x.shape)} does not divide into {batch} videos of "
                f"{frames} frames in layout {self.value}"
            )
        if self is Layout.TOKENS_IN_BATCH:
            return x.view(batch, tokens, frames, channels).transpose(1, 2)
        if self is Layout.TOKENS_FIRST:
            return x.view(frames, tokens, batch, channels).permute(2, 0, 1, 3)
        return x.view(batch, frames, tokens, channels)


@dataclass(frozen=True)
class Stream:
    """A hidden stream: the block's parameter that takes it and its place in what the block returns.

    Args:
        parameter: name of the block's parameter.
        output: index in the returned tuple; None where the block returns the stream itself.
    """

    parameter: str
    output: int | None = None

    def read(self, output: Any) -> Tensor:
        """The stream in what a block returned."""
        value = self.value(output)
        assert value is not None
        return value

    def value(self, output: Any) -> Tensor | None:
        """The same; None where the call has no such stream."""
        value = output if self.output is None else output[self.output]
        assert value is None or isinstance(value, Tensor)
        return value


@dataclass(frozen=True)
class BlockList:
    """An `nn.ModuleList` of blocks that share one layout, or a part of it.

    Each block's input is the output of the one before it, unless it is interleaved with the next; so all of it
    has one residual a stream. A model that changes the video between two blocks has its list in
    parts, which have a residual each.

    Args:
        attribute: its name in the model.
        streams: hidden streams, the video first. One that is None in a call has no residual.
        layout: layout of the video stream.
        interleaved_with_next: whether its blocks take turns with those of the next list, which has the same
            streams. Between any two blocks the model may then change the layout; before the next
            list's first block it may also add something. Both lists have one residual, the next
            one's.
        start, stop, step: the part; all blocks by default.
        passed: what else a block returns, as it was given. A place of the returned tuple that is
            neither this nor a stream's is None in a reused step.
        output_length: least length of that tuple.
        joined: parameters of the first list's streams of which its own is made, one behind the
            other, so that it has no frames.
        has_residual: whether it has a residual; not where a reused step needs nothing of what leaves it.
        by_index: whether the model takes its blocks by number, so that all must be there.
    """

    attribute: str
    streams: tuple[Stream, ...]
    layout: Layout
    interleaved_with_next: bool = False
    start: int = 0
    stop: int | None = None
    step: int = 1
    passed: tuple[Stream, ...] = ()
    output_length: int = 0
    joined: tuple[str, ...] = ()
    has_residual: bool = True
    by_index: bool = False

    @property
    def is_part(self) -> bool:
        """Whether there are blocks of the list outside of it."""
        return self.start > 0 or self.stop is not None or self.step > 1

    @property
    def name(self) -> str:
        """The attribute, and which blocks of it."""
        if not self.is_part:
            return self.attribute
        stop = "" if self.stop is None else self.stop
        step = "" if self.step == 1 else f":{self.step}"
        return f"{self.attribute}[{self.start}:{stop}{step}]"

    def modules(self, model: nn.Module) -> dict[int, nn.Module]:
        """Its blocks, by index in the whole list."""
        blocks = getattr(model, self.attribute)
        indices = range(len(blocks))[self.start : self.stop : self.step]
        return {index: blocks[index] for index in indices}

    def split(self, x: Tensor, stream: int, video: tuple[int, int]) -> Tensor:
        """The stream of that index as a view of four dimensions: the video as [B, F, S, C]."""
        if stream == 0:
            batch, frames = video
            return self.layout.split(x, batch, 1 if self.joined else frames)
        x = x.unsqueeze(-3)
        return x if x.ndim == 4 else x.unsqueeze(0)


@dataclass
class BlockRun:
    """One call of a block: what it was given, what it and its tapped modules returned."""

    block: nn.Module
    arguments: Mapping[str, Any]
    stream: Stream
    output: Any = None
    tap_outputs: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Tensor] = field(default_factory=dict)
    """Of the block itself: offloaded ones are there only while it runs."""

    def parameter(self, name: str) -> Tensor:
        """A parameter of the block itself, as it was while the tapped modules ran."""
        return self.parameters[name]

    def tap(self, name: str) -> Any:
        """What the submodule `name` returned.

        Raises:
            RuntimeError: it was not seen to run.
        """
        if name not in self.tap_outputs:
            raise RuntimeError(
                f"{type(self.block).__name__}.{name} was not seen to run, so that its residual "
                "cannot be told (a compiled block hides it); measure the "
                'whole block instead: patch(..., cache_res="block")'
            )
        return self.tap_outputs[name]

    @property
    def x_in(self) -> Tensor:
        """The video stream before the block."""
        value = self.arguments[self.stream.parameter]
        assert isinstance(value, Tensor)
        return value

    @property
    def x_out(self) -> Tensor:
        """The video stream after the block."""
        return self.stream.read(self.output)


@dataclass(frozen=True)
class Residual:
    """A residual that the distance can be taken of.

    Args:
        lists: attributes of the block lists whose block is measured, or names of parts of them.
        taps: submodules of the block whose output `value` needs.
        value: from a run of the block to the residual, gate applied. None: `x_out - x_in`.
    """

    lists: tuple[str, ...]
    taps: tuple[str, ...] = ()
    value: Callable[[BlockRun], Tensor] | None = None


@dataclass(frozen=True)
class Adapter:
    """All that the engine knows of a model class.

    Args:
        lists: block lists in the order in which the model runs through them.
        residuals: residuals that can be measured, by `cache_res`.
        frames: from the model and its forward's arguments to (videos, frames of tokens).
        guidance_calls: calls that its pipelines make a step with classifier-free guidance: 1 where
            both branches are in one batch.
        why_not_cached: from the model and its forward's arguments to what keeps this call from being
            cached, None where nothing does.
        origin: how the model was recognised.
    """

    lists: tuple[BlockList, ...]
    residuals: Mapping[CacheRes, Residual]
    frames: Callable[[nn.Module, Mapping[str, Any]], tuple[int, int]]
    guidance_calls: int = 1
    why_not_cached: Callable[[nn.Module, Mapping[str, Any]], str | None] | None = None
    origin: str = "by its class"

    def describe(self, model: nn.Module) -> str:
        """The lists with their streams and numbers of blocks, and how they were found."""
        lists = [
            f"{blocks.name}({', '.join(stream.parameter for stream in blocks.streams)}) of "
            f"{len(blocks.modules(model))}"
            for blocks in self.lists
        ]
        return f"{' -> '.join(lists)}, {self.origin}"

    def lists_by_block(self, model: nn.Module, name: str) -> dict[int, BlockList]:
        """Of a list, or of a part of that name: where the block of each index belongs."""
        named = [blocks for blocks in self.lists if name in (blocks.attribute, blocks.name)]
        found = {index: blocks for blocks in named for index in blocks.modules(model)}
        return dict(sorted(found.items()))

    @property
    def residual_lists(self) -> tuple[BlockList, ...]:
        """Lists that have a residual of their own."""
        return tuple(
            blocks
            for blocks in self.lists
            if blocks.has_residual and not blocks.interleaved_with_next
        )


def video_shape(arguments: Mapping[str, Any], frame_axis: int) -> tuple[int, int]:
    """(videos, latent frames) of a forward's `hidden_states` argument."""
    hidden_states = arguments["hidden_states"]
    assert isinstance(hidden_states, torch.Tensor)
    return hidden_states.shape[0], hidden_states.shape[frame_axis]
