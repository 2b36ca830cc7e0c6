"""Doubles of the models in their original repositories.

A double has the original's attributes, signatures, layouts and return values, and random weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.addresses import moved
from tests.support.tiny_models.description import noise
from tests.support.tiny_models.original_parts import (
    CHANNELS,
    FRAMES,
    TOKENS,
    WORDS,
    Attention,
    Embedded,
    mlp,
    norm,
)
from tests.support.tiny_models.original_stdit3 import (
    AuthorsBlock,
    OpenSora13Block,
    OpenSoraBlock,
    STDiT3,
    VideoSysBlock,
)


class PlanBlock(nn.Module):
    """A block of Open-Sora-Plan or of Latte's T2V: PixArt's, with or without cross attention."""

    def __init__(self, *, cross: bool = True, tokens_first: bool = False) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(), norm()
        self.attn1 = Attention(tokens_first=tokens_first)
        self.attn2 = Attention(tokens_first=tokens_first) if cross else None
        self.ff = mlp()
        self.scale_shift_table = nn.Parameter(torch.randn(6, CHANNELS) / CHANNELS**0.5)

    def run(self, x: Tensor, text: Any, rows: list[Tensor]) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = rows
        x = x + gate1 * self.attn1(self.norm1(x) * (1 + scale1) + shift1)
        if self.attn2 is not None:
            x = x + self.attn2(x, text)
        return x + gate2 * self.ff(self.norm2(x) * (1 + scale2) + shift2)

    def run_batch(self, x: Tensor, text: Any, timestep: Tensor) -> Tensor:
        """Run on x `[B, N, C]`; the timestep's embedding is `[B, 6 * C]`."""
        modulation = self.scale_shift_table[None] + timestep.reshape(len(x), 6, -1)
        return self.run(x, text, list(modulation.chunk(6, dim=1)))


class LatteT2VBlock(PlanBlock):
    def forward(
        self, hidden_states: Tensor, attention_mask: Any = None, encoder_hidden_states: Any = None,
        encoder_attention_mask: Any = None, timestep: Any = None,
        cross_attention_kwargs: Any = None, class_labels: Any = None, org_timestep: Any = None,
    ) -> Tensor:  # fmt: skip
        return self.run_batch(hidden_states, encoder_hidden_states, timestep)


class Plan12Block(PlanBlock):
    def forward(
        self, hidden_states: Tensor, attention_mask: Any = None, encoder_hidden_states: Any = None,
        encoder_attention_mask: Any = None, timestep: Any = None,
        cross_attention_kwargs: Any = None, class_labels: Any = None, frame: Any = None,
        height: Any = None, width: Any = None, org_timestep: Any = None,
    ) -> Tensor:  # fmt: skip
        return self.run_batch(hidden_states, encoder_hidden_states, timestep)


class Plan13Block(PlanBlock):
    def forward(
        self, hidden_states: Tensor, attention_mask: Any = None, encoder_hidden_states: Any = None,
        encoder_attention_mask: Any = None, timestep: Any = None, frame: Any = None,
        height: Any = None, width: Any = None,
    ) -> Tensor:  # fmt: skip
        modulation = self.scale_shift_table[:, None] + timestep
        return self.run(hidden_states, encoder_hidden_states, list(modulation.chunk(6, dim=0)))


class LatteT2V(Embedded):
    """The model of Open-Sora-Plan 1.1, and of the text-to-video part of Latte's repository."""

    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        self.transformer_blocks = nn.ModuleList(LatteT2VBlock() for _ in range(depth))
        self.temporal_transformer_blocks = nn.ModuleList(
            LatteT2VBlock(cross=False) for _ in range(depth)
        )
        self.temp_pos_embed = nn.Parameter(noise(1, FRAMES, CHANNELS, seed=9))

    def forward(
        self, hidden_states: Tensor, timestep: Tensor, encoder_hidden_states: Tensor,
        use_image_num: int = 0,
    ) -> tuple[Tensor]:  # fmt: skip
        batch, _, frames = hidden_states.shape[:3]
        x = self.patches(hidden_states).view(batch * frames, TOKENS, CHANNELS)
        time = self.times(timestep)
        text = encoder_hidden_states.repeat_interleave(frames, dim=0)
        pairs = zip(self.transformer_blocks, self.temporal_transformer_blocks, strict=True)
        for i, (spatial, temporal) in enumerate(pairs):
            t = time.repeat_interleave(frames, dim=0)
            x = spatial(x, None, text, None, t, None, None, org_timestep=timestep)
            x = x.view(batch, frames, TOKENS, CHANNELS).transpose(1, 2).flatten(0, 1)
            if i == 0:
                x = x + self.temp_pos_embed[:, :frames]
            t = time.repeat_interleave(TOKENS, dim=0)
            x = temporal(x, None, None, None, t, None, None, org_timestep=timestep)
            x = x.view(batch, TOKENS, frames, CHANNELS).transpose(1, 2).flatten(0, 1)
        return (self.video(x.reshape(batch, frames * TOKENS, CHANNELS)),)


class OpenSoraT2V(Embedded):
    """The model of Open-Sora-Plan 1.2, and of 1.3, where the tokens are the first dimension."""

    def __init__(self, *, tokens_first: bool, depth: int = 3) -> None:
        super().__init__()
        block = Plan13Block if tokens_first else Plan12Block
        self.transformer_blocks = nn.ModuleList(
            block(tokens_first=tokens_first) for _ in range(depth)
        )
        self.tokens_first = tokens_first

    def forward(
        self, hidden_states: Tensor, timestep: Tensor, encoder_hidden_states: Tensor,
        use_image_num: int = 0,
    ) -> tuple[Tensor]:  # fmt: skip
        x, text, t = self.patches(hidden_states), encoder_hidden_states, self.times(timestep)
        if self.tokens_first:
            x, text = x.transpose(0, 1).contiguous(), text.transpose(0, 1)
            t = t.view(len(hidden_states), 6, CHANNELS).transpose(0, 1).contiguous()
        for block in self.transformer_blocks:
            if self.tokens_first:
                assert block.attn1.processor.sparse_n == 1
            x = block(x, attention_mask=None, encoder_hidden_states=text, timestep=t, frame=3)
        return (self.video(x.transpose(0, 1) if self.tokens_first else x),)


class LatteBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2, self.attn, self.mlp = norm(), norm(), Attention(), mlp()
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(6 * CHANNELS, 6 * CHANNELS))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        rows = self.adaLN_modulation(c).chunk(6, dim=1)
        shift1, scale1, gate1, shift2, scale2, gate2 = (row.unsqueeze(1) for row in rows)
        x = x + gate1 * self.attn(self.norm1(x) * (1 + scale1) + shift1)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


class Latte(Embedded):
    """Latte for class labels: spatial and temporal blocks alternate in one list.

    x is `[B, F, C, H, W]`.
    """

    def __init__(self, depth: int = 6) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(LatteBlock() for _ in range(depth))
        self.temp_embed = nn.Parameter(noise(1, FRAMES, CHANNELS, seed=9))

    def forward(self, x: Tensor, t: Tensor, use_image_num: int = 0) -> Tensor:
        batch, frames = x.shape[:2]
        tokens = self.patches(x.transpose(1, 2)).view(batch * frames, TOKENS, CHANNELS)
        time = self.times(t)
        for i in range(0, len(self.blocks), 2):
            spatial, temporal = self.blocks[i : i + 2]
            tokens = spatial(tokens, time.repeat_interleave(frames, dim=0))
            tokens = tokens.view(batch, frames, TOKENS, CHANNELS).transpose(1, 2).flatten(0, 1)
            if i == 0:
                tokens = tokens + self.temp_embed[:, :frames]
            tokens = temporal(tokens, time.repeat_interleave(TOKENS, dim=0))
            tokens = tokens.view(batch, TOKENS, frames, CHANNELS).transpose(1, 2).flatten(0, 1)
        return self.video(tokens.reshape(batch, frames * TOKENS, CHANNELS)).transpose(1, 2)

    def forward_with_cfg(self, x: Tensor, t: Tensor) -> Tensor:
        """Sample as the repository does: guidance in one batch, through the model's forward."""
        return self.forward(x, t)


class DoubleBlock(nn.Module):
    """A block of Open-Sora 2.0 with two streams."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.img_mlp, self.txt_mlp = Attention(), mlp(), mlp()
        self.modulation = nn.Linear(6 * CHANNELS, 2 * CHANNELS)

    def forward(self, img: Tensor, txt: Tensor, vec: Tensor, pe: Tensor) -> tuple[Tensor, Tensor]:
        gate1, gate2 = self.modulation(vec)[:, None].chunk(2, dim=-1)
        both = torch.cat([txt, img], dim=1)
        both = both + gate1 * self.attention(both + pe)
        txt, img = both[:, : txt.shape[1]], both[:, txt.shape[1] :]
        return img + gate2 * self.img_mlp(img), txt + gate2 * self.txt_mlp(txt)


class SingleBlock(nn.Module):
    """A block of Open-Sora 2.0 with one stream of joined tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.mlp = Attention(), mlp()
        self.modulation = nn.Linear(6 * CHANNELS, CHANNELS)

    def forward(self, x: Tensor, vec: Tensor, pe: Tensor) -> Tensor:
        gate = self.modulation(vec)[:, None]
        return x + gate * (self.attention(x + pe) + self.mlp(x))


class DiT(Embedded):
    """A model of no repository: Latte's blocks in one list, all over one image `[B, C, H, W]`."""

    def __init__(self, depth: int = 4) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(LatteBlock() for _ in range(depth))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        tokens, time = self.patches(x.unsqueeze(2)), self.times(t)
        for block in self.blocks:
            tokens = block(tokens, time)
        return self.video(tokens).squeeze(2)


class MMDiTModel(Embedded):
    """Open-Sora 2.0: packed tokens; its forward is an attribute of the instance.

    Args:
        depth: blocks with two streams.
        depth_single_blocks: blocks with one stream.
        in_slices: iterate over slices of the lists, as with selective checkpointing.
    """

    def __init__(
        self, depth: int = 2, depth_single_blocks: int = 2, *, in_slices: bool = False
    ) -> None:
        super().__init__()
        self.double_blocks = nn.ModuleList(DoubleBlock() for _ in range(depth))
        self.single_blocks = nn.ModuleList(SingleBlock() for _ in range(depth_single_blocks))
        self.positions = nn.Parameter(noise(1, WORDS + FRAMES * TOKENS, CHANNELS, seed=9))
        forward = self.forward_selective_ckpt if in_slices else self.forward_ckpt
        self.forward = forward  # type: ignore[method-assign]

    def forward_ckpt(self, img: Tensor, txt: Tensor, timesteps: Tensor) -> Tensor:
        img, vec, pe = self.embed(img), self.times(timesteps), self.positions
        for block in self.double_blocks:
            img, txt = block(img, txt, vec, pe)
        img = torch.cat((txt, img), 1)
        for block in self.single_blocks:
            img = block(img, vec, pe)
        return self.head(img[:, txt.shape[1] :])

    def forward_selective_ckpt(self, img: Tensor, txt: Tensor, timesteps: Tensor) -> Tensor:
        img, vec, pe = self.embed(img), self.times(timesteps), self.positions
        for part in (slice(0, 1), slice(1, None)):
            for block in self.double_blocks[part]:
                img, txt = block(img, txt, vec, pe)
        img = torch.cat((txt, img), 1)
        for part in (slice(0, 1), slice(1, None)):
            for block in self.single_blocks[part]:
                img = block(img, vec, pe)
        return self.head(img[:, txt.shape[1] :])


@dataclass(frozen=True)
class Original:
    """A double, the arguments of its forward, and its block lists in the order of their calls.

    Args:
        make: makes the model.
        arguments: makes the arguments of its forward from latents and timestep.
        latents: shape of the latents of two videos, a batch with guidance.
        streams: hidden streams of the blocks of each list.
    """

    make: Callable[[], nn.Module]
    arguments: Callable[[Tensor, Tensor], dict[str, Any]]
    latents: tuple[int, ...]
    streams: dict[str, tuple[str, ...]]

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        return moved(self.make().eval())

    def call(self, model: nn.Module, latents: Tensor, step: int) -> Tensor:
        timestep = torch.full((latents.shape[0],), 930 - 30 * step)
        output = model(**self.arguments(latents, timestep))
        return output[0] if isinstance(output, tuple) else output

    def denoise(self, model: nn.Module, steps: int, seed: int = 0) -> list[Tensor]:
        """Return the latents after every step of `x <- x - 0.05 * model(x)`."""
        latents, trajectory = noise(*self.latents, seed=seed), []
        with torch.no_grad():
            for step in range(1, steps + 1):
                latents = latents - 0.05 * self.call(model, latents, step)
                trajectory.append(latents)
        return trajectory


TEXT = noise(2, WORDS, CHANNELS, seed=100)
VIDEO = (2, 4, FRAMES, 8, 8)
X = ("x",)
STDIT_LISTS = {"spatial_blocks": X, "temporal_blocks": X}
HIDDEN = ("hidden_states",)


def stdit(latents: Tensor, timestep: Tensor) -> dict[str, Any]:
    return {"x": latents, "timestep": timestep, "y": TEXT}


def stdit_masked(latents: Tensor, timestep: Tensor) -> dict[str, Any]:
    first_given = torch.tensor([[False, True, True]] * 2)
    return {**stdit(latents, timestep), "x_mask": first_given}


def plan(latents: Tensor, timestep: Tensor) -> dict[str, Any]:
    return {"hidden_states": latents, "timestep": timestep, "encoder_hidden_states": TEXT}


ORIGINALS: dict[str, Original] = {
    "STDiT3, AdaCache": Original(lambda: STDiT3(AuthorsBlock), stdit, VIDEO, STDIT_LISTS),
    "STDiT3, first frame given": Original(
        lambda: STDiT3(AuthorsBlock), stdit_masked, VIDEO, STDIT_LISTS
    ),
    "STDiT3, Open-Sora": Original(lambda: STDiT3(OpenSoraBlock), stdit_masked, VIDEO, STDIT_LISTS),
    "STDiT3, Open-Sora 1.3": Original(lambda: STDiT3(OpenSora13Block), stdit, VIDEO, STDIT_LISTS),
    "STDiT3, VideoSys": Original(lambda: STDiT3(VideoSysBlock), stdit, VIDEO, STDIT_LISTS),
    "Open-Sora 2": Original(
        MMDiTModel,
        lambda latents, timestep: {"img": latents, "txt": TEXT, "timesteps": timestep},
        (2, FRAMES * TOKENS, 16),
        {"double_blocks": ("img", "txt"), "single_blocks": X},
    ),
    "Open-Sora 2, in slices": Original(
        lambda: MMDiTModel(in_slices=True),
        lambda latents, timestep: {"img": latents, "txt": TEXT, "timesteps": timestep},
        (2, FRAMES * TOKENS, 16),
        {"double_blocks": ("img", "txt"), "single_blocks": X},
    ),
    "Open-Sora-Plan 1.1": Original(
        LatteT2V, plan, VIDEO, {"transformer_blocks": HIDDEN, "temporal_transformer_blocks": HIDDEN}
    ),
    "Open-Sora-Plan 1.2": Original(
        lambda: OpenSoraT2V(tokens_first=False), plan, VIDEO, {"transformer_blocks": HIDDEN}
    ),
    "Open-Sora-Plan 1.3": Original(
        lambda: OpenSoraT2V(tokens_first=True), plan, VIDEO, {"transformer_blocks": HIDDEN}
    ),
    "Latte": Original(
        Latte,
        lambda latents, timestep: {"x": latents, "t": timestep},
        (2, FRAMES, 4, 8, 8),
        {"blocks": X},
    ),
}
