"""What adapters that are data alone are made of: the blocks follow each other directly.

Measured is what the whole metric block adds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from .adapter import Adapter, BlockList, Layout, Residual, Stream, video_shape

Frames = Callable[[nn.Module, Mapping[str, Any]], tuple[int, int]]
WhyNotCached = Callable[[nn.Module, Mapping[str, Any]], str | None]
VIDEO = (Stream("hidden_states"),)
TEXT_AND_IMAGE = (Stream("hidden_states", 1), Stream("encoder_hidden_states", 0))
"""Returned in this order; the image is the stream that is measured."""
VIDEO_AND_TEXT = (Stream("hidden_states", 0), Stream("encoder_hidden_states", 1))


def chained(
    *attributes: str,
    streams: tuple[Stream, ...],
    frames: Frames,
    guidance_calls: int = 1,
    why_not_cached: WhyNotCached | None = None,
) -> Adapter:
    """Lists of blocks, one after the other, with the same streams."""
    return Adapter(
        lists=tuple(BlockList(name, streams, Layout.FRAME_MAJOR) for name in attributes),
        residuals={"block": Residual(attributes)},
        frames=frames,
        guidance_calls=guidance_calls,
        why_not_cached=why_not_cached,
    )


def split_block_list(
    blocks: BlockList, count: int, changed_after: Iterable[int]
) -> tuple[BlockList, ...]:
    """The parts of a list of `count` blocks whose video changes after those of these indices."""
    inside = sorted({index + 1 for index in changed_after if index + 1 < count})
    starts, stops = (0, *inside), (*inside, None)
    if not inside:
        return (blocks,)
    return tuple(
        replace(blocks, start=start, stop=stop) for start, stop in zip(starts, stops, strict=True)
    )


def writes_keys_and_values(*switches: str) -> WhyNotCached:
    """A call with one of these arguments leaves something behind that later calls need."""

    def why_not_cached(_model: nn.Module, arguments: Mapping[str, Any]) -> str | None:
        given = [name for name in switches if arguments.get(name) is not None]
        if not given:
            return None
        return (
            f"{' and '.join(given)} came with the call, in which the blocks write or read keys and "
            "values that other calls share, so such calls are computed"
        )

    return why_not_cached


def frames_at(axis: int, patch: str | None = None) -> Frames:
    """Latent frames on that axis of `hidden_states`; `config.<patch>` of them make a token."""

    def frames(model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
        batch, latent_frames = video_shape(arguments, frame_axis=axis)
        size = 1 if patch is None else getattr(model.config, patch)
        return batch, latent_frames // int(size[0] if isinstance(size, list | tuple) else size)

    return frames


def frames_from_num_frames(_model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
    """Frames as the argument `num_frames` says; one where it is not given, or where there are
    other tokens among those of the frames, so that frames cannot be told."""
    # The tokens come packed, [B, F*H*W, C].
    hidden_states = arguments["hidden_states"]
    assert isinstance(hidden_states, Tensor)
    frames = int(arguments.get("num_frames") or 1)
    return hidden_states.shape[0], 1 if hidden_states.shape[1] % frames else frames


def no_frames(_model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
    """An image; or a video among whose tokens there are others, so that frames cannot be told."""
    hidden_states = arguments["hidden_states"]
    assert isinstance(hidden_states, Tensor)
    return hidden_states.shape[0], 1
