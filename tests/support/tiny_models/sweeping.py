"""A tiny model that runs its blocks once for each part of its batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tests.support.tiny_models.description import noise

WIDTH, FRAMES, TOKENS, WORDS = 8, 3, 4, 5
STEPS = 12
TIMES = torch.linspace(1.0, 0.1, STEPS)
WHOLE = (slice(None),)
HALVES = (slice(1, None), slice(1))
"""The second row first, as in VideoX-Fun."""


class Block(nn.Module):
    """Mixes tokens, words and time: its residual depends on all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.words = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, context: Tensor, t: Tensor) -> Tensor:
        pooled = self.words(context).mean(1, keepdim=True)
        return x + torch.tanh(self.mix(x.roll(1, 1)) + pooled) * (0.5 + t)


class WritingBlock(Block):
    """Writes into its input, as some blocks do."""

    def forward(self, x: Tensor, context: Tensor, t: Tensor) -> Tensor:
        return x.add_(super().forward(x, context, t) - x)


class TwoStreamBlock(Block):
    """Passes a text on beside the video."""

    def forward(  # type: ignore[override]
        self, x: Tensor, text: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        return super().forward(x, text, t), text + 0.1 * self.words(text) * (0.5 + t)


class Sweeping(nn.Module):
    """A denoiser of videos `[B, WIDTH, F, TOKENS, 1]`.

    Args:
        block: class of the blocks.
        chained: whether a second list runs over the text and the video, joined.
    """

    patch_size = (1, 1, 1)

    def __init__(self, block: type[Block] = Block, *, chained: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.parts: Sequence[slice] = HALVES
        self.skips_singles, self.rounds = False, 1
        self.blocks = nn.ModuleList(block() for _ in range(3))
        self.singles = nn.ModuleList(Block() for _ in range(2 * chained))
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """Return the prediction; the blocks run once for each of `parts`, which may overlap."""
        output = torch.zeros_like(x)
        for part in self.parts:
            output[part] += self.sweep(x[part], t, context[part])
        return output

    def sweep(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        tokens, text = x.flatten(2).transpose(1, 2) * 1.0, context * 1.0
        for block in (*self.blocks,) * self.rounds:
            output = block(tokens, text, t)
            tokens, text = output if isinstance(output, tuple) else (output, text)
        if len(self.singles) and not self.skips_singles:
            joined = torch.cat([text, tokens], 1)
            for block in self.singles:
                joined = block(joined, context, t)
            tokens = joined[:, text.shape[1] :]
        return tokens.transpose(1, 2).reshape(x.shape)


def contexts(rows: int = 2) -> Tensor:
    """Return a prompt for each row, `[rows, WORDS, WIDTH]`."""
    return noise(rows, WORDS, WIDTH, seed=7)


def latents(rows: int) -> Tensor:
    """Return the latents at the beginning, `[rows, WIDTH, F, TOKENS, 1]`."""
    return noise(rows, WIDTH, FRAMES, TOKENS, 1, seed=5)


def denoise(
    model: Sweeping,
    parts: Sequence[Sequence[slice]] = (),
    prompts: Sequence[Tensor] = (),
    rows: int = 2,
) -> list[Tensor]:
    """Return the predictions of a generation.

    Args:
        model: the model.
        parts: the parts of each step; empty: those of the model.
        prompts: the prompts of each step, `[rows, WORDS, WIDTH]`; empty: the same in all.
        rows: rows of the batch.
    """
    x, always, outputs = latents(rows), contexts(rows), []
    with torch.no_grad():
        for step, t in enumerate(TIMES):
            model.parts = parts[step] if parts else model.parts
            outputs.append(model(x, t, prompts[step] if prompts else always))
            x = x - 0.05 * outputs[-1]
    return outputs
