"""The order of the dimensions of a hidden stream."""

from __future__ import annotations

from enum import Enum

from torch import Tensor

from .misfit import Misfit


class Layout(Enum):
    """The layout of a stream of B videos with F frames of S tokens and C channels each."""

    FRAME_MAJOR = "[B, F*S, C]"
    FRAMES_IN_BATCH = "[B*F, S, C]"
    TOKENS_IN_BATCH = "[B*S, F, C]"
    UNBATCHED = "[F*S, C]"
    TOKENS_FIRST = "[F*S, B, C]"
    FRAMES = "[B, F, S, C]"
    GRID = "[B, F, H, W, C]"
    GRID_FIRST = "[F, H, W, B, C]"

    def shape(self, batch: int, frames: int, tokens: int, channels: int) -> tuple[int, ...]:
        """Return the shape of a stream in this layout; the tokens of a grid lie in one column.

        Args:
            batch: number of videos, B; an unbatched stream has one.
            frames: frames of a video, F.
            tokens: tokens of a frame, S.
            channels: channels of a token, C.
        """
        if self is Layout.UNBATCHED:
            return frames * tokens, channels
        if self is Layout.TOKENS_FIRST:
            return frames * tokens, batch, channels
        if self is Layout.FRAME_MAJOR:
            return batch, frames * tokens, channels
        if self is Layout.FRAMES:
            return batch, frames, tokens, channels
        if self is Layout.GRID:
            return batch, frames, tokens, 1, channels
        if self is Layout.GRID_FIRST:
            return frames, tokens, 1, batch, channels
        if self is Layout.FRAMES_IN_BATCH:
            return batch * frames, tokens, channels
        return batch * tokens, frames, channels

    def of_grid(self, batch: int, grid: tuple[int, int, int], channels: int) -> tuple[int, ...]:
        """Return the shape of a stream in this layout.

        Args:
            batch: number of videos.
            grid: frames, height and width of a video, in tokens.
            channels: channels of a token.
        """
        frames, height, width = grid
        if self is Layout.GRID:
            return batch, *grid, channels
        if self is Layout.GRID_FIRST:
            return *grid, batch, channels
        return self.shape(batch, frames, height * width, channels)

    def split(self, x: Tensor, batch: int, frames: int) -> Tensor:
        """Return `x`, a stream in this layout, as a view `[B, F, S, C]`.

        Raises:
            Misfit: the shape does not divide into `batch` videos of `frames` frames.
        """
        channels = x.shape[-1]
        tokens, rest = divmod(x.numel(), max(1, batch * frames * channels))
        if x.ndim != self.value.count(",") + 1 or rest:
            raise Misfit(
                f"a residual of shape {tuple(x.shape)} does not divide into {batch} videos of "
                f"{frames} frames in layout {self.value}"
            )
        if self is Layout.TOKENS_IN_BATCH:
            return x.view(batch, tokens, frames, channels).transpose(1, 2)
        if self in (Layout.TOKENS_FIRST, Layout.GRID_FIRST):
            return x.view(frames, tokens, batch, channels).permute(2, 0, 1, 3)
        return x.view(batch, frames, tokens, channels)
