"""Tiny models with the signatures and habits of model code in other repositories.

The blocks do not use the timestep, so equal inputs give equal outputs in every step.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.tiny_models.description import noise

WIDTH = 8


class Attention(nn.Module):
    """Mixes the tokens of `[B, N, C]`."""

    def __init__(self) -> None:
        super().__init__()
        self.to_v = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        return self.to_v(x - x.mean(1, keepdim=True)) + x.roll(1, 1)


class GatedBlock(nn.Module):
    """x + gate * attn1(norm1(x)), then + ff(norm2(x))."""

    attention = "attn1"

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        setattr(self, self.attention, Attention())
        self.ff = nn.Linear(WIDTH, WIDTH)
        self.gate = nn.Parameter(noise(WIDTH, seed=4))

    def attend(self, x: Tensor) -> Tensor:
        return getattr(self, self.attention)(self.norm1(x))

    def run(self, x: Tensor) -> Tensor:
        x = x + self.gate * self.attend(x)
        return x + self.ff(self.norm2(x))


class Denoiser(nn.Module):
    """A model that patchifies a video [B, C, F, H, W], runs its blocks and gives a video back."""

    patch_size = (1, 2, 2)
    blocks_name = "blocks"

    def __init__(self, block: type[nn.Module], count: int = 3) -> None:
        super().__init__()
        self.patch_size = type(self).patch_size
        torch.manual_seed(1)
        self.embed, self.head = nn.Linear(8, WIDTH), nn.Linear(WIDTH, 8)
        setattr(self, self.blocks_name, nn.ModuleList(block() for _ in range(count)))

    def patchify(self, x: Tensor) -> Tensor:
        """Return the tokens of a video [B, 2, F, H, W], [B, F*H/2*W/2, 8]."""
        batch, channels, frames, height, width = x.shape
        x = x.reshape(batch, channels, frames, height // 2, 2, width // 2, 2)
        return x.permute(0, 2, 3, 5, 1, 4, 6).reshape(batch, -1, 4 * channels)

    def unpatchify(self, tokens: Tensor, like: Tensor) -> Tensor:
        batch, channels, frames, height, width = like.shape
        x = tokens.reshape(batch, frames, height // 2, width // 2, channels, 2, 2)
        return x.permute(0, 4, 1, 2, 5, 3, 6).reshape(like.shape)


class OwnAllegroBlock(GatedBlock):
    def forward(  # type: ignore[override]
        self,
        hidden_states: Tensor,
        attention_mask: Any = None,
        encoder_hidden_states: Any = None,
        timestep: Any = None,
    ) -> Tensor:
        return self.run(hidden_states)


class AllegroTransformer3DModel(Denoiser):
    """Allegro's own class has the name of diffusers', but its blocks take no `temb`."""

    blocks_name = "transformer_blocks"

    def __init__(self) -> None:
        super().__init__(OwnAllegroBlock)
        self.config = SimpleNamespace(patch_size=2, patch_size_t=1)

    def forward(self, hidden_states: Tensor, timestep: Any = None) -> Tensor:
        x = self.embed(self.patchify(hidden_states))
        for block in self.transformer_blocks:
            x = block(x, None, None, timestep)
        return self.unpatchify(self.head(x), hidden_states)


class TwoStreamBlock(GatedBlock):
    def forward(  # type: ignore[override]
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Any
    ) -> tuple[Tensor, Tensor]:
        text = encoder_hidden_states + self.ff(encoder_hidden_states)
        return text, self.run(hidden_states) + text.mean(1, keepdim=True)


class QwenImageTransformer2DModel(Denoiser):
    """ComfyUI's class has the name of diffusers', but its forward takes `x` and `context`."""

    blocks_name = "transformer_blocks"

    def __init__(self) -> None:
        super().__init__(TwoStreamBlock)
        self.text = nn.Linear(4, WIDTH)

    def forward(self, x: Tensor, timestep: Any, context: Any = None) -> Tensor:
        image, text = self.embed(self.patchify(x)), self.text(noise(x.shape[0], 5, 4, seed=9))
        for block in self.transformer_blocks:
            text, image = block(image, text, timestep)
        return self.unpatchify(self.head(image), x)


class CogVideoXTransformer3DModel(AllegroTransformer3DModel):
    """A class whose settings have other names than diffusers'."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(patch_size=2)

    def forward(self, hidden_states: Tensor, timestep: Any = None) -> Tensor:
        return super().forward(hidden_states, timestep)


class WanBlock(GatedBlock):
    attention = "self_attn"

    def forward(self, x: Tensor, e: Any, grid_sizes: Any) -> Tensor:
        return self.run(x)


class WanTransformer3DModel(Denoiser):
    """VideoX-Fun wraps forwards, so their parameters are `*args` and `**kwargs`."""

    def __init__(self) -> None:
        super().__init__(WanBlock)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._forward(*args, **kwargs)

    def _forward(self, x: Tensor, t: Any) -> Tensor:
        hidden = self.embed(self.patchify(x))
        for block in self.blocks:
            hidden = block(hidden, e=t, grid_sizes=None)
        return self.unpatchify(self.head(hidden), x)


class OwnWan(Denoiser):
    """Wan's own model takes a list of [C, F, H, W] and gives `grid_sizes` to its blocks."""

    def __init__(self) -> None:
        super().__init__(WanBlock)
        self.patch_size = None  # type: ignore[assignment]

    def forward(self, x: list[Tensor], t: Any) -> Tensor:
        video = torch.stack(x)
        _, _, frames, height, width = video.shape
        grid = torch.tensor([[frames, height // 2, width // 2]] * len(x))
        hidden = self.embed(self.patchify(video))
        for block in self.blocks:
            hidden = block(hidden, e=t, grid_sizes=grid)
        return self.unpatchify(self.head(hidden), video)


class GridBlock(GatedBlock):
    attention = "self_attn"

    def attend(self, x: Tensor) -> Tensor:
        attended: Tensor = self.self_attn(self.norm1(x).flatten(1, 3))
        return attended.reshape(x.shape)

    def forward(self, x_B_T_H_W_D: Tensor, emb: Any) -> Tensor:
        return self.run(x_B_T_H_W_D)


class Cosmos(Denoiser):
    """The blocks of Cosmos-Predict2 take [B, T, H, W, D]."""

    def __init__(self) -> None:
        super().__init__(GridBlock)
        self.patch_spatial, self.patch_temporal = 2, 1
        self.patch_size = None  # type: ignore[assignment]

    def forward(self, x: Tensor, timesteps: Any) -> Tensor:
        batch, _, frames, height, width = x.shape
        grid = (batch, frames, height // 2, width // 2, WIDTH)
        hidden = self.embed(self.patchify(x)).reshape(grid)
        for block in self.blocks:
            hidden = block(hidden, timesteps)
        return self.unpatchify(self.head(hidden.flatten(1, 3)), x)


class GridFirstBlock(GatedBlock):
    def forward(self, x: Tensor, emb: Any) -> Tensor:  # [T, H, W, B, D]
        tokens = self.run(x.flatten(0, 2).transpose(0, 1))
        return tokens.transpose(0, 1).reshape(x.shape)


class CosmosOne(Denoiser):
    """Cosmos 1 has its blocks in a dictionary, and adds to the stream in place before each."""

    def __init__(self) -> None:
        super().__init__(GridFirstBlock)
        self.blocks = nn.ModuleDict({f"block{i}": b for i, b in enumerate(self.blocks)})  # type: ignore[assignment]

    def forward(self, x: Tensor, timesteps: Any) -> Tensor:
        batch, _, frames, height, width = x.shape
        tokens = self.embed(self.patchify(x)).transpose(0, 1)
        hidden = tokens.reshape(frames, height // 2, width // 2, batch, WIDTH).contiguous()
        for _, block in self.blocks.items():
            hidden += 0.1
            hidden = block(hidden, timesteps)
        hidden = hidden.flatten(0, 2).transpose(0, 1)
        return self.unpatchify(self.head(hidden), x)


class Hinted(Denoiser):
    """A model that adds hints in place between two blocks, as VACE of ComfyUI."""

    def __init__(self, layers: tuple[int, ...] = (0,)) -> None:
        super().__init__(WanBlock)
        self.layers = layers

    def forward(self, x: Tensor, t: Any) -> Tensor:
        hidden = self.embed(self.patchify(x))
        hint = hidden.roll(1, 1)
        for index, block in enumerate(self.blocks):
            hidden = block(hidden, e=t, grid_sizes=None)
            if index in self.layers:
                hidden += 2 * hint
        return self.unpatchify(self.head(hidden), x)


class InPlaceBlock(GatedBlock):
    def forward(self, x: Tensor, t: Any) -> Tensor:
        x += self.gate * self.attend(x)
        x += self.ff(self.norm2(x))
        return x


class InPlace(Denoiser):
    """A model whose blocks write into their input, as those of LTXV in ComfyUI."""

    def __init__(self, block: type[nn.Module] = InPlaceBlock) -> None:
        super().__init__(block)

    def forward(self, x: Tensor, t: Any) -> Tensor:
        hidden = self.embed(self.patchify(x))
        for block in self.blocks:
            hidden = block(hidden, t)
        return self.unpatchify(self.head(hidden), x)


class FrameBlock(GatedBlock):
    def forward(self, hidden: Tensor, t: Any) -> Tensor:
        return self.run(hidden)


class FramesInBatch(Denoiser):
    """A model whose stream is [B*F, S, C], as VchitectXL's."""

    def __init__(self) -> None:
        super().__init__(FrameBlock)

    def forward(self, x: Tensor, t: Any) -> Tensor:
        batch, _, frames, _, _ = x.shape
        hidden = self.embed(self.patchify(x)).reshape(batch * frames, -1, WIDTH)
        for block in self.blocks:
            hidden = block(hidden, t)
        return self.unpatchify(self.head(hidden.reshape(batch, -1, WIDTH)), x)


class ComfyFluxBlock(GatedBlock):
    def forward(self, img: Tensor, txt: Tensor, vec: Any, pe: Any) -> tuple[Tensor, Tensor]:
        image = self.run(img) + txt.mean(1, keepdim=True)
        txt += self.ff(txt)
        return image, txt


class ComfyFluxSingle(GatedBlock):
    def forward(self, x: Tensor, vec: Any, pe: Any) -> Tensor:
        x += self.ff(self.norm1(x))
        return x


class ComfyFlux(Denoiser):
    """ComfyUI's Flux has the blocks of Open-Sora 2.0, but its forward takes `x` and `context`."""

    blocks_name = "double_blocks"

    def __init__(self) -> None:
        super().__init__(ComfyFluxBlock)
        self.single_blocks = nn.ModuleList(ComfyFluxSingle() for _ in range(3))
        self.text = nn.Linear(4, WIDTH)

    def forward(self, x: Tensor, timestep: Any, context: Any = None) -> Tensor:
        img, txt = self.embed(self.patchify(x)), self.text(noise(x.shape[0], 5, 4, seed=9))
        for block in self.double_blocks:
            img, txt = block(img=img, txt=txt, vec=timestep, pe=None)
        joined = torch.cat((txt, img), 1)
        for block in self.single_blocks:
            joined = block(joined, vec=timestep, pe=None)
        return self.unpatchify(self.head(joined[:, txt.shape[1] :]), x)


class SameBlockTwice(Denoiser):
    """A list in which the same module is the first block and the last one."""

    def __init__(self) -> None:
        super().__init__(FrameBlock)
        self.blocks.append(self.blocks[0])

    def forward(self, x: Tensor, t: Any) -> Tensor:
        hidden = self.embed(self.patchify(x))
        for block in self.blocks:
            hidden = block(hidden, t)
        return self.unpatchify(self.head(hidden), x)


VIDEO = (1, 2, 3, 4, 6)


def video(kind: type[nn.Module], seed: int = 0) -> Any:
    """Return the input of a double: a video of 3 frames of 2 x 3 tokens."""
    x = noise(*VIDEO, seed=seed)
    return list(x) if kind is OwnWan else x


def outputs(model: nn.Module, steps: int, *, varied: bool = False) -> list[Tensor]:
    """Return what the model makes of the same video, or of varied ones, in each step."""
    results = []
    with torch.no_grad():
        for step in range(steps):
            x = video(type(model), seed=step if varied else 0)
            results.append(model(x, torch.full((1,), 930.0 - 30 * step)))
    return results
