"""Doubles of Wan's models: videos and prompts in lists, hints as an argument, two experts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.tiny_models.description import noise
from tests.support.tiny_models.other_repositories.double import (
    Double,
    Predict,
    Streams,
    whole,
)
from tests.support.tiny_models.other_repositories.parts import (
    CHANNELS,
    TOKENS,
    WORDS,
    Attention,
    Patches,
    Times,
    lively,
    mlp,
    norm,
)


class WanBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = norm(), norm(), norm()
        self.self_attn, self.cross_attn, self.ffn = Attention(), Attention(), mlp()
        self.modulation = nn.Parameter(torch.zeros(1, 6, CHANNELS))

    def forward(
        self, x: Tensor, e: Tensor, seq_lens: Any, grid_sizes: Any, freqs: Any, context: Tensor,
        context_lens: Any,
    ) -> Tensor:  # fmt: skip
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.modulation + e).chunk(6, dim=1)
        moved = self.norm1(x) * (1 + scale1) + shift1
        x = x + gate1 * self.self_attn(moved, None, seq_lens, grid_sizes, freqs)
        x = x + self.cross_attn(self.norm3(x), context, context_lens)
        return x + gate2 * self.ffn(self.norm2(x) * (1 + scale2) + shift2)


class WanModel(nn.Module):
    """A model that takes lists of videos and prompts, and returns a list of videos."""

    def __init__(self, block: Callable[[], nn.Module] = WanBlock, depth: int = 4) -> None:
        super().__init__()
        self.patches, self.time_embedding = Patches(), Times()
        self.time_projection = nn.Linear(CHANNELS, 6 * CHANNELS)
        self.text_embedding = nn.Linear(CHANNELS, CHANNELS)
        self.blocks = nn.ModuleList(block() for _ in range(depth))
        self.freqs = noise(TOKENS, 4, seed=8)

    def embed(
        self, videos: list[Tensor], t: Tensor, context: list[Tensor], seq_len: int
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Return the tokens, the sizes of their grids, and the blocks' other arguments."""
        grids = [self.patches.grid(video[None]) for video in videos]
        sizes = torch.stack([torch.tensor(grid.shape[2:]) for grid in grids])
        tokens = [grid.flatten(2).transpose(1, 2) for grid in grids]
        padded = [nn.functional.pad(x, (0, 0, 0, seq_len - x.shape[1])) for x in tokens]
        texts = [nn.functional.pad(text, (0, 0, 0, WORDS - len(text))) for text in context]
        arguments = {
            "e": self.time_projection(self.time_embedding(t)).unflatten(1, (6, CHANNELS)),
            "seq_lens": torch.tensor([x.shape[1] for x in tokens]),
            "grid_sizes": sizes,
            "freqs": self.freqs,
            "context": self.text_embedding(torch.stack(texts)),
            "context_lens": None,
        }
        return torch.cat(padded), sizes, arguments

    def videos(self, x: Tensor, sizes: Tensor) -> list[Tensor]:
        rows = [self.patches.video(x[i : i + 1], tuple(s)) for i, s in enumerate(sizes.tolist())]
        return [row[0] for row in rows]

    def forward(
        self, x: list[Tensor], t: Tensor, context: list[Tensor], seq_len: int,
        clip_fea: Tensor | None = None, y: list[Tensor] | None = None,
    ) -> list[Tensor]:  # fmt: skip
        if y is not None:
            x = [video + other for video, other in zip(x, y, strict=True)]
        tokens, sizes, arguments = self.embed(x, t, context, seq_len)
        if clip_fea is not None:
            arguments["context"] = torch.cat([clip_fea, arguments["context"]], dim=1)
        for block in self.blocks:
            tokens = block(tokens, **arguments)
        return self.videos(tokens, sizes)


class HintBlock(WanBlock):
    """A block that produces a hint from the control video's tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.after_proj = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, c: Tensor, x: Tensor, **others: Any) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        c = super().forward(c + 0.1 * x, **others)
        return c, self.after_proj(c)


class HintedBlock(WanBlock):
    """A block that adds its hint at its end."""

    number: int | None = None

    def forward(  # type: ignore[override]
        self, x: Tensor, hints: list[Tensor], context_scale: float = 1.0, **others: Any
    ) -> Tensor:
        x = super().forward(x, **others)
        return x if self.number is None else x + hints[self.number] * context_scale


class VaceModel(WanModel):
    """A model whose blocks add hints of a control video, which they get in a list."""

    def __init__(self) -> None:
        super().__init__(HintedBlock)
        self.vace_blocks = nn.ModuleList(HintBlock() for _ in range(2))
        for number in range(2):
            self.blocks[2 * number].number = number  # type: ignore[assignment]

    def forward(  # type: ignore[override]
        self, x: list[Tensor], t: Tensor, vace_context: list[Tensor], context: list[Tensor],
        seq_len: int, vace_context_scale: float = 1.0, clip_fea: Any = None, y: Any = None,
    ) -> list[Tensor]:  # fmt: skip
        tokens, sizes, arguments = self.embed(x, t, context, seq_len)
        control, hints = torch.cat([self.patches.tokens(v[None]) for v in vace_context]), []
        for block in self.vace_blocks:
            control, hint = block(control, x=tokens, **arguments)
            hints.append(hint)
        arguments |= {"hints": hints, "context_scale": vace_context_scale}
        for block in self.blocks:
            tokens = block(tokens, **arguments)
        return self.videos(tokens, sizes)


CONTROL = [noise(4, 3, 4, 4, seed=31)]
IMAGE = noise(1, 2, CHANNELS, seed=32)


def text_to_video(model: nn.Module, x: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
    output: Tensor = model([x[0]], t=torch.stack([t]), context=[prompt[0]], seq_len=TOKENS)[0]
    return output[None]


def time_of_each_token(model: nn.Module, x: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
    """Call the model with the time in a tensor of its own, as loops of other solvers do."""
    times = torch.full((1,), float(t))
    output: Tensor = model([x[0]], times, [prompt[0]], TOKENS)[0]
    return output[None]


def image_to_video(model: nn.Module, x: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
    call = {"context": [prompt[0]], "seq_len": TOKENS, "clip_fea": IMAGE, "y": CONTROL}
    output: Tensor = model([x[0]], t=torch.stack([t]), **call)[0]
    return output[None]


def with_control(model: nn.Module, x: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
    call = {"vace_context": CONTROL, "context": [prompt[0]], "seq_len": TOKENS}
    output: Tensor = model([x[0]], t=torch.stack([t]), vace_context_scale=0.8, **call)[0]
    return output[None]


class Experts(nn.Module):
    """Two models for two parts of the time, kept in one module only for the tests."""

    boundary = 0.6

    def __init__(self) -> None:
        super().__init__()
        self.high_noise_model, self.low_noise_model = WanModel(), WanModel()

    def at(self, t: Tensor) -> nn.Module:
        return self.high_noise_model if t.item() >= self.boundary else self.low_noise_model


class OwnPipeline:
    """An object that is neither a module nor a pipeline of diffusers."""

    def __init__(self, experts: nn.Module) -> None:
        self.high_noise_model = experts.get_submodule("high_noise_model")
        self.low_noise_model = experts.get_submodule("low_noise_model")


def both_experts(experts: nn.Module) -> list[nn.Module]:
    return [experts.get_submodule(f"{name}_noise_model") for name in ("high", "low")]


def by_expert(model: nn.Module, x: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
    assert isinstance(model, Experts)
    return text_to_video(model.at(t), x, t, prompt)


EXPERTS: dict[str, Streams] = {
    "high_noise_model.blocks": {"x": None},
    "low_noise_model.blocks": {"x": None},
}
BLOCKS: dict[str, Streams] = {"blocks": {"x": None}}


def double(
    name: str, kind: Callable[[], nn.Module], predict: Predict, streams: dict[str, Streams],
    target: Callable[[nn.Module], object] = whole,
) -> Double:  # fmt: skip
    """Return a double of Wan's repositories."""
    return Double(name, lambda: lively(kind()), predict, streams, target=target, attention=True)


WAN = {
    "wan": double("Wan2.1, t2v", WanModel, text_to_video, BLOCKS),
    "wan i2v": double("Wan2.1, i2v", WanModel, image_to_video, BLOCKS),
    "wan vace": double("Wan2.1, VACE", VaceModel, with_control, BLOCKS),
    "wan ti2v": double("Wan2.2, ti2v", WanModel, time_of_each_token, BLOCKS),
    "wan experts": double("Wan2.2, its own object", Experts, by_expert, EXPERTS, OwnPipeline),
    "wan list of experts": double("Wan2.2, both models", Experts, by_expert, EXPERTS, both_experts),
}
