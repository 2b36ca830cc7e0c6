"""The division of a residual in host memory into chunks that are copied one at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_ALIGNMENT = 256


@dataclass(frozen=True)
class ChunkLayout:
    """A residual [B, F, S, C] in chunks of tokens S: the values of a chunk, then its scales.

    Args:
        shape: [B, F, S, C] of the residual.
        dtype: stored dtype of the values.
        has_scale: True if there is one float32 scale for each token.
        max_bytes: most bytes of a chunk. A single token of all frames may have more.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    has_scale: bool
    max_bytes: int

    @property
    def count(self) -> int:
        """Return the number of chunks."""
        return -(-self.shape[2] // self._tokens)

    @property
    def largest(self) -> int:
        """Return the bytes of the first chunk, which is the largest."""
        return self._bytes(min(self._tokens, self.shape[2]))

    @property
    def nbytes(self) -> int:
        """Return the bytes of all chunks."""
        return self.extent(self.count - 1)[1] if self.count else 0

    def tokens(self, index: int) -> tuple[int, int]:
        """Return the first token of a chunk, and its number of tokens."""
        start = index * self._tokens
        return start, min(self._tokens, self.shape[2] - start)

    def extent(self, index: int) -> tuple[int, int]:
        """Return the first byte of a chunk in the stored residual, and its end."""
        start = index * self._bytes(self._tokens)
        return start, start + self._bytes(self.tokens(index)[1])

    def views(self, buffer: Tensor, index: int) -> tuple[Tensor, Tensor | None]:
        """Return the values [B, F, s, C] and scales [B, F, s, 1] of a chunk.

        Args:
            buffer: uint8, one dimension; the chunk begins at its first byte.
            index: number of the chunk.
        """
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
        """Return the tokens of a chunk in `x`: [B, F, S, C] to [B, F, s, C]."""
        return x.narrow(2, *self.tokens(index))

    @property
    def _tokens(self) -> int:
        return max(1, self.max_bytes // max(1, self._bytes_of_a_token))

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
