"""The plan of the cache: the slots that a patched model needs, with their shapes and dtypes.

A plan is arithmetic on shapes. Each guidance branch needs one residual for every block list, stream
and ring index. The first branch also needs the residuals of the metric blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..models import BlockList
from ..options import CacheDtype
from .byte_sizes import format_bytes
from .chunk_layout import ChunkLayout

Key = tuple[object, ...]
"""Name of a slot."""
CHUNK_BYTES = 32 << 20
"""Most bytes of a chunk of a residual in host memory: 1.3 ms on a bus of 25 GB/s."""
STAGING = "staging"
STAGING_SETS = 2
"""Sets of staging buffers on the device: one is copied while the other is in use."""
STORED: dict[CacheDtype, torch.dtype] = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}


@dataclass(frozen=True)
class StreamShape:
    """The shape and dtype of one stream."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, x: Tensor | None) -> StreamShape | None:
        """Return the shape and dtype of a stream of any layout; None if there is no stream."""
        return None if x is None else cls(tuple(x.shape), x.dtype)


@dataclass(frozen=True)
class StreamShapes:
    """The shapes of all streams of one guidance branch. Branches may differ in batch size.

    Args:
        video: number of videos and of frames.
        streams: the streams that enter the first block list, by the name of the block's parameter;
            None for a stream that the call does not have.
    """

    video: tuple[int, int]
    streams: Mapping[str, StreamShape | None]

    @classmethod
    def of(
        cls, video: tuple[int, int], first: BlockList, arguments: Mapping[str, Any]
    ) -> StreamShapes:
        """Return the shapes of the streams of a call.

        Args:
            video: number of videos and of frames.
            first: the first block list.
            arguments: arguments of its first block, by parameter name.
        """
        names = [stream.parameter for stream in first.streams]
        return cls(video, {name: StreamShape.of(arguments.get(name)) for name in names})


@dataclass(frozen=True)
class SlotSpec:
    """One slot of a plan.

    Args:
        key: its name.
        shape: shape of the tensor.
        dtype: dtype of the tensor.
        chunks: its chunks if it lies in host memory while the model runs on a device, else None.
    """

    key: Key
    shape: tuple[int, ...]
    dtype: torch.dtype
    chunks: ChunkLayout | None = None

    @property
    def on_host(self) -> bool:
        """Return True if the slot lies in host memory while the model runs on a device."""
        return self.chunks is not None

    @property
    def nbytes(self) -> int:
        """Return the bytes of the slot."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Storage:
    """The form in which residuals are stored.

    Args:
        dtype: "int8" or "fp8": eight bits, with one float32 scale for each token. None: the dtype
            of the model.
        on_host: True: in host memory, copied to the device in chunks.
    """

    dtype: CacheDtype | None = None
    on_host: bool = False

    def __str__(self) -> str:
        name = self.dtype or "full precision"
        return f"{name}, in host memory" if self.on_host else name


@dataclass(frozen=True)
class SlotDemand:
    """The residuals that an engine stores, independent of their storage.

    Args:
        lists: block lists of the model.
        ring_slots: number of slots of each ring.
        metric_blocks: attribute of the block list, and index, of each metric block.
    """

    lists: tuple[BlockList, ...]
    ring_slots: int
    metric_blocks: tuple[tuple[str, int], ...]

    def slots(self, branch: int, shapes: StreamShapes, storage: Storage) -> list[SlotSpec]:
        """Return the slots of one guidance branch.

        Args:
            branch: number of the branch, from 0. Branch 0 has the metric blocks.
            shapes: shapes of the branch's streams before the first block list.
            storage: form of the residuals.
        """
        specs: dict[Key, SlotSpec] = {}
        largest = 0
        for blocks in self.lists:
            if blocks.interleaved_with_next or not blocks.has_residual:
                continue
            for index, stream in enumerate(self._streams(blocks, shapes)):
                if stream is None:
                    continue
                chunks = _chunks(blocks, index, stream, storage, shapes.video)
                largest = max(largest, chunks.largest)
                for ring_index in range(self.ring_slots):
                    key = residual_key(branch, blocks.name, index, ring_index)
                    specs |= _residual_specs(key, stream, storage, chunks)
        if branch == 0:
            specs |= self._metric_specs(shapes)
        if storage.on_host:
            specs |= self._staging_specs(largest)
        return list(specs.values())

    def _metric_specs(self, shapes: StreamShapes) -> dict[Key, SlotSpec]:
        specs = {}
        for attribute, block in self.metric_blocks:
            blocks = next(blocks for blocks in self.lists if blocks.attribute == attribute)
            stream, key = self._video_stream(blocks, shapes), metric_key(attribute, block)
            specs[key] = SlotSpec(key, stream.shape, stream.dtype)
        return specs

    def _staging_specs(self, nbytes: int) -> dict[Key, SlotSpec]:
        keys = [
            staging_key(staging_set, term, nbytes)
            for staging_set in range(STAGING_SETS)
            for term in range(self.ring_slots)
        ]
        return {key: SlotSpec(key, (nbytes,), torch.uint8) for key in keys}

    def _streams(self, blocks: BlockList, shapes: StreamShapes) -> tuple[StreamShape | None, ...]:
        """Return the streams of a block list, the video first; None for a missing one.

        A stream that does not enter the first list counts as large as the video.
        """
        video = self._video_stream(blocks, shapes)
        others = (shapes.streams.get(other.parameter, video) for other in blocks.streams[1:])
        return (video, *others)

    def _video_stream(self, blocks: BlockList, shapes: StreamShapes) -> StreamShape:
        """Return the video stream: equally large in every list, in the layout of `blocks`."""
        first = shapes.streams[self.lists[0].streams[0].parameter]
        assert first is not None
        channels = first.shape[-1]
        if blocks.joined:
            parts = (shapes.streams[parameter] for parameter in blocks.joined)
            tokens = sum(part.shape[1] for part in parts if part is not None)
            return StreamShape((first.shape[0], tokens, channels), first.dtype)
        if blocks.layout is self.lists[0].layout:
            return first
        batch, frames = shapes.video
        tokens = math.prod(first.shape[:-1]) // (batch * frames)
        return StreamShape(blocks.layout.shape(batch, frames, tokens, channels), first.dtype)


def residual_key(branch: int, attribute: str, stream: int, ring_index: int) -> Key:
    """Return the key of a residual."""
    return ("residual", branch, attribute, stream, ring_index)


def scale_key(key: Key) -> Key:
    """Return the key of the scales, one for each token, of a residual in eight bits."""
    return ("scale", *key)


def metric_key(attribute: str, block: int) -> Key:
    """Return the key of a metric block's residual.

    It is stored in full precision: codebooks distinguish distances of a few percent.
    """
    return ("metric", attribute, block)


def staging_key(staging_set: int, term: int, nbytes: int) -> Key:
    """Return the key of a staging buffer, which holds a chunk between host and device."""
    return (STAGING, staging_set, term, nbytes)


def total_bytes(specs: Iterable[SlotSpec], *, on_host: bool = False) -> int:
    """Return the bytes of the slots on the device, or with `on_host` of those in host memory."""
    return _sum(spec for spec in specs if spec.on_host is on_host)


def describe(specs: Sequence[SlotSpec]) -> str:
    """Return one line for each kind of slot: number, kind, shape, dtype and bytes."""
    kinds: dict[tuple[object, ...], list[SlotSpec]] = {}
    for spec in specs:
        kinds.setdefault((spec.key[0], spec.shape, spec.dtype, spec.on_host), []).append(spec)
    return "\n".join(
        f"  {len(group)} x {kind[0]} {list(group[0].shape)} {group[0].dtype}"
        f"{' in host memory' if group[0].on_host else ''}: {format_bytes(_sum(group))}"
        for kind, group in kinds.items()
    )


def _sum(specs: Iterable[SlotSpec]) -> int:
    return sum(spec.nbytes for spec in specs)


def _chunks(
    blocks: BlockList, index: int, stream: StreamShape, storage: Storage, video: tuple[int, int]
) -> ChunkLayout:
    """Return the chunks of a residual, as they are if it lies in host memory."""
    view = blocks.split(torch.empty(stream.shape, device="meta"), index, video)
    dtype = stream.dtype if storage.dtype is None else STORED[storage.dtype]
    has_scale = storage.dtype is not None
    return ChunkLayout(tuple(view.shape), dtype, has_scale, CHUNK_BYTES)


def _residual_specs(
    key: Key, stream: StreamShape, storage: Storage, chunks: ChunkLayout
) -> dict[Key, SlotSpec]:
    if storage.on_host:
        return {key: SlotSpec(key, (chunks.nbytes,), torch.uint8, chunks)}
    if storage.dtype is None:
        return {key: SlotSpec(key, stream.shape, stream.dtype)}
    scales = scale_key(key)
    return {
        key: SlotSpec(key, stream.shape, STORED[storage.dtype]),
        scales: SlotSpec(scales, (*stream.shape[:-1], 1), torch.float32),
    }
