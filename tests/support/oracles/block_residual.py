"""A plain oracle: every block stores its residual for each stream, and adds it in reused steps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.tiny_models.description import noise
from tests.support.tiny_models.tiny_class import TinyClass


class StoredBlock:
    """A block's forward that stores its residuals while `computes()`, and else adds them."""

    def __init__(
        self, block: nn.Module, streams: tuple[str, ...], computes: Callable[[], bool]
    ) -> None:
        self.original, self.streams, self.computes = block.forward, streams, computes
        self.names = list(inspect.signature(block.forward).parameters)
        self.added: list[Tensor | None] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        bound = dict(zip(self.names, args, strict=False)) | kwargs
        inputs = [bound[name] for name in self.streams]
        if self.computes():
            # A block may write into its inputs.
            inputs = [x if x is None else x.clone() for x in inputs]
            output = self.original(*args, **kwargs)
            outputs = output if isinstance(output, tuple) else (output,)
            pairs = zip(outputs, inputs, strict=True)
            self.added = [None if out is None else out - x for out, x in pairs]
            return output
        added = zip(inputs, self.added, strict=True)
        outputs = tuple(None if r is None else x + r for x, r in added)
        return outputs if len(self.streams) > 1 else outputs[0]


@contextmanager
def stored_blocks(
    tiny: TinyClass, model: nn.Module, computes: Callable[[], bool]
) -> Iterator[None]:
    """Let each block of `model` be a `StoredBlock` inside the context."""
    blocks = [(name, block) for name in tiny.lists for block in getattr(model, name)]
    for name, block in blocks:
        block.forward = StoredBlock(block, tiny.streams_of.get(name, tiny.streams), computes)
    try:
        yield
    finally:
        for _, block in blocks:
            del block.forward


def reused_by_blocks(
    tiny: TinyClass, model: nn.Module, steps: int, computed: Collection[int]
) -> list[Tensor]:
    """Return the latents after every step, as `tiny_class.denoise`, computing these steps."""
    now, trajectory = [0], []
    with stored_blocks(tiny, model, lambda: now[0] in computed), torch.no_grad():
        latents = noise(*tiny.latents)
        for step in range(1, steps + 1):
            now[0] = step
            latents = latents - 0.05 * tiny.call(model, latents, step)
            trajectory.append(latents)
    return trajectory
