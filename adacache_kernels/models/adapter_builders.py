"""Build adapters of models whose blocks follow each other directly.

The residual that can be measured is that of the whole metric block.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from .adapter import Adapter, BlockList, Residual, Stream, WhyNotCached
from .frames import Frames
from .layout import Layout

VIDEO = (Stream("hidden_states"),)
VIDEO_AND_TEXT = (Stream("hidden_states", 0), Stream("encoder_hidden_states", 1))
TEXT_AND_IMAGE = (Stream("hidden_states", 1), Stream("encoder_hidden_states", 0))
"""Blocks return (text, image); the image is the stream that is measured."""


def chained(
    *attributes: str,
    streams: tuple[Stream, ...],
    frames: Frames,
    guidance_calls: int = 1,
    why_not_cached: WhyNotCached | None = None,
) -> Adapter:
    """Return the adapter of block lists that run one after the other with the same streams.

    Args:
        attributes: names of the block lists in the model.
        streams: the hidden streams, the video first, as `[B, F*S, C]`.
        frames: see `Adapter`.
        guidance_calls: see `Adapter`.
        why_not_cached: see `Adapter`.
    """
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
    """Return the parts of a block list between whose blocks the model changes the video.

    Args:
        blocks: the list, or a part of it in which each block follows the one before it.
        count: number of blocks of the whole list.
        changed_after: indices of the blocks after which the model changes the video.
    """
    last = count if blocks.stop is None else blocks.stop
    after = {index + 1 for index in changed_after if blocks.start <= index < last}
    inside = sorted(after - {last})
    if not inside:
        # The model's loop has to reach the last block, after which it changes the video.
        return (replace(blocks, by_index=True) if after else blocks,)
    starts, stops = (blocks.start, *inside), (*inside, blocks.stop)
    return tuple(
        replace(blocks, start=start, stop=stop) for start, stop in zip(starts, stops, strict=True)
    )


def writes_keys_and_values(*names: str) -> WhyNotCached:
    """Return a `why_not_cached` for calls whose blocks share keys and values with other calls.

    Args:
        names: arguments of the model's forward that are not None in such calls.
    """

    def why_not_cached(_model: nn.Module, arguments: Mapping[str, Any]) -> str | None:
        present = [name for name in names if arguments.get(name) is not None]
        if not present:
            return None
        return (
            f"{' and '.join(present)} came with the call: its blocks write or read keys and values "
            "that other calls share, so such calls are computed"
        )

    return why_not_cached


def has_images_next_to_video(_model: nn.Module, arguments: Mapping[str, Any]) -> str | None:
    """Return the reason why a call with `use_image_num`, images next to the video, is computed."""
    if not arguments.get("use_image_num"):
        return None
    return (
        "use_image_num came with the call: images next to the video are not supported, so such "
        "calls are computed"
    )


HIDDEN_STATES = "hidden_states"
MIXED_TOKENS = "other tokens lie in the sequence of the video"
IMAGES_ONLY = "it makes images"


def video_shape(arguments: Mapping[str, Any], frame_axis: int) -> tuple[int, int]:
    """Return the number of videos and latent frames of the argument `hidden_states`.

    Args:
        arguments: the arguments of the model's forward, by name.
        frame_axis: dimension of the frames; the videos are dimension 0.
    """
    hidden_states = arguments[HIDDEN_STATES]
    return hidden_states.shape[0], hidden_states.shape[frame_axis]


def frames_at(axis: int, patch: str | None = None) -> Frames:
    """Return a `Frames` that reads the latent frames from a dimension of `hidden_states`.

    Args:
        axis: the dimension.
        patch: the attribute of `model.config` with the latent frames that make one frame of
            tokens: a number, or a sequence that begins with it. None: 1.
    """

    def count(model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
        batch, latent_frames = video_shape(arguments, frame_axis=axis)
        size = 1 if patch is None else getattr(model.config, patch)
        return batch, latent_frames // int(size[0] if isinstance(size, list | tuple) else size)

    return Frames(count, (HIDDEN_STATES,), () if patch is None else (f"config.{patch}",))


def _count_num_frames(_model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
    batch, tokens = video_shape(arguments, frame_axis=1)
    frames = int(arguments.get("num_frames") or 1)
    return batch, 1 if tokens % frames else frames


frames_from_num_frames = Frames(
    _count_num_frames,
    (HIDDEN_STATES,),
)
"""The frames by `num_frames`. There is 1 frame if the argument is missing, or if the sequence
`[B, F*S, C]` of `hidden_states` has other tokens too, so that frames cannot be separated."""


def _count_none(_model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
    return arguments[HIDDEN_STATES].shape[0], 1


one_image = Frames(_count_none, (HIDDEN_STATES,), unknown=IMAGES_ONLY)
"""The images of `hidden_states`, and 1 frame."""
no_frames = Frames(_count_none, (HIDDEN_STATES,), unknown=MIXED_TOKENS)
"""The videos of `hidden_states`, and 1 frame, because frames cannot be separated."""
