"""The plan of the cache: which slots a patched model needs, of which shape and dtype.

Pure arithmetic on shapes. A branch of guidance needs one residual for every block list, stream and
place of the ring; the first branch also the residuals that distances are measured to.
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
PIECE_BYTES = 32 << 20
"""Most bytes of a piece of a residual in host memory: 1.3 ms on a bus of 25 GB/s."""
STAGING = "staging"
TURNS = 2
"""Sets of pieces on the device: while one is added, the next one comes."""
STORED: dict[CacheDtype, torch.dtype] = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}


@dataclass(frozen=True)
class StreamShape:
    """Shape and dtype of a hidden stream between the blocks."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, x: Tensor | None) -> StreamShape | None:
        """None where there is no such stream."""
        return None if x is None else cls(tuple(x.shape), x.dtype)


@dataclass(frozen=True)
class StreamShapes:
    """What a branch brings along. Branches may differ: a batch of two, and one beside it.

    Args:
        video: videos and frames.
        streams: that enter the first list, by parameter; None for one that this call has not.
    """

    video: tuple[int, int]
    streams: Mapping[str, StreamShape | None]

    @classmethod
    def of(
        cls, video: tuple[int, int], first: BlockList, arguments: Mapping[str, Any]
    ) -> StreamShapes:
        """From the arguments of the first block of the list `first`."""
        names = [stream.parameter for stream in first.streams]
        return cls(video, {name: StreamShape.of(arguments.get(name)) for name in names})


@dataclass(frozen=True)
class SlotSpec:
    """One slot.

    Args:
        key: its name, see the functions that make keys.
        shape: of the tensor.
        dtype: of the tensor.
        pieces: how it is cut, if it lies in host memory while the model runs on a device.
    """

    key: Key
    shape: tuple[int, ...]
    dtype: torch.dtype
    pieces: ChunkLayout | None = None

    @property
    def on_host(self) -> bool:
        return self.pieces is not None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Storage:
    """How residuals are kept.

    Args:
        dtype: None: as the model has them; "int8" or "fp8": in eight bits, with one scale a token.
        on_host: in host memory, brought to the device piece by piece where they are needed.
    """

    dtype: CacheDtype | None = None
    on_host: bool = False

    def __str__(self) -> str:
        name = self.dtype or "full precision"
        return f"{name}, in host memory" if self.on_host else name


@dataclass(frozen=True)
class SlotDemand:
    """What the engine keeps, however it is stored.

    Args:
        lists: block lists.
        places: of each ring.
        sites: attribute and index of the metric blocks.
    """

    lists: tuple[BlockList, ...]
    places: int
    sites: tuple[tuple[str, int], ...]

    def slots(self, branch: int, entering: StreamShapes, storage: Storage) -> list[SlotSpec]:
        """The slots of one branch, whose streams enter the first list in these shapes."""
        specs: dict[Key, SlotSpec] = {}
        largest = 0
        for blocks in self.lists:
            if blocks.interleaved_with_next or not blocks.has_residual:
                continue
            for index, stream in enumerate(self.streams(blocks, entering)):
                if stream is None:
                    continue
                pieces = self.pieces(blocks, index, stream, storage, entering.video)
                largest = max(largest, pieces.largest)
                for place in range(self.places):
                    key = residual_key(branch, blocks.name, index, place)
                    specs |= _stored(key, stream, storage, pieces)
        for attribute, block in self.sites if branch == 0 else ():
            blocks = next(blocks for blocks in self.lists if blocks.attribute == attribute)
            stream, key = self.first(blocks, entering), metric_key(attribute, block)
            specs[key] = SlotSpec(key, stream.shape, stream.dtype)
        if storage.on_host:
            for turn in range(TURNS):
                for term in range(self.places):
                    key = staging_key(turn, term, largest)
                    specs[key] = SlotSpec(key, (largest,), torch.uint8)
        return list(specs.values())

    def streams(self, blocks: BlockList, entering: StreamShapes) -> tuple[StreamShape | None, ...]:
        """The streams of a list, from those that enter the first list; None where there is none.

        A stream that does not enter the first list is taken to be as large as the video.
        """
        first = self.first(blocks, entering)
        return (
            first,
            *(entering.streams.get(stream.parameter, first) for stream in blocks.streams[1:]),
        )

    def first(self, blocks: BlockList, entering: StreamShapes) -> StreamShape:
        """The video stream: the same elements in every list, in the order of the list's layout."""
        whole = entering.streams[self.lists[0].streams[0].parameter]
        assert whole is not None
        if blocks.joined:
            parts = (entering.streams[parameter] for parameter in blocks.joined)
            tokens = sum(part.shape[1] for part in parts if part is not None)
            return StreamShape((whole.shape[0], tokens, whole.shape[-1]), whole.dtype)
        batch, frames = entering.video
        channels = whole.shape[-1]
        tokens = math.prod(whole.shape[:-1]) // (batch * frames)
        return StreamShape(blocks.layout.shape(batch, frames, tokens, channels), whole.dtype)

    def pieces(
        self,
        blocks: BlockList,
        index: int,
        stream: StreamShape,
        storage: Storage,
        video: tuple[int, int],
    ) -> ChunkLayout:
        """How a residual in host memory is cut."""
        split = blocks.split(torch.empty(stream.shape, device="meta"), index, video)
        dtype = stream.dtype if storage.dtype is None else STORED[storage.dtype]
        has_scale = storage.dtype is not None
        return ChunkLayout(tuple(split.shape), dtype, has_scale, PIECE_BYTES)


def residual_key(branch: int, attribute: str, stream: int, place: int) -> Key:
    """A residual."""
    return ("residual", branch, attribute, stream, place)


def scale_key(key: Key) -> Key:
    """The scales of a residual in eight bits, one a token."""
    return ("scale", *key)


def metric_key(attribute: str, block: int) -> Key:
    """What the next distance is measured to. Always in full precision: codebooks tell distances of
    a few percent apart."""
    return ("metric", attribute, block)


def staging_key(turn: int, term: int, nbytes: int) -> Key:
    """A piece of a residual on its way between host and device."""
    return (STAGING, turn, term, nbytes)


def total_bytes(specs: Iterable[SlotSpec], *, on_host: bool = False) -> int:
    """Bytes of the slots on the device, or of those in host memory."""
    return _sum(spec for spec in specs if spec.on_host is on_host)


def describe(specs: Sequence[SlotSpec]) -> str:
    """A line for each kind of slot: how many, of what, how much."""
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


def _stored(
    key: Key, stream: StreamShape, storage: Storage, pieces: ChunkLayout
) -> dict[Key, SlotSpec]:
    if storage.on_host:
        return {key: SlotSpec(key, (pieces.nbytes,), torch.uint8, pieces)}
    if storage.dtype is None:
        return {key: SlotSpec(key, stream.shape, stream.dtype)}
    scales = scale_key(key)
    return {
        key: SlotSpec(key, stream.shape, STORED[storage.dtype]),
        scales: SlotSpec(scales, (*stream.shape[:-1], 1), torch.float32),
    }
