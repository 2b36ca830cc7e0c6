"""The description of a model class: its block lists, streams, residuals and frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ..options import CacheRes
from .block_calls import whole_list
from .frames import Frames
from .layout import Layout
from .misfit import Misfit

WhyNotCached = Callable[[nn.Module, Mapping[str, Any]], str | None]
"""From the model and its forward's arguments by name to a reason, or None if there is none."""


@dataclass(frozen=True)
class Stream:
    """A hidden stream: one tensor that passes through the blocks.

    Args:
        parameter: the parameter of the block's forward that takes the stream.
        output: index of the stream in the tuple that the block returns; None if the block returns
            the stream itself.
    """

    parameter: str
    output: int | None = None

    def read(self, output: Any) -> Tensor:
        """Return the stream from a block's output.

        Raises:
            Misfit: the block did not return the stream.
        """
        value = self.value(output)
        if value is None:
            raise Misfit(f"a block returned no {self.parameter}")
        return value

    def value(self, output: Any) -> Tensor | None:
        """Return the stream from a block's output, or None if the call has no such stream.

        Raises:
            Misfit: the block returned something else.
        """
        if self.output is None:
            value, place = output, "itself"
        else:
            is_long_enough = isinstance(output, tuple | list) and len(output) > self.output
            value = output[self.output] if is_long_enough else ()
            place = f"as element {self.output} of a tuple"
        if value is None or isinstance(value, Tensor):
            return value
        raise Misfit(
            f"a block returned a {type(output).__name__}; expected {self.parameter}, a tensor, "
            f"{place}"
        )


@dataclass(frozen=True)
class BlockList:
    """A block list of a model, or a part of it, whose blocks share one layout.

    The input of each block is the output of the block before it, so one residual per stream holds
    what all blocks add. A list that is interleaved with the next shares that list's residual. If
    a model changes the video between two blocks, describe its list in parts. Each part has
    residuals of its own.

    Args:
        attribute: dotted name of the `nn.ModuleList`, or `nn.ModuleDict`, in the model.
        streams: the hidden streams, the video first. If a stream is None in a call, it has no
            residual there.
        layout: the layout of the video stream.
        interleaved_with_next: the blocks alternate with those of the next list, which has the same
            streams. Between two blocks the model may change the layout. Before the first block of
            the next list it may also add a tensor. The residuals belong to the next list.
        start: index of the first block.
        stop: index after the last block; None for the end of the list.
        step: distance between the indices of two blocks.
        passed: values that a block returns unchanged, by parameter and index in the output. In a
            reused step, an element of the output that is no stream and not passed is None.
        output_length: least length of the tuple that a reused step returns.
        joined: streams of the first list that the model concatenates along the tokens to make the
            stream of this list, in their order. The stream then has no frames.
        has_residual: False if a reused step needs none of the list's outputs. No residual is then
            stored.
        by_index: the model indexes its list, so a reused step needs an element for every block.
        replaces_tokens: between two blocks the model replaces tokens of a stream which do not reach
            its output, so that a stream may change there.
        sweep: number of the sweep, from 0, in a model that runs its blocks several times in one
            forward call. Each sweep has residuals of its own.
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
    replaces_tokens: bool = False
    sweep: int = 0

    @property
    def is_part(self) -> bool:
        """Return True if this is not the whole `nn.ModuleList`."""
        return self.start > 0 or self.stop is not None or self.step > 1

    @property
    def name(self) -> str:
        """Return the attribute, with the slice of a part, and the number of a later sweep.

        Examples are `blocks`, `blocks[0:3]` and `blocks, sweep 2`.
        """
        sweep = f", sweep {self.sweep + 1}" if self.sweep else ""
        if not self.is_part:
            return self.attribute + sweep
        stop = "" if self.stop is None else self.stop
        step = "" if self.step == 1 else f":{self.step}"
        return f"{self.attribute}[{self.start}:{stop}{step}]{sweep}"

    def modules(self, model: nn.Module) -> dict[int, nn.Module]:
        """Return the blocks by their index in the whole `nn.ModuleList`."""
        blocks = self.whole(model)
        indices = range(len(blocks))[self.start : self.stop : self.step]
        return {index: blocks[index] for index in indices}

    def whole(self, model: nn.Module) -> Sequence[nn.Module]:
        """Return the blocks of the whole list."""
        return whole_list(model, self.attribute)

    def split(self, x: Tensor, stream: int, video: tuple[int, int]) -> Tensor:
        """Return a stream as a view of four dimensions: the video as `[B, F, S, C]`.

        Args:
            x: the stream, in its layout.
            stream: index of the stream in `streams`. Other streams than the video get dimensions
                of size 1 for frames and, if they have none, for the batch.
            video: number of videos, B, and frames of each, F.

        Raises:
            Misfit: the video does not divide into that many frames.
        """
        if stream == 0:
            batch, frames = video
            return self.layout.split(x, batch, 1 if self.joined else frames)
        x = x.flatten(0, -3).unsqueeze(0) if x.ndim > 3 else x.unsqueeze(-3)
        return x if x.ndim == 4 else x.unsqueeze(0)


@dataclass
class BlockRun:
    """One call of a block, with what the residual of the block is computed from.

    Args:
        block: the block.
        arguments: the arguments of the call, by name.
        stream: the video stream.
        output: the output of the block.
        tap_outputs: outputs of the tapped submodules, by name.
        tap_inputs: positional arguments of the tapped submodules, by name.
        index: index of the block in the whole list, -1 if it is not known. A module that is in the
            list twice has two.
        parameters: the block's own parameters, by name. They are copied from the block while it
            runs, because offloaded parameters are on the device only then.
    """

    block: nn.Module
    arguments: Mapping[str, Any]
    stream: Stream
    output: Any = None
    tap_outputs: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Tensor] = field(default_factory=dict)
    tap_inputs: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    index: int = -1

    def parameter(self, name: str) -> Tensor:
        """Return a parameter of the block, as it was while the tapped submodules ran."""
        return self.parameters[name]

    def tap(self, name: str) -> Any:
        """Return the output of the submodule `name`.

        Raises:
            RuntimeError: the submodule's forward was not called, or the call was hidden.
        """
        if name not in self.tap_outputs:
            raise RuntimeError(
                f"no call of {type(self.block).__name__}.{name} was observed, so its residual is "
                "unknown (a compiled block hides such calls); measure the "
                'whole block instead: patch(..., cache_res="block")'
            )
        return self.tap_outputs[name]

    def tap_input(self, name: str) -> Tensor:
        """Return the first argument of the submodule `name`.

        Raises:
            Misfit: the submodule was not called with a tensor.
            RuntimeError: see `tap`.
        """
        self.tap(name)
        values = self.tap_inputs.get(name, ())
        if values and isinstance(values[0], Tensor):
            return values[0]
        raise Misfit(f"{type(self.block).__name__}.{name} was called without a tensor")

    @property
    def x_in(self) -> Tensor:
        """Return the video stream before the block."""
        value = self.arguments[self.stream.parameter]
        assert isinstance(value, Tensor)
        return value

    @property
    def x_out(self) -> Tensor:
        """Return the video stream after the block."""
        return self.stream.read(self.output)


@dataclass(frozen=True)
class Residual:
    """A residual of a metric block, of which the distance can be measured.

    Args:
        lists: the block lists that have a metric block, each by its attribute or by the name of a
            part.
        taps: submodules of the block whose outputs `value` reads.
        value: returns the residual of a run of the block, with the gate applied, in the layout of
            the block list. None: the residual of the whole block, `x_out - x_in`.
        optional: those of `taps` that a block may lack.
        arguments: parameters of the block's forward that `value` reads.
        parameters: the block's own parameters that `value` reads.
    """

    lists: tuple[str, ...]
    taps: tuple[str, ...] = ()
    value: Callable[[BlockRun], Tensor] | None = None
    optional: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Adapter:
    """The description of a model class.

    Args:
        lists: the block lists, in the order in which the model runs them.
        residuals: the residuals that can be measured, by their value of `cache_res`.
        frames: returns the number of videos and the frames of tokens in each.
        guidance_calls: calls of the transformer in a step with classifier-free guidance: 1 if both
            branches are in one batch, else 2.
        why_not_cached: returns the reason why a call must be computed; see `WhyNotCached`. None if
            every call may be cached.
        origin: the way in which the model was recognised, for people.
        parts: number of equal parts of the batch, if each sweep has one of them.
    """

    lists: tuple[BlockList, ...]
    residuals: Mapping[CacheRes, Residual]
    frames: Frames
    guidance_calls: int = 1
    why_not_cached: WhyNotCached | None = None
    origin: str = "by its class"
    parts: int = 1

    @property
    def sweeps(self) -> int:
        """Return how often the blocks run in one forward call."""
        return 1 + max(blocks.sweep for blocks in self.lists)

    def video(self, model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
        """Return the number of videos in one sweep and the frames of tokens in each.

        Raises:
            Misfit: the arguments are not those that the adapter describes.
        """
        videos, frames = self.frames(model, arguments)
        return max(1, videos // self.parts), frames

    def describe(self, model: nn.Module) -> str:
        """Return the lists with their streams and numbers of blocks, and the origin, as text."""
        lists = [
            f"{blocks.name}({', '.join(stream.parameter for stream in blocks.streams)}) of "
            f"{len(blocks.modules(model))}"
            for blocks in self.lists
            if blocks.sweep == 0
        ]
        sweeps = f", in {self.sweeps} sweeps" if self.sweeps > 1 else ""
        return f"{' -> '.join(lists)}{sweeps}, {self.origin}"

    def lists_by_block(self, model: nn.Module, name: str) -> dict[int, BlockList]:
        """Return the list, or the part of it, that each block belongs to, by index of the block.

        Only lists of the first sweep count.

        Args:
            model: the transformer.
            name: an attribute, whose parts are all searched, or the name of one part.
        """
        first = [blocks for blocks in self.lists if blocks.sweep == 0]
        named = [blocks for blocks in first if name in (blocks.attribute, blocks.name)]
        lists = {index: blocks for blocks in named for index in blocks.modules(model)}
        return dict(sorted(lists.items()))

    @property
    def residual_lists(self) -> tuple[BlockList, ...]:
        """Return the lists that have residuals of their own."""
        return tuple(
            blocks
            for blocks in self.lists
            if blocks.has_residual and not blocks.interleaved_with_next
        )
