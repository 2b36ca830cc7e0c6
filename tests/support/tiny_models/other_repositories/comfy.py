"""Doubles of ComfyUI's models: an executor calls the forward, and blocks write in place."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.tiny_models.description import noise
from tests.support.tiny_models.other_repositories.double import Double
from tests.support.tiny_models.other_repositories.packed import Joint, Parallel, QwenBlock
from tests.support.tiny_models.other_repositories.parts import (
    CHANNELS,
    Attention,
    Patches,
    Times,
    lively,
    mlp,
    norm,
)


class Executed(nn.Module):
    """A model whose forward passes everything to `_forward`, through wrappers of extensions."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.time_in = Patches(), Times()
        self.text_embedding = nn.Linear(CHANNELS, CHANNELS)

    def forward(
        self, x: Tensor, timestep: Tensor, context: Tensor, transformer_options: Any = None,
        **kwargs: Any,
    ) -> Tensor:  # fmt: skip
        options = transformer_options or {}
        run: Callable[..., Tensor] = self._forward
        for wrapper in options.get("wrappers", ()):
            run = partial(wrapper, run)
        return run(x, timestep, context, transformer_options=options, **kwargs)

    def _forward(
        self, x: Tensor, timestep: Tensor, context: Tensor, transformer_options: Any, **kwargs: Any
    ) -> Tensor:
        raise NotImplementedError


class WanBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = norm(), norm(), norm()
        self.self_attn, self.cross_attn, self.ffn = Attention(), Attention(), mlp()
        self.modulation = nn.Linear(CHANNELS, 6 * CHANNELS)

    def forward(
        self, x: Tensor, e: Tensor, freqs: Any, context: Tensor, context_img_len: int = 257,
        transformer_options: Any = None,
    ) -> Tensor:  # fmt: skip
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(e)[:, None].chunk(6, dim=-1)
        y = self.self_attn(torch.addcmul(shift1, self.norm1(x), 1 + scale1), None, freqs)
        x = torch.addcmul(x, y, gate1)
        x = x + self.cross_attn(self.norm3(x), context)
        return torch.addcmul(x, self.ffn(torch.addcmul(shift2, self.norm2(x), 1 + scale2)), gate2)


class WanModel(Executed):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(WanBlock() for _ in range(4))

    def run(self, x: Tensor, i: int, arguments: dict[str, Any]) -> Tensor:
        """Run one block; models with hints add theirs afterwards."""
        output: Tensor = self.blocks[i](x, **arguments)
        return output

    def _forward(
        self, x: Tensor, timestep: Tensor, context: Tensor, transformer_options: Any, **kwargs: Any
    ) -> Tensor:
        tokens, context = self.patches.tokens(x), self.text_embedding(context)
        arguments = {
            "e": self.time_in(timestep),
            "freqs": None,
            "context": context,
            "context_img_len": None,
            "transformer_options": transformer_options,
        }
        self.begin(arguments, **kwargs)
        for i in range(len(self.blocks)):
            tokens = self.run(tokens, i, arguments)
        return self.patches.video(tokens, (3, 2, 2))

    def begin(self, arguments: dict[str, Any], **kwargs: Any) -> None:
        """Prepare what models with hints need."""


class HintBlock(WanBlock):
    def __init__(self) -> None:
        super().__init__()
        self.after_proj = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, c: Tensor, **others: Any) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        c = super().forward(c, **others)
        return self.after_proj(c), c


class VaceModel(WanModel):
    """A model that adds hints in place between its blocks: the same tensor with new values."""

    def __init__(self) -> None:
        super().__init__()
        self.vace_blocks = nn.ModuleList(HintBlock() for _ in range(2))

    def begin(self, arguments: dict[str, Any], **kwargs: Any) -> None:
        self.control = self.patches.tokens(kwargs["vace_context"])
        self.strength = kwargs["vace_strength"]

    def run(self, x: Tensor, i: int, arguments: dict[str, Any]) -> Tensor:
        x = super().run(x, i, arguments)
        if i % 2 == 0:
            hint, self.control = self.vace_blocks[i // 2](self.control, **arguments)
            x += hint * self.strength
        return x


class DoubleBlock(Joint):
    """A block that makes a new video, and writes into its text."""

    def forward(
        self, img: Tensor, txt: Tensor, vec: Tensor, pe: Any, attn_mask: Any = None,
        modulation_dims_img: Any = None, modulation_dims_txt: Any = None,
        transformer_options: Any = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        first, second = self.added(img, txt, vec)
        txt += first[1]
        txt += second[1]
        return img + first[0] + second[0], txt


class SingleBlock(Parallel):
    """A block that writes into its input and returns it."""

    def forward(
        self, x: Tensor, vec: Tensor, pe: Any, attn_mask: Any = None, modulation_dims: Any = None,
        transformer_options: Any = None,
    ) -> Tensor:  # fmt: skip
        x += self.added(x, vec)
        return x


class Packed(Executed):
    """Two streams, then one; `text_first` as in FLUX, else as in HunyuanVideo.

    An image is a video of one frame. `control` holds tensors that are added in place after blocks.
    """

    text_first = False

    def __init__(self) -> None:
        super().__init__()
        self.double_blocks = nn.ModuleList(DoubleBlock() for _ in range(3))
        self.single_blocks = nn.ModuleList(SingleBlock() for _ in range(3))

    def _forward(
        self, x: Tensor, timestep: Tensor, context: Tensor, transformer_options: Any, **kwargs: Any
    ) -> Tensor:
        frames = x if x.ndim == 5 else x[:, :, None]
        img, vec = self.patches.tokens(frames), self.time_in(timestep)
        txt = self.text_embedding(context)
        control, options = kwargs.get("control"), {"transformer_options": transformer_options}
        for i, block in enumerate(self.double_blocks):
            img, txt = block(img=img, txt=txt, vec=vec, pe=None, attn_mask=None, **options)
            if control is not None:
                img[:, : control[i].shape[1]] += control[i]
        start = txt.shape[1] if self.text_first else 0
        video = slice(start, start + img.shape[1])
        joined = torch.cat([txt, img] if self.text_first else [img, txt], dim=1)
        for block in self.single_blocks:
            joined = block(joined, vec=vec, pe=None, attn_mask=None, **options)
        output = self.patches.video(joined[:, video], (frames.shape[2], 2, 2))
        return output if x.ndim == 5 else output[:, :, 0]


class Flux(Packed):
    text_first = True


class QwenImageTransformer2DModel(Executed):
    """A class with the name of one of diffusers, whose forward has other parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer_blocks = nn.ModuleList(QwenBlock() for _ in range(4))

    def _forward(
        self, x: Tensor, timestep: Tensor, context: Tensor, transformer_options: Any, **kwargs: Any
    ) -> Tensor:
        img, txt, temb = (
            self.patches.tokens(x),
            self.text_embedding(context),
            self.time_in(timestep),
        )
        for block in self.transformer_blocks:
            txt, img = block(
                hidden_states=img, encoder_hidden_states=txt, encoder_hidden_states_mask=None,
                temb=temb, image_rotary_emb=None, transformer_options=transformer_options,
            )  # fmt: skip
        return self.patches.video(img, (3, 2, 2))


class LtxBlock(WanBlock):
    """A block that adds everything to its input in place."""

    def forward(  # type: ignore[override]
        self, x: Tensor, context: Any = None, attention_mask: Any = None, timestep: Any = None,
        pe: Any = None, transformer_options: Any = None,
    ) -> Tensor:  # fmt: skip
        rows = self.modulation(timestep)[:, None].chunk(6, dim=-1)
        shift1, scale1, gate1, shift2, scale2, gate2 = rows
        x += self.self_attn(self.norm1(x) * (1 + scale1) + shift1, None, pe) * gate1
        x += self.cross_attn(x, context, attention_mask)
        x += self.ffn(self.norm2(x) * (1 + scale2) + shift2) * gate2
        return x


class LTXVModel(Executed):
    def __init__(self) -> None:
        super().__init__()
        self.transformer_blocks = nn.ModuleList(LtxBlock() for _ in range(4))

    def _forward(
        self, x: Tensor, timestep: Tensor, context: Tensor, transformer_options: Any, **kwargs: Any
    ) -> Tensor:
        tokens, arguments = self.patches.tokens(x), {"context": self.text_embedding(context)}
        for block in self.transformer_blocks:
            tokens = block(tokens, timestep=self.time_in(timestep), pe=None, **arguments)
        return self.patches.video(tokens, (3, 2, 2))


def call(model: nn.Module, x: Tensor, t: Tensor, prompt: Tensor, **more: Any) -> Tensor:
    """Call a model as a sampler does: the time and the options are made for each call."""
    options = {"cond_or_uncond": [0], "sigmas": t[None]}
    output: Tensor = model(x, t * torch.ones(1), prompt, transformer_options=options, **more)
    return output


def double(
    name: str, kind: Callable[[], nn.Module], streams: Any, attention: bool = False,
    is_image: bool = False, **more: Any,
) -> Double:  # fmt: skip
    """Return the double of a model of ComfyUI, which samples under inference_mode."""
    return Double(
        f"ComfyUI, {name}", lambda: lively(kind()), partial(call, **more), streams,
        inference_mode=True, attention=attention, motion=not is_image,
        latents=(1, 4, 4, 4) if is_image else (1, 4, 3, 4, 4),
    )  # fmt: skip


CONTROL = noise(1, 4, 3, 4, 4, seed=41)
SAMPLES = [noise(1, 3, CHANNELS, seed=42 + i) for i in range(3)]
TWO_LISTS = {"double_blocks": {"img": 0, "txt": 1}, "single_blocks": {"x": None}}
TEXT_FIRST = {"transformer_blocks": {"encoder_hidden_states": 0, "hidden_states": 1}}
COMFY = {
    "comfy wan": double("Wan", WanModel, {"blocks": {"x": None}}, attention=True),
    "comfy vace": double(
        "Wan VACE",
        VaceModel,
        {"blocks": {"x": None}},
        attention=True,
        vace_context=CONTROL,
        vace_strength=0.8,
    ),
    "comfy hunyuan": double("HunyuanVideo", Packed, TWO_LISTS),
    "comfy flux": double("FLUX", Flux, TWO_LISTS, is_image=True),
    "comfy flux control": double(
        "FLUX with a controlnet", Flux, TWO_LISTS, is_image=True, control=SAMPLES
    ),
    "comfy qwen": double("Qwen-Image", QwenImageTransformer2DModel, TEXT_FIRST, attention=True),
    "comfy ltxv": double("LTXV", LTXVModel, {"transformer_blocks": {"x": None}}),
}
