"""Small models of unknown classes, each with its blocks connected in another way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.support.tiny_models.description import noise

STEPS = 9
REUSING = {"codebook": {float("inf"): 3}, "num_inference_steps": STEPS}


class Block(nn.Module):
    """x + f(x, t)"""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(channels, channels), nn.Tanh())

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x + self.body(x) * t


class TextBlock(Block):
    """A block with two streams."""

    def forward(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return x + self.body(x) * t + y.mean(), y + self.body(y)


class Swapped(TextBlock):
    def forward(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x, y = super().forward(x, y, t)
        return y, x


class Extra(TextBlock):
    """A block that returns a dictionary unchanged, and a value that no block takes."""

    def forward(self, x: Tensor, y: dict[str, int], t: Tensor) -> tuple[Tensor, Any, Tensor]:  # type: ignore[override]
        return Block.forward(self, x, t), y, x.mean()


class Dictionary(Extra):
    def forward(self, x: Tensor, y: dict[str, int], t: Tensor) -> tuple[Tensor, Any]:  # type: ignore[override]
        return Block.forward(self, x, t), y


def blocks(count: int = 4, kind: type[Block] = Block, **options: Any) -> nn.ModuleList:
    return nn.ModuleList(kind(**options) for _ in range(count))


class Model(nn.Module):
    """A model that embeds, runs `layers` and projects; subclasses use their blocks differently."""

    def __init__(self, kind: type[Block] = Block) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(4, 8), nn.Linear(8, 4)
        self.layers = blocks(kind=kind)

    def run(self, x: Tensor, t: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, t)
        return x

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        return self.head(self.run(self.embed(x), timestep / 1000))


class TextNamed(Model):
    """A model whose list of blocks has the name of a list of a text encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.text_blocks = self.layers
        del self.layers

    def run(self, x: Tensor, t: Tensor) -> Tensor:
        for layer in self.text_blocks:
            x = layer(x, t)
        return x


class WithText(Model):
    """A model with a text as long as the video, so that shapes do not distinguish them."""

    def __init__(self, kind: type[Block] = TextBlock) -> None:
        super().__init__(kind)
        self.text = nn.Parameter(noise(1, 6, 8, seed=3))

    def run(self, x: Tensor, t: Tensor) -> Tensor:
        y = self.text * 1
        for layer in self.layers:
            x, y = layer(x, y, t)
        return x + y.mean()


class WithSwappedText(WithText):
    def run(self, x: Tensor, t: Tensor) -> Tensor:
        y = self.text * 1
        for layer in self.layers:
            y, x = layer(x, y, t)
        return x + y.mean()


class WithDictionary(WithText):
    def run(self, x: Tensor, t: Tensor) -> Tensor:
        state = {"step": 1}
        for layer in self.layers:
            x, state = layer(x, state, t)[:2]
        assert state == {"step": 1}
        return x


class Added(Model):
    """A model that adds a function of the video after the second block."""

    def run(self, x: Tensor, t: Tensor) -> Tensor:
        for index, layer in enumerate(self.layers):
            x = layer(x, t)
            if index == 1:
                x = x + x.tanh()
        return x


class AddedEverywhere(Model):
    def run(self, x: Tensor, t: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, t) * 1.01
        return x


class TextAddedEverywhere(WithText):
    def run(self, x: Tensor, t: Tensor) -> Tensor:
        y = self.text * 1
        for layer in self.layers:
            x, y = layer(x * 1.01, y * 1.01, t)
        return x + y.mean()


class Collected(Model):
    """A model that adds the output of the second block again at the end."""

    def run(self, x: Tensor, t: Tensor) -> Tensor:
        outputs = []
        for layer in self.layers:
            x = layer(x, t)
            outputs.append(x)
        return x + 2 * outputs[1]


class Noting(Block):
    def forward(self, x: Tensor, notes: list[int], t: Tensor) -> Tensor:  # type: ignore[override]
        notes.append(len(notes))
        return super().forward(x, t) * (1 + len(notes))


class WithNotes(Model):
    def __init__(self) -> None:
        super().__init__(Noting)

    def run(self, x: Tensor, t: Tensor) -> Tensor:
        notes: list[int] = []
        for layer in self.layers:
            x = layer(x, notes, t)
        return x


class Caching(Block):
    def forward(self, x: Tensor, kv_cache: Any, t: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x, t)


class WithCache(Model):
    def __init__(self) -> None:
        super().__init__(Caching)

    def run(self, x: Tensor, t: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, object(), t)
        return x


class Optional(WithText):
    """A model whose text is optional."""

    def __init__(self) -> None:
        super().__init__(OptionalBlock)

    def forward(self, x: Tensor, timestep: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.embed(x)
        for layer in self.layers:
            x, y = layer(x, y, timestep / 1000)
        return self.head(x if y is None else x + y.mean())


class OptionalBlock(TextBlock):
    def forward(self, x: Tensor, y: Tensor | None, t: Tensor) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
        return super().forward(x, y, t) if y is not None else (Block.forward(self, x, t), None)


class Skipping(Model):
    """A model whose last block also takes the output of the first, as in long skips."""

    def __init__(self) -> None:
        super().__init__(SkipBlock)

    def run(self, x: Tensor, t: Tensor) -> Tensor:
        first = None
        for index, layer in enumerate(self.layers):
            x = layer(x, t, first if index == 3 else None)
            first = x if index == 0 else first
        return x


class SkipBlock(Block):
    def forward(self, x: Tensor, t: Tensor, skip: Tensor | None = None) -> Tensor:  # type: ignore[override]
        return super().forward(x if skip is None else x + skip, t) - (0 if skip is None else skip)


class Twice(Model):
    def run(self, x: Tensor, t: Tensor) -> Tensor:
        return super().run(super().run(x, t), t)


class Backwards(Model):
    def run(self, x: Tensor, t: Tensor) -> Tensor:
        for layer in reversed(self.layers):
            x = layer(x, t)
        return x


class Partly(Model):
    def run(self, x: Tensor, t: Tensor) -> Tensor:
        for layer in self.layers[:2]:
            x = layer(x, t)
        return x


class Turns(Model):
    def __init__(self) -> None:
        super().__init__()
        self.others = blocks()

    def run(self, x: Tensor, t: Tensor) -> Tensor:
        for layer, other in zip(self.layers, self.others, strict=True):
            x = other(layer(x, t), t)
        return x


class Refined(Model):
    """A model with a refiner as large as the blocks, and lists that cannot be the blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.context_refiner = blocks()
        self.heads = nn.ModuleList([Block(), TextBlock()])
        self.few = blocks(2, channels=2)

    def run(self, x: Tensor, t: Tensor) -> Tensor:
        y = x
        for refiner in self.context_refiner:
            y = refiner(y, t)
        return super().run(x + y.mean(), t)


class InDictionary(Model):
    def __init__(self) -> None:
        super().__init__()
        self.modes = nn.ModuleDict({"image": blocks()})

    def run(self, x: Tensor, t: Tensor) -> Tensor:
        for block in self.modes["image"]:
            x = block(x, t)
        return super().run(x, t)


class Inside(nn.Module):
    """A model whose block list is in a submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = Model()

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        return self.transformer(x, timestep)


def run(model: nn.Module, steps: int = STEPS) -> list[Tensor]:
    x, trajectory = noise(1, 6, 4), []
    with torch.no_grad():
        for step in range(1, steps + 1):
            x = x - 0.05 * model(x, torch.full((1,), 930.0 - 30 * step))
            trajectory.append(x)
    return trajectory
