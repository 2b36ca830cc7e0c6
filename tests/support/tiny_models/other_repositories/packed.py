"""Doubles of models of video and text: HunyuanVideo, Qwen-Image, FLUX, and their packed blocks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.support.tiny_models.other_repositories.double import Double, Streams
from tests.support.tiny_models.other_repositories.parts import (
    CHANNELS,
    WORDS,
    Attention,
    Patches,
    Times,
    lively,
    mlp,
    norm,
)


class Joint(nn.Module):
    """Attention over video and text, and a modulated MLP of each."""

    def __init__(self) -> None:
        super().__init__()
        self.img_mod, self.txt_mod = (nn.Linear(CHANNELS, 4 * CHANNELS) for _ in range(2))
        self.img_mlp, self.txt_mlp, self.attn = mlp(), mlp(), Attention()
        self.norm1, self.norm2 = norm(), norm()

    def added(self, img: Tensor, txt: Tensor, vec: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return what the attention and then the MLP add, each to the video and to the text."""
        gates = [m(vec)[:, None].chunk(4, dim=-1) for m in (self.img_mod, self.txt_mod)]
        normed = [self.norm1(x) * (1 + g[0]) for x, g in zip((img, txt), gates, strict=True)]
        joined = torch.cat(normed, dim=1)
        parts = self.attn(joined).split([img.shape[1], txt.shape[1]], dim=1)
        first = [gate[1] * part for gate, part in zip(gates, parts, strict=True)]
        streams = [img + first[0], txt + first[1]]
        mlps = (self.img_mlp, self.txt_mlp)
        second = [
            g[3] * each(self.norm2(x) * (1 + g[2]))
            for x, g, each in zip(streams, gates, mlps, strict=True)
        ]
        return first, second


class DoubleBlock(Joint):
    def forward(
        self, img: Tensor, txt: Tensor, vec: Tensor, cu_seqlens_q: Any = None,
        cu_seqlens_kv: Any = None, max_seqlen_q: Any = None, max_seqlen_kv: Any = None,
        freqs_cis: Any = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        first, second = self.added(img, txt, vec)
        return img + first[0] + second[0], txt + first[1] + second[1]


class PairAttention(Attention):
    """Attention over video and text that returns both."""

    def forward(  # type: ignore[override]
        self, img: Tensor, txt: Tensor
    ) -> tuple[Tensor, ...]:
        joined = super().forward(torch.cat([img, txt], dim=1))
        return joined.split([img.shape[1], txt.shape[1]], dim=1)


class QwenBlock(Joint):
    """A block that returns the text before the video; each stream has norms of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = PairAttention()
        self.img_norm1, self.txt_norm1 = norm(), norm()
        self.img_norm2, self.txt_norm2 = norm(), norm()

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor,
        encoder_hidden_states_mask: Any, temb: Tensor, image_rotary_emb: Any = None,
        transformer_options: Any = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        img, txt = hidden_states, encoder_hidden_states
        of_img = self.img_mod(temb)[:, None].chunk(4, dim=-1)
        of_txt = self.txt_mod(temb)[:, None].chunk(4, dim=-1)
        normed = self.img_norm1(img) * (1 + of_img[0]), self.txt_norm1(txt) * (1 + of_txt[0])
        attended = self.attn(*normed)
        img, txt = img + of_img[1] * attended[0], txt + of_txt[1] * attended[1]
        img = img + of_img[3] * self.img_mlp(self.img_norm2(img) * (1 + of_img[2]))
        return txt + of_txt[3] * self.txt_mlp(self.txt_norm2(txt) * (1 + of_txt[2])), img


class Parallel(nn.Module):
    """Attention and MLP side by side, over video and text in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.modulation = nn.Linear(CHANNELS, 2 * CHANNELS)
        self.pre_norm, self.attn, self.linear2 = norm(), Attention(), mlp()

    def added(self, x: Tensor, vec: Tensor) -> Tensor:
        scale, gate = self.modulation(vec)[:, None].chunk(2, dim=-1)
        moved = self.pre_norm(x) * (1 + scale)
        return gate * (self.attn(moved) + self.linear2(moved))


class SingleBlock(Parallel):
    def forward(
        self, x: Tensor, vec: Tensor, txt_len: int, cu_seqlens_q: Any = None,
        cu_seqlens_kv: Any = None, max_seqlen_q: Any = None, max_seqlen_kv: Any = None,
        freqs_cis: Any = None,
    ) -> Tensor:  # fmt: skip
        return x + self.added(x, vec)


class HunyuanVideo(nn.Module):
    """A model that runs two streams, then joins them: video first, then text."""

    def __init__(self, singles: int = 2) -> None:
        super().__init__()
        self.patches, self.time_in = Patches(), Times()
        self.txt_in = nn.Linear(CHANNELS, CHANNELS)
        self.double_blocks = nn.ModuleList(DoubleBlock() for _ in range(3))
        self.single_blocks = nn.ModuleList(SingleBlock() for _ in range(singles))

    def forward(
        self, x: Tensor, t: Tensor, text_states: Tensor, text_mask: Any = None,
        text_states_2: Any = None, freqs_cos: Any = None, freqs_sin: Any = None,
        guidance: Any = None, return_dict: bool = True,
    ) -> Any:  # fmt: skip
        img, txt, vec = self.patches.tokens(x), self.txt_in(text_states), self.time_in(t)
        length = img.shape[1]
        for block in self.double_blocks:
            img, txt = block(*[img, txt, vec, None, None, length + WORDS, length + WORDS, None])
        joined = torch.cat([img, txt], dim=1)
        for block in self.single_blocks:
            joined = block(*[joined, vec, txt.shape[1], None, None, None, None, (None, None)])
        video = self.patches.video(joined[:, :length], (3, 2, 2))
        return {"x": video} if return_dict else video


class Keywords(DoubleBlock):
    """A block that gets all arguments by keyword, and a dict that the model changes."""

    def forward(  # type: ignore[override]
        self, img: Tensor, txt: Tensor, vec: Tensor, freqs_cis: Any = None,
        text_mask: Any = None, attn_param: Any = None, is_flash: bool = False,
        block_idx: Any = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        return super().forward(img, txt, vec)


class HunyuanVideo15(nn.Module):
    """A model that tells its blocks their number, and writes into a dict before each."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.time_in = Patches(), Times()
        self.double_blocks = nn.ModuleList(Keywords() for _ in range(4))
        self.single_blocks = nn.ModuleList()
        self.attn_param: dict[str, Any] = {}

    def forward(
        self, hidden_states: Tensor, timestep: Tensor, text_states: Tensor,
        encoder_attention_mask: Any = None, return_dict: bool = False,
    ) -> tuple[Tensor, None]:  # fmt: skip
        img, txt = self.patches.tokens(hidden_states), text_states
        vec = self.time_in(timestep)
        self.attn_param["thw"] = [3, 2, 2]
        for index, block in enumerate(self.double_blocks):
            self.attn_param["layer-name"] = f"double_block_{index + 1}"
            img, txt = block(
                img=img, txt=txt, vec=vec, freqs_cis=None, text_mask=None,
                attn_param=self.attn_param, is_flash=False, block_idx=index,
            )  # fmt: skip
        joined = torch.cat((img, txt), dim=1)
        return self.patches.video(joined[:, : img.shape[1]], (3, 2, 2)), None


def hunyuan(model: nn.Module, x: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
    output: Tensor = model(x, t.repeat(1), text_states=prompt, return_dict=True)["x"]
    return output


def hunyuan_15(model: nn.Module, x: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
    output: Tensor = model(x, t.repeat(1), prompt)[0]
    return output


TWO_LISTS: dict[str, Streams] = {
    "double_blocks": {"img": 0, "txt": 1},
    "single_blocks": {"x": None},
}
PACKED = {
    "hunyuan": Double("HunyuanVideo", lambda: lively(HunyuanVideo()), hunyuan, TWO_LISTS),
    "hunyuan 1.5": Double(
        "HunyuanVideo-1.5",
        lambda: lively(HunyuanVideo15()),
        hunyuan_15,
        {"double_blocks": {"img": 0, "txt": 1}},
    ),
}
