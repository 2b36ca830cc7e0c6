"""How a residual in host memory is cut into pieces that come to the device one at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_ALIGNMENT = 256


@dataclass(frozen=True)
class ChunkLayout:
    """A residual [B, F, S, C] cut along its tokens S: each piece contiguous, then its scales.

    Args:
        shape: of the residual.
        dtype: that it is stored in.
        has_scale: whether there is a float32 scale a token.
        most: bytes of a piece, unless a single token of all frames has more.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    has_scale: bool
    most: int

    @property
    def count(self) -> int:
        """How many pieces there are."""
        return -(-self.shape[2] // self._tokens)

    @property
    def largest(self) -> int:
        """Bytes of the first piece, which no other exceeds."""
        return self._bytes(min(self._tokens, self.shape[2]))

    @property
    def nbytes(self) -> int:
        """Bytes of all pieces."""
        return self.extent(self.count - 1)[1] if self.count else 0

    def tokens(self, index: int) -> tuple[int, int]:
        """First token of a piece, and how many."""
        start = index * self._tokens
        return start, min(self._tokens, self.shape[2] - start)

    def extent(self, index: int) -> tuple[int, int]:
        """First byte of a piece in the stored residual, and the one after its last."""
        start = index * self._bytes(self._tokens)
        return start, start + self._bytes(self.tokens(index)[1])

    def views(self, buffer: Tensor, index: int) -> tuple[Tensor, Tensor | None]:
        """The values [B, F, s, C] and scales [B, F, s, 1] of a piece that lies in `buffer`."""
        batch, frames, _, channels = self.shape
        tokens = self.tokens(index)[1]
        rows = batch * frames * tokens
        nbytes = rows * channels * self.dtype.itemsize
        values = buffer[:nbytes].view(self.dtype).view(batch, frames, tokens, channels)
        if not self.has_scale:
            return values, None
        start = _aligned(nbytes)
        scales = buffer[start : start + 4 * rows].view(torch.float32)
        return values, scales.view(batch, frames, tokens, 1)

    def cut(self, x: Tensor, index: int) -> Tensor:
        """The tokens of a piece in a tensor [B, F, S, C]."""
        return x.narrow(2, *self.tokens(index))

    @property
    def _tokens(self) -> int:
        return max(1, self.most // max(1, self._bytes_of_a_token))

    @property
    def _bytes_of_a_token(self) -> int:
        batch, frames, _, channels = self.shape
        return batch * frames * (channels * self.dtype.itemsize + (4 if self.has_scale else 0))

    def _bytes(self, tokens: int) -> int:
        batch, frames, _, channels = self.shape
        rows = batch * frames * tokens
        values = _aligned(rows * channels * self.dtype.itemsize)
        return values + (_aligned(4 * rows) if self.has_scale else 0)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT
