"""Latte's blocks two by two, for caches that expect one list of blocks.

Latte runs spatial and temporal blocks in turn, from two lists, and regroups its tokens in between.
Caches that subtract what the first block was given from what the last one returns need both in one
shape. A spatial block with the temporal one after it, as one module, has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

SPATIAL, TEMPORAL, POSITIONS = "transformer_blocks", "temporal_transformer_blocks", "temp_pos_embed"


@dataclass
class Shape:
    """Of the forward that runs: videos, frames, and whether temporal blocks run at all."""

    batch: int = 0
    frames: int = 0
    temporal: bool = True

    def note(self, _model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A forward pre-hook."""
        x = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        self.batch, self.frames = x.shape[0], x.shape[2]
        self.temporal = kwargs.get("enable_temporal_attentions", True)


class LattePair(nn.Module):
    """A spatial block and the temporal block after it.

    Args:
        spatial, temporal: the blocks.
        positions: added between them, in the first pair of a video.
        shape: of the forward that runs.
    """

    def __init__(
        self, spatial: nn.Module, temporal: nn.Module, positions: Tensor | None, shape: Shape
    ) -> None:
        super().__init__()
        self.spatial, self.temporal = spatial, temporal
        self._positions, self._shape = positions, shape

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        timestep: Tensor | None = None,
        cross_attention_kwargs: Mapping[str, Any] | None = None,
        class_labels: Tensor | None = None,
    ) -> Tensor:
        """[batch * frames, patches, C] to the same."""
        x: Tensor = self.spatial(
            hidden_states,
            attention_mask,
            encoder_hidden_states,
            encoder_attention_mask,
            timestep,
            cross_attention_kwargs,
            class_labels,
        )
        if not self._shape.temporal:
            return x
        assert timestep is not None
        patches = x.shape[1]
        x = self._regrouped(x)
        if self._positions is not None and self._shape.frames > 1:
            x = x + self._positions.to(x.dtype)
        # Of the first frame of every video, once for each of its patches.
        of_patches = timestep[:: self._shape.frames].repeat_interleave(patches, dim=0)
        x = self.temporal(x, None, None, None, of_patches, None, None)
        return self._regrouped(x)

    def _regrouped(self, x: Tensor) -> Tensor:
        """[batch * m, n, C] to [batch * n, m, C]."""
        by_video = x.reshape(self._shape.batch, -1, x.shape[-2], x.shape[-1]).permute(0, 2, 1, 3)
        return by_video.reshape(-1, by_video.shape[-2], by_video.shape[-1])


class _Same(nn.Module):
    def forward(self, x: Tensor, *_: Any) -> Tensor:
        return x


@contextmanager
def paired(transformer: nn.Module) -> Iterator[None]:
    """The `LatteTransformer3DModel` computes the same, with pairs for its spatial blocks."""
    before = dict(transformer._modules)
    positions = transformer.get_buffer(POSITIONS)
    lists: Any = (before[SPATIAL], before[TEMPORAL])
    spatial, temporal = map(list, lists)
    shape = Shape()
    pairs = [
        LattePair(one, other, positions if number == 0 else None, shape)
        for number, (one, other) in enumerate(zip(spatial, temporal, strict=True))
    ]
    handle = transformer.register_forward_pre_hook(shape.note, with_kwargs=True)
    delattr(transformer, TEMPORAL)
    setattr(transformer, SPATIAL, nn.ModuleList(pairs))
    # No module list, or else caches would hook these stand-ins as well.
    setattr(transformer, TEMPORAL, [_Same() for _ in temporal])
    setattr(transformer, POSITIONS, torch.zeros_like(positions))
    try:
        yield
    finally:
        handle.remove()
        delattr(transformer, TEMPORAL)
        setattr(transformer, POSITIONS, positions)
        transformer._modules.clear()
        transformer._modules.update(before)
