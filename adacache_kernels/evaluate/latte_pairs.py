"""Latte's blocks in pairs, for caches that expect one list of blocks.

Latte runs spatial and temporal blocks alternately, from two lists, and changes the layout of its
tokens in between. Some caches subtract the input of the first block from the output of the last
one, so both must have one shape. A module of a spatial block and the next temporal one has that.
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
class CallShape:
    """The shape of the current forward call.

    Args:
        batch: number of videos.
        frames: of a video.
        temporal: temporal blocks run.
    """

    batch: int = 0
    frames: int = 0
    temporal: bool = True

    def set_from(self, _model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Set the shape from a call's arguments; a forward pre-hook."""
        x = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        self.batch, self.frames = x.shape[0], x.shape[2]
        self.temporal = kwargs.get("enable_temporal_attentions", True)


class LattePair(nn.Module):
    """A spatial block and the temporal block after it.

    Args:
        spatial, temporal: the blocks.
        positions: `[1, F, C]`, added between the first two blocks; None in all other pairs.
        shape: of the current forward call.
    """

    def __init__(
        self, spatial: nn.Module, temporal: nn.Module, positions: Tensor | None, shape: CallShape
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
        """Run both blocks on `hidden_states [B*F, S, C]`, and return the same shape."""
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
        tokens = x.shape[1]
        x = self._regrouped(x)
        if self._positions is not None and self._shape.frames > 1:
            x = x + self._positions.to(x.dtype)
        # The timestep of each video's first frame, once for each of its tokens.
        by_token = timestep[:: self._shape.frames].repeat_interleave(tokens, dim=0)
        x = self.temporal(x, None, None, None, by_token, None, None)
        return self._regrouped(x)

    def _regrouped(self, x: Tensor) -> Tensor:
        """Return `[B*F, S, C]` as `[B*S, F, C]`, or the reverse."""
        by_video = x.reshape(self._shape.batch, -1, x.shape[-2], x.shape[-1]).permute(0, 2, 1, 3)
        return by_video.reshape(-1, by_video.shape[-2], by_video.shape[-1])


class _Identity(nn.Module):
    def forward(self, x: Tensor, *_: Any) -> Tensor:
        return x


@contextmanager
def paired(transformer: nn.Module) -> Iterator[None]:
    """Replace the blocks of a `LatteTransformer3DModel` by pairs inside of the context.

    Its output stays the same, bit for bit.
    """
    before = dict(transformer._modules)
    positions = transformer.get_buffer(POSITIONS)
    lists: Any = (before[SPATIAL], before[TEMPORAL])
    spatial, temporal = map(list, lists)
    shape = CallShape()
    pairs = [
        LattePair(one, other, positions if number == 0 else None, shape)
        for number, (one, other) in enumerate(zip(spatial, temporal, strict=True))
    ]
    handle = transformer.register_forward_pre_hook(shape.set_from, with_kwargs=True)
    delattr(transformer, TEMPORAL)
    setattr(transformer, SPATIAL, nn.ModuleList(pairs))
    # A plain list: caches would hook the identities in a module list as well.
    setattr(transformer, TEMPORAL, [_Identity() for _ in temporal])
    setattr(transformer, POSITIONS, torch.zeros_like(positions))
    try:
        yield
    finally:
        handle.remove()
        delattr(transformer, TEMPORAL)
        setattr(transformer, POSITIONS, positions)
        transformer._modules.clear()
        transformer._modules.update(before)
