"""Doubles of Allegro, FastVideo, LTX-Video and CogVideoX of other repositories than diffusers.

Some of their classes have the name of a class of diffusers.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.tiny_models.other_repositories.double import Double
from tests.support.tiny_models.other_repositories.parts import (
    CHANNELS,
    Attention,
    Patches,
    Times,
    lively,
    mlp,
    norm,
)


class PixArtBlock(nn.Module):
    """A block with a table of shifts, scales and gates; `timestep` is `[B, 6 * C]`."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(), norm()
        self.attn1, self.attn2, self.ff = Attention(), Attention(), mlp()
        self.scale_shift_table = nn.Parameter(torch.zeros(6, CHANNELS))

    def run(self, x: Tensor, text: Tensor, timestep: Tensor) -> Tensor:
        table = self.scale_shift_table[None] + timestep.reshape(len(x), 6, CHANNELS)
        shift1, scale1, gate1, shift2, scale2, gate2 = table.chunk(6, dim=1)
        x = gate1 * self.attn1(self.norm1(x) * (1 + scale1) + shift1) + x
        x = self.attn2(x, text) + x
        return gate2 * self.ff(self.norm2(x) * (1 + scale2) + shift2) + x


class AllegroBlock(PixArtBlock):
    def forward(
        self, hidden_states: Tensor, attention_mask: Any = None, encoder_hidden_states: Any = None,
        encoder_attention_mask: Any = None, timestep: Any = None,
        cross_attention_kwargs: Any = None, class_labels: Any = None, frame: Any = None,
        height: Any = None, width: Any = None,
    ) -> Tensor:  # fmt: skip
        return self.run(hidden_states, encoder_hidden_states, timestep)


class LtxBlock(PixArtBlock):
    def forward(
        self, hidden_states: Tensor, freqs_cis: Any = None, attention_mask: Any = None,
        encoder_hidden_states: Any = None, encoder_attention_mask: Any = None,
        timestep: Any = None, cross_attention_kwargs: Any = None, class_labels: Any = None,
        skip_layer_mask: Any = None, skip_layer_strategy: Any = None,
    ) -> Tensor:  # fmt: skip
        return self.run(hidden_states, encoder_hidden_states, timestep)


class Modulated(nn.Module):
    """The parts around the blocks."""

    def __init__(self, block: type[nn.Module], name: str = "transformer_blocks") -> None:
        super().__init__()
        self.patches, self.times = Patches(), Times()
        self.projection = nn.Linear(CHANNELS, 6 * CHANNELS)
        self.config = SimpleNamespace(patch_size=2, patch_size_t=None)
        setattr(self, name, nn.ModuleList(block() for _ in range(4)))

    def modulation(self, timestep: Tensor) -> Tensor:
        projected: Tensor = self.projection(self.times(timestep))
        return projected


class AllegroTransformer3DModel(Modulated):
    """A class with the name of one of diffusers; its blocks take the sizes of the grid."""

    def __init__(self) -> None:
        super().__init__(AllegroBlock)
        self.config.patch_size_t = 1

    def forward(
        self, hidden_states: Tensor, timestep: Any = None, encoder_hidden_states: Any = None,
        added_cond_kwargs: Any = None, class_labels: Any = None, cross_attention_kwargs: Any = None,
        attention_mask: Any = None, encoder_attention_mask: Any = None, return_dict: bool = True,
    ) -> tuple[Tensor]:  # fmt: skip
        x, text = self.patches.tokens(hidden_states), encoder_hidden_states.squeeze(1)
        t = self.modulation(timestep)
        for block in self.transformer_blocks:
            x = block(x, None, text, None, t, None, None, frame=3, height=2, width=2)
        return (self.patches.video(x, (3, 2, 2)),)


class Transformer3DModel(Modulated):
    """LTX-Video's class; the tokens `[B, N, 16]` are packed before the call."""

    def __init__(self) -> None:
        super().__init__(LtxBlock)
        self.patchify_proj = nn.Linear(16, CHANNELS)

    def forward(
        self, hidden_states: Tensor, indices_grid: Any, encoder_hidden_states: Any = None,
        timestep: Any = None, attention_mask: Any = None, return_dict: bool = True,
    ) -> tuple[Tensor]:  # fmt: skip
        x, t = self.patchify_proj(hidden_states), self.modulation(timestep.flatten())
        for block in self.transformer_blocks:
            x = block(
                x, freqs_cis=None, attention_mask=attention_mask,
                encoder_hidden_states=encoder_hidden_states, encoder_attention_mask=None,
                timestep=t.view(len(x), 1, -1), skip_layer_mask=None, skip_layer_strategy=None,
            )  # fmt: skip
        return (self.patches.outward(x),)


class Core(nn.Module):
    """Attention without projections, which returns a tuple."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, original_seq_len: int, freqs_cis: Any = None
    ) -> tuple[Tensor, None]:
        return (q @ k.transpose(-1, -2) / CHANNELS**0.5).softmax(dim=-1) @ v, None


class FastBlock(nn.Module):
    """A block whose `attn1` is only the core of the attention; the projections are beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(), norm()
        self.attn1, self.attn2, self.ffn = Core(), Attention(), mlp()
        self.scale_shift_table = nn.Parameter(torch.zeros(1, 6, CHANNELS))
        self.to_qkv, self.to_out = nn.Linear(CHANNELS, 3 * CHANNELS), nn.Linear(CHANNELS, CHANNELS)

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor,
        freqs_cis: Any, original_seq_len: int,
    ) -> Tensor:  # fmt: skip
        rows = (self.scale_shift_table + temb).chunk(6, dim=1)
        shift1, scale1, gate1, shift2, scale2, gate2 = rows
        x = hidden_states
        parts = self.to_qkv(self.norm1(x) * (1 + scale1) + shift1).chunk(3, dim=-1)
        attended, _ = self.attn1(*parts, original_seq_len, freqs_cis=freqs_cis)
        x = x + gate1 * self.to_out(attended)
        x = x + self.attn2(x, encoder_hidden_states)
        return x + gate2 * self.ffn(self.norm2(x) * (1 + scale2) + shift2)


class WanTransformer3DModel(Modulated):
    """FastVideo's class, with the name of one of diffusers; the prompt comes in a list."""

    def __init__(self) -> None:
        super().__init__(FastBlock, "blocks")
        self.config.patch_size = (1, 2, 2)

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor | list[Tensor],
        timestep: Tensor, encoder_hidden_states_image: Any = None, guidance: Any = None,
        r_timestep: Any = None, **kwargs: Any,
    ) -> Tensor:  # fmt: skip
        x = self.patches.tokens(hidden_states)
        t = self.modulation(timestep).unflatten(1, (6, CHANNELS))
        for block in self.blocks:
            x = block(x, encoder_hidden_states[0], t, None, x.shape[1])
        return self.patches.video(x, (3, 2, 2))


class GatedNorm(nn.Module):
    """A norm of video and text that also returns their gates."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = norm(), nn.Linear(CHANNELS, 4 * CHANNELS)

    def forward(self, video: Tensor, text: Tensor, temb: Tensor) -> tuple[Tensor, ...]:
        scale, gate, text_scale, text_gate = self.linear(temb)[:, None].chunk(4, dim=-1)
        normed = self.norm(video) * (1 + scale), self.norm(text) * (1 + text_scale)
        return *normed, gate, text_gate


class JointAttention(Attention):
    """Attention over text and video together; it returns the video, then the text."""

    def forward(  # type: ignore[override]
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, image_rotary_emb: Any = None
    ) -> tuple[Tensor, Tensor]:
        both = super().forward(torch.cat([encoder_hidden_states, hidden_states], dim=1))
        words = encoder_hidden_states.shape[1]
        return both[:, words:], both[:, :words]


class CogBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = GatedNorm(), GatedNorm()
        self.attn1, self.ff = JointAttention(), mlp()

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor,
        image_rotary_emb: Any = None, num_frames: Any = None, height: Any = None, width: Any = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        x, text = hidden_states, encoder_hidden_states
        video, words, gate, text_gate = self.norm1(x, text, temb)
        attended = self.attn1(hidden_states=video, encoder_hidden_states=words)
        x, text = x + gate * attended[0], text + text_gate * attended[1]
        video, words, gate, text_gate = self.norm2(x, text, temb)
        both, length = self.ff(torch.cat([words, video], dim=1)), text.shape[1]
        return x + gate * both[:, length:], text + text_gate * both[:, :length]


class CogVideoXTransformer3DModel(Modulated):
    """A class with the name of one of diffusers; its forward takes more conditions."""

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, timestep: Tensor,
        timestep_cond: Any = None, inpaint_latents: Any = None, control_latents: Any = None,
        image_rotary_emb: Any = None, return_dict: bool = True,
    ) -> tuple[Tensor]:  # fmt: skip
        x, text = self.patches.tokens(hidden_states.transpose(1, 2)), encoder_hidden_states
        temb = self.times(timestep)
        for block in self.transformer_blocks:
            x, text = block(
                hidden_states=x, encoder_hidden_states=text, temb=temb, image_rotary_emb=None
            )
        return (self.patches.video(x, (3, 2, 2)).transpose(1, 2),)


def allegro(model: nn.Module, x: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
    output: Tensor = model(x, timestep=t.expand(1), encoder_hidden_states=prompt[:, None])[0]
    return output


def ltx_video(model: nn.Module, x: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
    call = {"encoder_hidden_states": prompt, "timestep": t.expand(1)[:, None]}
    output: Tensor = model(x, None, return_dict=False, **call)[0]
    return output


def fast_video(model: nn.Module, x: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
    output: Tensor = model(x, [prompt], t.repeat(1), guidance=None)
    return output


def cogvideox(model: nn.Module, x: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
    call = {"hidden_states": x.transpose(1, 2), "encoder_hidden_states": prompt}
    output: Tensor = model(timestep=t.expand(1), return_dict=False, **call)[0]
    return output.transpose(1, 2)


HIDDEN: dict[str, int | None] = {"hidden_states": None}
SAME_NAMES = {
    "allegro": Double(
        "Allegro",
        lambda: lively(AllegroTransformer3DModel()),
        allegro,
        {"transformer_blocks": HIDDEN},
        attention=True,
    ),
    "ltx-video": Double(
        "LTX-Video",
        lambda: lively(Transformer3DModel()),
        ltx_video,
        {"transformer_blocks": HIDDEN},
        latents=(1, 12, 16),
        attention=True,
        motion=False,
    ),
    "fastvideo wan": Double(
        "FastVideo, Wan", lambda: lively(WanTransformer3DModel()), fast_video, {"blocks": HIDDEN}
    ),
    "cogvideox": Double(
        "VideoX-Fun, CogVideoX",
        lambda: lively(CogVideoXTransformer3DModel(CogBlock)),
        cogvideox,
        {"transformer_blocks": {"hidden_states": 0, "encoder_hidden_states": 1}},
        attention=True,
    ),
}
