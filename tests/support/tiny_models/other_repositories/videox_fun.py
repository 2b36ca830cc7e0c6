"""Doubles of VideoX-Fun: the forward runs once for each half of the batch, and its own cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.tiny_models.other_repositories.double import Double, Streams
from tests.support.tiny_models.other_repositories.packed import QwenBlock
from tests.support.tiny_models.other_repositories.parts import (
    CHANNELS,
    TOKENS,
    Patches,
    Times,
    lively,
)
from tests.support.tiny_models.other_repositories.wan import CONTROL, VaceModel, WanModel


def in_halves(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Run a batch of two or more rows as two calls, the second half first.

    The wrapped forward has the signature `(*args, **kwargs)`.
    """

    def run(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        first = next(iter(kwargs.values())) if not args else args[0]
        rows = len(first)
        if rows < 2:
            return forward(self, *args, **kwargs)

        def half(value: Any, part: slice) -> Any:
            divided = isinstance(value, Tensor | list) and len(value) == rows
            return value[part] if divided else value

        outputs: list[Tensor] = []
        for part, is_cond in ((slice(rows // 2, None), True), (slice(rows // 2), False)):
            parts = {name: half(value, part) for name, value in kwargs.items()}
            parts |= {"cond_flag": is_cond}
            outputs.insert(0, forward(self, *[half(a, part) for a in args], **parts))
        return torch.cat(outputs)

    return run


class OwnCache:
    """The methods of the repository's own cache; `teacache` holds it while it is on."""

    teacache: Any = None

    def enable_teacache(self, threshold: float) -> None:
        self.teacache = {"threshold": threshold}

    def disable_teacache(self) -> None:
        self.teacache = None


class WanTransformer3DModel(OwnCache, WanModel):
    """A class with the name of one of diffusers, and another forward."""

    @in_halves
    def forward(
        self, x: Tensor, t: Tensor, context: list[Tensor], seq_len: int, clip_fea: Any = None,
        y: Any = None, y_camera: Any = None, full_ref: Any = None, subject_ref: Any = None,
        cond_flag: bool = True,
    ) -> Tensor:  # fmt: skip
        return torch.stack(super().forward(list(x), t, context, seq_len))


class VaceWanTransformer3DModel(OwnCache, VaceModel):
    @in_halves
    def forward(
        self, x: Tensor, t: Tensor, vace_context: list[Tensor], context: list[Tensor],
        seq_len: int, vace_context_scale: float = 1.0, cond_flag: bool = True,
    ) -> Tensor:  # fmt: skip
        hinted = super().forward(list(x), t, vace_context, context, seq_len, vace_context_scale)
        return torch.stack(hinted)


class QwenImageTransformer2DModel(OwnCache, nn.Module):
    """A class with the name of one of diffusers, whose blocks take fewer arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.times = Patches(), Times()
        self.transformer_blocks = nn.ModuleList(QwenBlock() for _ in range(4))

    @in_halves
    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, timestep: Tensor,
        img_shapes: Any = None, return_dict: bool = True, cond_flag: bool = True,
    ) -> Tensor:  # fmt: skip
        img, txt = self.patches.tokens(hidden_states), encoder_hidden_states
        temb = self.times(timestep)
        for block in self.transformer_blocks:
            txt, img = block(
                hidden_states=img, encoder_hidden_states=txt, encoder_hidden_states_mask=None,
                temb=temb, image_rotary_emb=None,
            )  # fmt: skip
        return self.patches.video(img, (3, 2, 2))


def one_row(model: nn.Module, x: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
    output: Tensor = model(x=x, t=t.expand(1), context=[prompt[0]], seq_len=TOKENS)
    return output


def both_rows(model: nn.Module, x: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
    """Return the guided prediction of one call with both branches."""
    call = {"context": [prompt[0] * 0, prompt[0]], "seq_len": TOKENS}
    uncond, cond = model(x=torch.cat([x, x]), t=t.expand(2), **call).chunk(2)
    output: Tensor = uncond + 2 * (cond - uncond)
    return output


def vace_rows(model: nn.Module, x: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
    call = {"context": [prompt[0] * 0, prompt[0]], "seq_len": TOKENS, "vace_context": CONTROL * 2}
    uncond, cond = model(x=torch.cat([x, x]), t=t.expand(2), **call).chunk(2)
    output: Tensor = uncond + 2 * (cond - uncond)
    return output


def qwen_row(model: nn.Module, x: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
    call = {"encoder_hidden_states": prompt, "timestep": t.expand(1), "return_dict": False}
    output: Tensor = model(hidden_states=x, **call)
    return output


def qwen_rows(model: nn.Module, x: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
    texts = torch.cat([prompt * 0, prompt]).view(2, -1, CHANNELS)
    call = {"encoder_hidden_states": texts, "timestep": t.expand(2), "return_dict": False}
    uncond, cond = model(hidden_states=torch.cat([x, x]), **call).chunk(2)
    output: Tensor = uncond + 2 * (cond - uncond)
    return output


def wan() -> nn.Module:
    return lively(WanTransformer3DModel())


def vace() -> nn.Module:
    return lively(VaceWanTransformer3DModel())


def qwen() -> nn.Module:
    return lively(QwenImageTransformer2DModel())


BOTH = ("both",)
TEXT_FIRST: dict[str, Streams] = {
    "transformer_blocks": {"encoder_hidden_states": 0, "hidden_states": 1}
}
VIDEOX_FUN = {
    "videox wan": Double("VideoX-Fun, Wan", wan, one_row, {"blocks": {"x": None}}, attention=True),
    "videox wan in halves": Double(
        "VideoX-Fun, Wan, both branches in one call",
        wan,
        both_rows,
        {"blocks": {"x": None}},
        attention=True,
        branches=BOTH,
    ),
    "videox vace in halves": Double(
        "VideoX-Fun, VACE, both branches in one call",
        vace,
        vace_rows,
        {"blocks": {"x": None}},
        attention=True,
        branches=BOTH,
    ),
    "videox qwen": Double("VideoX-Fun, Qwen-Image", qwen, qwen_row, TEXT_FIRST, attention=True),
    "videox qwen in halves": Double(
        "VideoX-Fun, Qwen-Image, both branches in one call",
        qwen,
        qwen_rows,
        TEXT_FIRST,
        attention=True,
        branches=BOTH,
    ),
}
