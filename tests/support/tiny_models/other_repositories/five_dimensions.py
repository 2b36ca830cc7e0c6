"""Doubles of Cosmos in ComfyUI: streams of five dimensions, and blocks in a dict of modules."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tests.support.tiny_models.description import noise
from tests.support.tiny_models.other_repositories.comfy import Executed, double
from tests.support.tiny_models.other_repositories.parts import CHANNELS, Attention, mlp, norm


class GridBlock(nn.Module):
    """A block over a grid `[B, T, H, W, D]`; attention runs over its tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = norm(), norm(), norm()
        self.self_attn, self.cross_attn, self.mlp = Attention(), Attention(), mlp()
        self.modulation = nn.Linear(CHANNELS, 4 * CHANNELS)

    def run(self, x: Tensor, emb: Tensor, context: Tensor) -> Tensor:
        gates = self.modulation(emb)[:, None, None, None].chunk(4, dim=-1)
        tokens = (self.norm1(x) * (1 + gates[0])).flatten(1, 3)
        x = x + gates[1] * self.self_attn(tokens, None).view(x.shape)
        x = x + self.cross_attn(self.norm3(x).flatten(1, 3), context).view(x.shape)
        return x + gates[3] * self.mlp(self.norm2(x) * (1 + gates[2]))


class PredictBlock(GridBlock):
    def forward(
        self, x_B_T_H_W_D: Tensor, emb_B_T_D: Tensor, crossattn_emb: Tensor,
        rope_emb_L_1_1_D: Any = None, adaln_lora_B_T_3D: Any = None,
        extra_per_block_pos_emb: Any = None, transformer_options: Any = None,
    ) -> Tensor:  # fmt: skip
        return self.run(x_B_T_H_W_D, emb_B_T_D[:, 0], crossattn_emb)


class MiniTrainDIT(Executed):
    """A model whose stream is a grid of tokens, frames before rows before columns."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(PredictBlock() for _ in range(4))

    def _forward(
        self, x: Tensor, timestep: Tensor, context: Tensor, transformer_options: Any, **kwargs: Any
    ) -> Tensor:
        grid, emb = self.patches.grid(x).movedim(1, 4), self.time_in(timestep)[:, None]
        context = self.text_embedding(context)
        for block in self.blocks:
            grid = block(grid, emb, context, transformer_options=transformer_options)
        return self.patches.video(grid.flatten(1, 3), (3, 2, 2))


class GeneralBlock(GridBlock):
    """A block over `[T, H, W, B, D]`."""

    x_format = "THWBD"

    def forward(
        self, x: Tensor, emb_B_D: Tensor, crossattn_emb: Tensor, crossattn_mask: Any = None,
        rope_emb_L_1_1_D: Any = None, adaln_lora_B_3D: Any = None, transformer_options: Any = None,
    ) -> Tensor:  # fmt: skip
        rows = self.run(x.movedim(3, 0), emb_B_D, crossattn_emb.transpose(0, 1))
        return rows.movedim(0, 3)


class GeneralDIT(Executed):
    """A model with its blocks in a dict, which adds a position to the grid before each block."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict({f"block{i}": GeneralBlock() for i in range(4)})
        self.position = nn.Parameter(noise(3, 2, 2, 1, CHANNELS, seed=51))

    def _forward(
        self, x: Tensor, timestep: Tensor, context: Tensor, transformer_options: Any, **kwargs: Any
    ) -> Tensor:
        grid = self.patches.grid(x).permute(2, 3, 4, 0, 1).contiguous()
        emb, context = self.time_in(timestep), self.text_embedding(context).transpose(0, 1)
        for block in self.blocks.values():
            assert block.x_format == self.blocks["block0"].x_format
            grid += self.position
            grid = block(grid, emb, context, None, transformer_options=transformer_options)
        return self.patches.video(grid.movedim(3, 0).flatten(1, 3), (3, 2, 2))


FIVE_DIMENSIONS = {
    "cosmos predict 2": double(
        "Cosmos Predict2", MiniTrainDIT, {"blocks": {"x_B_T_H_W_D": None}}, attention=True
    ),
    "cosmos 1": double("Cosmos 1", GeneralDIT, {"blocks": {"x": None}}),
}
