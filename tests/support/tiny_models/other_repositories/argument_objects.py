"""Doubles of LTX-2 and MAGI-1: streams inside of objects, keys and values kept in an object."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.tiny_models.description import noise
from tests.support.tiny_models.other_repositories.double import Double
from tests.support.tiny_models.other_repositories.parts import (
    CHANNELS,
    Attention,
    Patches,
    Times,
    TokensFirst,
    lively,
    mlp,
    norm,
)


@dataclass(frozen=True)
class BlockInput:
    """Everything that a block needs of one modality; `x` is its stream."""

    x: Tensor
    context: Tensor
    timesteps: Tensor
    enabled: bool = True


class AudioVideoBlock(nn.Module):
    """A block that takes and returns objects; video and audio attend to each other."""

    def __init__(self) -> None:
        super().__init__()
        self.attn1, self.attn2, self.audio_attn1 = Attention(), Attention(), Attention()
        self.video_to_audio, self.audio_to_video = Attention(), Attention()
        self.ff, self.norm1, self.modulation = mlp(), norm(), nn.Linear(CHANNELS, CHANNELS)

    def forward(
        self, video: BlockInput | None, audio: BlockInput | None
    ) -> tuple[BlockInput | None, BlockInput | None]:
        assert video is not None
        gate = self.modulation(video.timesteps)[:, None]
        vx = video.x + gate * self.attn1(self.norm1(video.x))
        vx = vx + self.attn2(vx, video.context)
        if audio is None:
            return replace(video, x=vx + self.ff(vx)), None
        ax = audio.x + gate * self.audio_attn1(self.norm1(audio.x))
        vx, ax = vx + self.audio_to_video(vx, ax), ax + self.video_to_audio(ax, vx)
        return replace(video, x=vx + self.ff(vx)), replace(audio, x=ax)


class AudioVideoModel(nn.Module):
    """A model that copies both objects before each block."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.times = Patches(), Times()
        self.transformer_blocks = nn.ModuleList(AudioVideoBlock() for _ in range(4))

    def forward(
        self, video: BlockInput, audio: BlockInput | None, perturbations: Any
    ) -> tuple[Tensor, Tensor | None]:
        time = self.times(video.timesteps)
        v: BlockInput = replace(video, x=self.patches.tokens(video.x), timesteps=time)
        a = audio
        for block in self.transformer_blocks:
            v, a = replace(v, enabled=True), None if a is None else replace(a, enabled=True)
            v, a = block(video=v, audio=a)
        return self.patches.video(v.x, (3, 2, 2)), None if a is None else a.x


AUDIO = noise(1, 3, CHANNELS, seed=61)


def audio_video(model: nn.Module, x: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
    """Return the video; the audio stays the same input in every step."""
    times = t[None]
    audio = BlockInput(AUDIO, prompt, times)
    output: Tensor = model(BlockInput(x, prompt, times), audio, None)[0]
    return output


def video_only(model: nn.Module, x: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
    output: Tensor = model(BlockInput(x, prompt, t[None]), None, None)[0]
    return output


@dataclass
class Memory:
    """Keys and values of earlier chunks, by layer; blocks store theirs while `update` is set."""

    chunks: dict[int, Tensor]
    update: bool = False


class ChunkLayer(nn.Module):
    """A layer over `[N, B, C]` that attends to a stored chunk, and stores its own."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.self_attention, self.mlp, self.norm1 = TokensFirst(), mlp(), norm()
        self.gate = nn.Linear(CHANNELS, CHANNELS)

    def forward(
        self, hidden_states: Tensor, condition: Tensor, condition_map: Any, y_xattn_flat: Tensor,
        rotary_pos_emb: Any, inference_params: Memory | None, meta_args: Any,
    ) -> Tensor:  # fmt: skip
        x, gate = hidden_states, self.gate(condition)[None]
        context = torch.cat([self.norm1(x), y_xattn_flat])
        if inference_params is not None:
            stored = inference_params.chunks.get(self.number)
            if inference_params.update:
                inference_params.chunks[self.number] = self.norm1(x)
            context = context if stored is None else torch.cat([stored, context])
        x = x + gate * self.self_attention(self.norm1(x), context)
        return x + gate * self.mlp(self.norm1(x))


class LayerStack(nn.Module):
    """The module with the list of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ChunkLayer(i) for i in range(4))
        self.final_layernorm = norm()

    def forward(
        self, hidden_states: Tensor, condition: Tensor, condition_map: Any, y_xattn_flat: Tensor,
        rotary_pos_emb: Any, inference_params: Memory | None, meta_args: Any,
    ) -> Tensor:  # fmt: skip
        for layer in self.layers:
            hidden_states = layer(
                hidden_states=hidden_states, condition=condition, condition_map=condition_map,
                y_xattn_flat=y_xattn_flat, rotary_pos_emb=rotary_pos_emb,
                inference_params=inference_params, meta_args=meta_args,
            )  # fmt: skip
        normed: Tensor = self.final_layernorm(hidden_states)
        return normed


class ChunkModel(nn.Module):
    """A model with its layers in a submodule, and three calls of its forward in each step."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.t_embedder = Patches(), Times()
        self.videodit_blocks = LayerStack()

    @torch.no_grad()
    def forward(
        self, x: Tensor, t: Tensor, y: Tensor, inference_params: Memory | None = None
    ) -> Tensor:
        tokens = self.patches.tokens(x).transpose(0, 1).clone()
        hidden = self.videodit_blocks.forward(
            hidden_states=tokens, condition=self.t_embedder(t), condition_map=None,
            y_xattn_flat=y.transpose(0, 1), rotary_pos_emb=None,
            inference_params=inference_params, meta_args=None,
        )  # fmt: skip
        return self.patches.video(hidden.transpose(0, 1), (3, 2, 2))


def with_memory(model: nn.Module, x: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
    """Predict with the memory that the last call of the video stored, and store anew."""
    if t.item() == 1 or "memory" not in vars(model):
        vars(model)["memory"] = Memory({}, update=True)
    output: Tensor = model.forward(x, t.expand(1), prompt, inference_params=vars(model)["memory"])
    return output


def stack_of(model: nn.Module) -> nn.Module:
    """Return the submodule with the layers, which is what a user patches."""
    stack: nn.Module = model.get_submodule("videodit_blocks")
    return stack


OBJECT = "what leaves a block .* is not what enters the next one"
OBJECTS = {
    "ltx-2": Double(
        "LTX-2, video and audio",
        lambda: lively(AudioVideoModel()),
        audio_video,
        {"transformer_blocks": {"video": 0, "audio": 1}},
        inference_mode=True,
        reason=OBJECT,
    ),
    "ltx-2 video": Double(
        "LTX-2, video",
        lambda: lively(AudioVideoModel()),
        video_only,
        {"transformer_blocks": {"video": 0}},
        inference_mode=True,
        reason=OBJECT,
    ),
    "magi": Double(
        "MAGI-1",
        lambda: lively(ChunkModel()),
        with_memory,
        {"videodit_blocks.layers": {"hidden_states": None}},
        target=stack_of,
        inference_mode=True,
        reason="write|store",
    ),
}
