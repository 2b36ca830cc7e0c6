"""Latte with the tokens of each frame split over ranks.

diffusers has no plan for Latte. Here is one: each rank has some tokens of every frame. Temporal
attention then needs no other rank. Spatial attention gathers the keys and values of all tokens.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig
from diffusers.models._modeling_parallel import ContextParallelInput, ContextParallelOutput
from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.distributed import _functional_collectives as functional

PLAN = {
    "pos_embed": {0: ContextParallelInput(split_dim=1, expected_dims=3, split_output=True)},
    "temporal_transformer_blocks.*": {
        "timestep": ContextParallelInput(split_dim=0, expected_dims=2)
    },
    "proj_out": ContextParallelOutput(gather_dim=1, expected_dims=3),
}


class GatheredKeys:
    """Self-attention of this rank's tokens to those of all ranks."""

    def __call__(self, attention: Attention, hidden_states: Tensor, **_others: Any) -> Tensor:
        """Return the output of the attention, `[B, S, C]`."""
        whole = functional.all_gather_tensor(hidden_states.contiguous(), 1, dist.group.WORLD)
        sources = hidden_states, whole, whole
        layers = attention.to_q, attention.to_k, attention.to_v
        q, k, v = (
            layer(x).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
            for layer, x in zip(layers, sources, strict=True)
        )
        x = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        output: Tensor = attention.to_out[0](x.transpose(1, 2).flatten(2))
        return output


def split(model: Any) -> None:
    """Split a Latte over the ranks of the default group."""
    config = ContextParallelConfig(ulysses_degree=dist.get_world_size())
    model.enable_parallelism(config=config, cp_plan=PLAN)
    for block in model.transformer_blocks:
        block.attn1.set_processor(GatheredKeys())
