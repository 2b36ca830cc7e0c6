"""Find the frames of a probed model's video in the arguments of its forward.

A video is a tensor of five dimensions, or a list of tensors of four. Divided by the patch size it
makes a grid of tokens. Only a grid that has exactly the shape of the hidden stream counts: then no
other tokens lie in the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..frames import Frames
from ..layout import Layout
from .unclear import Unclear

Grid = tuple[int, int, int]
"""Frames, height and width of a video."""
GivenFrames = int | Callable[[Mapping[str, Any]], int]
"""Frames of tokens in a video; or a function of the arguments of the model's forward by name."""

UNKNOWN = (
    "no argument of its forward is a video whose patches make the tokens of the hidden stream; "
    "give their number, ak.patch(model, frames=...)"
)
PATCHES = ("patch_size", "patch_size_t", "patch_spatial", "patch_temporal")
NOT_PATCHED = (1, 1, 1)


@dataclass(frozen=True)
class VideoInput:
    """A video in the arguments of a model's forward, as a grid of tokens.

    Args:
        argument: name of the argument.
        axis: dimension of the frames, in the tensor or in each tensor of the list.
        patch: number of frames that make one frame of tokens.
        grid: frames, height and width in tokens.
    """

    argument: str
    axis: int
    patch: int
    grid: Grid

    def frames(self) -> Frames:
        """Return a `Frames` that reads this argument."""

        def count(_model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
            value = arguments[self.argument]
            video = value if isinstance(value, Tensor) else value[0]
            return batch_of(arguments), _rounded_up(video.shape[self.axis], self.patch)

        return Frames(count, (self.argument,))


def batch_of(arguments: Mapping[str, Any]) -> int:
    """Return the batch size of the first tensor of two or more dimensions, or list of tensors."""
    for value in arguments.values():
        if isinstance(value, Tensor) and value.ndim >= 2:
            return value.shape[0]
        if isinstance(value, list | tuple) and value and isinstance(value[0], Tensor):
            return len(value)
    return 1


def video_layout(
    model: nn.Module,
    arguments: Mapping[str, Any],
    stream: Tensor,
    block_arguments: Mapping[str, Any],
    parts: int = 1,
) -> tuple[Layout, Frames]:
    """Return the layout of the video stream, and the frames.

    Args:
        model: the model.
        arguments: arguments of its forward, by name.
        stream: the stream, as it enters the first block.
        block_arguments: arguments of the first block, by name.
        parts: number of equal parts of the batch; the stream has one of them.

    Raises:
        Unclear: the shape of the stream is not that of any layout.
    """
    batch, shape = batch_of(arguments) // parts, tuple(stream.shape)
    inputs = list(_video_inputs(model, arguments, block_arguments))
    for layout in Layout:
        fitting = [x for x in inputs if layout.of_grid(batch, x.grid, shape[-1]) == shape]
        if fitting:
            is_clear = len({x.grid[0] for x in fitting}) == 1
            return layout, fitting[0].frames() if is_clear else unknown_frames()
    return _layout_of_tokens(batch, shape), unknown_frames()


def given_frames(frames: GivenFrames) -> Frames:
    """Return the `Frames` of the number or function that the user gave."""

    def count(_model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
        return batch_of(arguments), frames if isinstance(frames, int) else int(frames(arguments))

    return Frames(count)


def unknown_frames() -> Frames:
    """Return a `Frames` with 1 frame for every video."""
    return Frames(lambda _model, arguments: (batch_of(arguments), 1), unknown=UNKNOWN)


def check_frames(frames: object) -> None:
    """Check the setting `frames` of a model that is probed.

    Raises:
        TypeError: it is neither a whole number nor a function.
        ValueError: it is less than 1.
    """
    if callable(frames):
        return
    if not isinstance(frames, int) or isinstance(frames, bool):
        raise TypeError(
            f"frames is {frames!r}; it may be the frames of tokens in a video, a whole number, or "
            "a function that returns them from the arguments of the model's forward by name"
        )
    if frames < 1:
        raise ValueError(f"frames={frames}: a video has 1 frame of tokens or more")


def _layout_of_tokens(batch: int, shape: tuple[int, ...]) -> Layout:
    """Return the layout of a stream whose frames are not known."""
    by_dimensions = {
        3: {0: Layout.FRAME_MAJOR, 1: Layout.TOKENS_FIRST},
        5: {0: Layout.GRID, 3: Layout.GRID_FIRST},
    }
    for axis, layout in by_dimensions.get(len(shape), {}).items():
        if shape[axis] == batch:
            return layout
    if len(shape) == 2 and batch == 1:
        return Layout.UNBATCHED
    raise Unclear(
        f"the hidden stream has shape {list(shape)}; expected [batch, tokens, channels], [tokens, "
        "batch, channels] or [batch, frames, height, width, channels], with the batch of the "
        f"model's input, {batch}"
    )


def _video_inputs(
    model: nn.Module, arguments: Mapping[str, Any], block_arguments: Mapping[str, Any]
) -> Iterator[VideoInput]:
    patches = list(dict.fromkeys(_patch_sizes(model))) or [NOT_PATCHED]
    grids = list(_grid_arguments(block_arguments))
    for name, value in arguments.items():
        for axis, size in _sizes(value):
            for patch in patches:
                frames, height, width = map(_rounded_up, size, patch)
                yield VideoInput(name, axis, patch[0], (frames, height, width))
            for grid in grids:
                fitting = (n for n in range(1, size[0] + 1) if _rounded_up(size[0], n) == grid[0])
                yield from (VideoInput(name, axis, n, grid) for n in list(fitting)[:1])


def _sizes(value: Any) -> Iterator[tuple[int, Grid]]:
    """Yield the dimension of the frames, and frames, height and width, of what may be a video."""
    if isinstance(value, Tensor) and value.ndim == 5:
        _, a, b, c, d = value.shape
        yield 2, (b, c, d)
        yield 1, (a, c, d)
        yield 1, (a, b, c)
    elif isinstance(value, list | tuple) and value:
        first = value[0]
        same = all(isinstance(x, Tensor) and x.shape == value[0].shape for x in value)
        if same and first.ndim == 4:
            yield 1, tuple(first.shape[1:])


def _patch_sizes(model: nn.Module) -> Iterator[Grid]:
    """Yield the patch sizes that the model, its settings and its embedding may mean."""
    for owner in (model, getattr(model, "config", None), getattr(model, "patchifier", None)):
        found = {name: _setting(owner, name) for name in PATCHES}
        time = found["patch_size_t"] or found["patch_temporal"]
        space = found["patch_size"] or found["patch_spatial"]
        yield from _patches(time, space)
    for module in model.modules():
        if isinstance(module, nn.Conv3d | nn.Conv2d) and module.kernel_size == module.stride:
            yield from _patches(None, module.kernel_size)


def _setting(owner: Any, name: str) -> Any:
    """Return an attribute or an entry, or None. Properties of a module are not read."""
    if isinstance(owner, nn.Module):
        return vars(owner).get(name)
    return owner.get(name) if isinstance(owner, Mapping) else getattr(owner, name, None)


def _patches(time: Any, space: Any) -> Iterator[Grid]:
    """Yield the patches of frames, height and width that two settings may mean."""
    times = [time] if isinstance(time, int) else []
    if isinstance(space, int):
        for frames in times or [1, space]:
            yield frames, space, space
    elif isinstance(space, list | tuple) and all(isinstance(size, int) for size in space):
        if len(space) == 3:
            yield space[0], space[1], space[2]
        elif len(space) == 2:
            for frames in times or [1]:
                yield frames, space[0], space[1]


def _grid_arguments(block_arguments: Mapping[str, Any]) -> Iterator[Grid]:
    """Yield the grids of tokens that blocks are given on the host, such as `grid_sizes`."""
    for name, value in block_arguments.items():
        if "grid" not in name:
            continue
        if isinstance(value, Tensor):
            # A tensor on a device would be a wait of the host.
            is_readable = value.device.type == "cpu" and value.shape[-1:] == (3,) and value.numel()
            value = value.reshape(-1, 3)[0].tolist() if is_readable else ()
        is_grid = isinstance(value, list | tuple) and len(value) == 3
        if is_grid and all(isinstance(size, int) for size in value):
            yield value[0], value[1], value[2]


def _rounded_up(size: int, patch: int) -> int:
    return -(-size // max(1, patch))
