"""A small model into whose streams somebody writes, and a plain oracle of its generations."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

import adacache_kernels as ak
from adacache_kernels.models.adapter_builders import VIDEO_AND_TEXT, chained, no_frames
from tests.support.oracles.block_residual import stored_blocks
from tests.support.tiny_models.description import noise

STEPS = 9
SCHEDULE = [1, 4, 7]
TOKENS, TEXT, CHANNELS = 12, 5, 8
Write = Callable[[Tensor, Tensor], None]
ADAPTER = chained("blocks", streams=VIDEO_AND_TEXT, frames=no_frames, guidance_calls=2)
STRUCTURE: Any = SimpleNamespace(
    lists=("blocks",), streams=("hidden_states", "encoder_hidden_states"), streams_of={}
)


class Block(nn.Module):
    """A block of two streams that returns new tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.video, self.text = nn.Linear(CHANNELS, CHANNELS), nn.Linear(CHANNELS, CHANNELS)

    def changes(self, x: Tensor, text: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.tanh(self.video(x)) * t + text.mean(), torch.tanh(self.text(text))

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor
    ) -> tuple[Tensor, Tensor]:
        x, text = self.changes(hidden_states, encoder_hidden_states, temb)
        return hidden_states + x, encoder_hidden_states + text


class InPlace(Block):
    """A block that adds to its inputs and returns them."""

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor
    ) -> tuple[Tensor, Tensor]:
        x, text = self.changes(hidden_states, encoder_hidden_states, temb)
        hidden_states += x
        encoder_hidden_states += text
        return hidden_states, encoder_hidden_states


class TextInPlace(Block):
    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor
    ) -> tuple[Tensor, Tensor]:
        x, text = self.changes(hidden_states, encoder_hidden_states, temb)
        return hidden_states + x, encoder_hidden_states.add_(text)


class Spoiling(Block):
    """A block that uses its input as scratch memory, and returns new tensors."""

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor
    ) -> tuple[Tensor, Tensor]:
        output = super().forward(hidden_states, encoder_hidden_states, temb)
        hidden_states.mul_(0.5)
        return output


class Written(nn.Module):
    """A model that may write a hint into its streams between blocks.

    Args:
        kinds: the class of each block.
        hints: by index of a block, the write into the video after it.
        text_hints: by index of a block, the write into the text after it.
    """

    def __init__(
        self,
        *kinds: type[Block],
        hints: Mapping[int, Write] | None = None,
        text_hints: Mapping[int, Write] | None = None,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Linear(4, CHANNELS), nn.Linear(CHANNELS, 4)
        self.blocks = nn.ModuleList(kind() for kind in kinds or (Block,) * 4)
        self.markers = nn.ModuleList(nn.Identity() for _ in self.blocks)
        self.hints, self.text_hints = dict(hints or {}), dict(text_hints or {})
        self.eval()

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        timestep: Tensor,
        has_hints: bool = True,
    ) -> Tensor:
        x, text, t = self.embed(hidden_states), encoder_hidden_states * 1, timestep / 1000
        for index, block in enumerate(self.blocks):
            x, text = block(x, text, t)
            self.markers[index](x)
            if has_hints and index in self.hints:
                self.hints[index](x, hint(TOKENS))
            if has_hints and index in self.text_hints:
                self.text_hints[index](text, hint(TEXT))
        output: Tensor = self.head(x) + text.mean()
        return output


def hint(tokens: int) -> Tensor:
    return noise(1, tokens, CHANNELS, seed=7)


def add(x: Tensor, value: Tensor) -> None:
    x.add_(value)


def add_to_some_tokens(x: Tensor, value: Tensor) -> None:
    x[:, 3:5].add_(value[:, 3:5])


def add_by_numpy(x: Tensor, value: Tensor) -> None:
    x.detach().numpy()[...] += value.numpy()


def add_by_address(x: Tensor, value: Tensor) -> None:
    """Write as a kernel does that knows only the address."""
    count = x.numel()
    memory = (ctypes.c_float * count).from_address(x.data_ptr())
    memory[:] = (x + value).flatten().tolist()


WRITES = {f.__name__: f for f in (add, add_to_some_tokens, add_by_numpy, add_by_address)}
Hints = Callable[[int], bool]
"""From the number of a guidance branch to True if the model writes hints in its calls."""


def always(branch: int) -> bool:
    return True


def inputs(branch: int, step: int, hints: Hints, batch: int = 1) -> dict[str, Any]:
    return {
        "encoder_hidden_states": noise(batch, TEXT, CHANNELS, seed=50 + branch),
        "timestep": torch.tensor(930.0 - 30 * step),
        "has_hints": hints(branch),
    }


def generate(
    model: nn.Module,
    *,
    inference: bool,
    branches: int = 1,
    batch: int = 1,
    hints: Hints = always,
) -> list[list[Tensor]]:
    """Return the latents of each branch after each step."""
    latents = [noise(batch, TOKENS, 4, seed=branch) for branch in range(branches)]
    trajectories: list[list[Tensor]] = [[] for _ in latents]
    with torch.inference_mode() if inference else torch.no_grad():
        for step in range(1, STEPS + 1):
            for branch in range(branches):
                with ak.cache_context(f"branch {branch}") if branches > 1 else nullcontext():
                    out = model(latents[branch], **inputs(branch, step, hints, batch))
                latents[branch] = latents[branch] - 0.05 * out
                trajectories[branch].append(latents[branch])
    return trajectories


def expected(
    model: nn.Module, computed: Collection[int], *, branches: int = 1, hints: Hints = always
) -> list[list[Tensor]]:
    """Return the same of an oracle in which every block stores what it adds."""
    trajectories: list[list[Tensor]] = []
    for branch in range(branches):
        now, latents = [0], noise(1, TOKENS, 4, seed=branch)
        trajectories.append([])
        with stored_blocks(STRUCTURE, model, lambda now=now: now[0] in computed), torch.no_grad():
            for step in range(1, STEPS + 1):
                now[0] = step
                latents = latents - 0.05 * model(latents, **inputs(branch, step, hints))
                trajectories[-1].append(latents)
    return trajectories


def largest_difference(one: list[list[Tensor]], other: list[list[Tensor]]) -> float:
    """Return the largest difference of two runs, relative to the second."""
    pairs = [pair for a, b in zip(one, other, strict=True) for pair in zip(a, b, strict=True)]
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)
