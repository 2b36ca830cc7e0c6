"""Doubles of STDiT3 as in the repositories of AdaCache, Open-Sora and VideoSys."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.support.tiny_models.original_parts import (
    CHANNELS,
    TOKENS,
    Attention,
    Embedded,
    mlp,
    norm,
)

When = tuple[Tensor, Any, Any, int, int]
"""The time embedding t, x_mask, the embedding t0 of time 0, frames T, tokens S of a frame."""


class STDiT3Block(nn.Module):
    """Gated attention, cross attention, gated MLP; masked frames are modulated as at time 0."""

    in_space = False
    """If True, the temporal attention takes `[B, H, W, F, C]`."""

    def __init__(self, temporal: bool) -> None:
        super().__init__()
        self.temporal = temporal
        self.norm1, self.norm2 = norm(), norm()
        self.attn, self.cross_attn, self.mlp = Attention(), Attention(), mlp()
        self.scale_shift_table = nn.Parameter(torch.randn(6, CHANNELS) / CHANNELS**0.5)

    def rows(self, when: When) -> list[Tensor]:
        """Return shift, scale and gate of attention and MLP, six tensors `[B, T * S, C]`."""
        t, x_mask, t0, T, S = when
        batch = t.shape[0]
        chosen = (self.scale_shift_table[None] + t.reshape(batch, 6, -1)).unsqueeze(2)
        if x_mask is not None:
            zero = (self.scale_shift_table[None] + t0.reshape(batch, 6, -1)).unsqueeze(2)
            chosen = torch.where(x_mask[:, None, :, None], chosen, zero)
        return [
            row.expand(batch, T, CHANNELS).repeat_interleave(S, dim=1)
            for row in chosen.unbind(dim=1)
        ]

    def attention(self, x: Tensor, when: When) -> Tensor:
        """Return the gated output of the attention, `[B, T * S, C]`."""
        (shift, scale, gate, *_), (*_, T, S) = self.rows(when), when
        frames = (self.norm1(x) * (1 + scale) + shift).view(len(x), T, S, CHANNELS)
        if self.temporal and self.in_space:
            mixed = self.attn(frames.unflatten(2, (S // 4, 4)).permute(0, 2, 3, 1, 4))
            mixed = mixed.permute(0, 3, 1, 2, 4)
        elif self.temporal:
            mixed = self.attn(frames.transpose(1, 2).flatten(0, 1))
            mixed = mixed.view(len(x), S, T, CHANNELS).transpose(1, 2)
        else:
            mixed = self.in_frames(frames)
        return gate * mixed.reshape(x.shape)

    def in_frames(self, frames: Tensor) -> Tensor:
        """Return the attention in each frame of `[B, T, S, C]`, in the same shape."""
        mixed: Tensor = self.attn(frames.flatten(0, 1))
        return mixed.view(frames.shape)

    def rest(self, x: Tensor, y: Tensor, when: When) -> tuple[Tensor, Tensor]:
        """Return the outputs of the cross attention and of the gated MLP after it."""
        shift, scale, gate = self.rows(when)[3:]
        cross = self.cross_attn(x, y)
        return cross, gate * self.mlp(self.norm2(x + cross) * (1 + scale) + shift)

    def run(self, x: Tensor, y: Tensor, when: When) -> Tensor:
        x = x + self.attention(x, when)
        cross, gated = self.rest(x, y, when)
        return x + cross + gated


class AuthorsBlock(STDiT3Block):
    """The block of AdaCache's authors: each block returns a dictionary to the next one."""

    def forward(
        self, x: Tensor, y: Tensor, t: Tensor, ada_dict: Any, mask: Any = None, x_mask: Any = None,
        t0: Any = None, T: Any = None, S: Any = None,
    ) -> tuple[Tensor, Any]:  # fmt: skip
        return self.run(x, y, (t, x_mask, t0, T, S)), ada_dict


class OpenSoraBlock(STDiT3Block):
    """The block of Open-Sora 1.2."""

    def forward(
        self, x: Tensor, y: Tensor, t: Tensor, mask: Any = None, x_mask: Any = None,
        t0: Any = None, T: Any = None, S: Any = None,
    ) -> Tensor:  # fmt: skip
        return self.run(x, y, (t, x_mask, t0, T, S))


class OpenSora13Block(STDiT3Block):
    """The block of Open-Sora 1.3."""

    in_space = True

    def forward(
        self, x: Tensor, y: Tensor, t: Tensor, mask: Any = None, x_mask: Any = None,
        t0: Any = None, T: Any = None, S: Any = None, H: Any = None, W: Any = None,
        scale: Any = None, mask_index: Any = None, y_null: Any = None,
    ) -> Tensor:  # fmt: skip
        return self.run(x, y, (t, x_mask, t0, T, S))


class VideoSysBlock(STDiT3Block):
    """The block of VideoSys."""

    def forward(
        self, x: Tensor, y: Tensor, t: Tensor, mask: Any = None, x_mask: Any = None,
        t0: Any = None, T: Any = None, S: Any = None, timestep: Any = None,
        all_timesteps: Any = None,
    ) -> Tensor:  # fmt: skip
        return self.run(x, y, (t, x_mask, t0, T, S))


class STDiT3(Embedded):
    """A model that calls its blocks as the repository of `block` does."""

    def __init__(self, block: type[STDiT3Block], depth: int = 3) -> None:
        super().__init__()
        self.spatial_blocks = nn.ModuleList(block(False) for _ in range(depth))
        self.temporal_blocks = nn.ModuleList(block(True) for _ in range(depth))
        self.depth, self.by_index = depth, block is VideoSysBlock
        self.has_dictionary = block is AuthorsBlock

    def forward(
        self, x: Tensor, timestep: Tensor, y: Tensor, mask: Any = None, x_mask: Any = None
    ) -> Tensor:
        tokens, T = self.split(self.patches(x).view(len(x), -1, TOKENS, CHANNELS)), x.shape[2]
        S = tokens.shape[1] // T
        t, t0 = self.times(timestep), self.times(torch.zeros_like(timestep))
        t0 = None if x_mask is None else t0
        rest = (None, x_mask, t0, T, S)
        if self.by_index:
            for depth in range(self.depth):
                tokens = self.spatial_blocks[depth](tokens, y, t, *rest, timestep)
                tokens = self.temporal_blocks[depth](tokens, y, t, *rest, timestep)
            return self.video(self.gathered(tokens, T))
        ada_dict: Any = {"count": 0}
        for spatial, temporal in zip(self.spatial_blocks, self.temporal_blocks, strict=True):
            for block in (spatial, temporal):
                if self.has_dictionary:
                    tokens, ada_dict = block(tokens, y, t, ada_dict, *rest)
                else:
                    tokens = block(tokens, y, t, *rest)
        assert ada_dict == {"count": 0}
        return self.video(self.gathered(tokens, T))

    def split(self, frames: Tensor) -> Tensor:
        """Return the tokens of this rank, `[B, T * S, C]`, of `[B, T, S, C]`."""
        return frames.flatten(1, 2)

    def gathered(self, tokens: Tensor, T: int) -> Tensor:
        """Return the tokens of all ranks, `[B, T * S, C]`, of those of this rank."""
        return tokens
