"""Generations with forecasts and corrections, with one forecast for each block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.oracles.two_residuals_per_block import ForecastBlock, forecast_blocks
from tests.support.tiny_models.common_models import TINY, Tiny

STEPS = 12
EVERY = tuple(range(1, STEPS + 1))


def oracle_run(
    name: str, model: nn.Module, computed: set[int], order: int, correct: bool = False
) -> list[Tensor]:
    """Return the latents of the oracle after each step of a given schedule."""
    tiny, latents, trajectory, now = TINY[name], TINY[name].noise(), [], [0]
    with (
        forecast_blocks(name, model, tiny.lists, order, lambda: now[0], computed) as blocks,
        torch.no_grad(),
    ):
        for step in range(1, STEPS + 1):
            now[0] = step
            if correct:
                with corrected(tiny, model, blocks, step, computed):
                    latents = latents - 0.05 * tiny.call(model, latents, step)
            else:
                latents = latents - 0.05 * tiny.call(model, latents, step)
            trajectory.append(latents)
    return trajectory


def total(
    tiny: Tiny,
    blocks: Mapping[tuple[str, int], ForecastBlock],
    of_block: Callable[[ForecastBlock], Tensor],
) -> Tensor:
    """Return the sum of a tensor of each block, in the layout of the last list."""
    of_list = [
        torch.stack([of_block(b) for (attribute, _), b in blocks.items() if attribute == name]).sum(
            0
        )
        for name in tiny.lists
    ]
    if len(of_list) == 1:
        return of_list[0]
    # Latte: [F, S, C] of the spatial blocks to [S, F, C] of the temporal ones, one video.
    spatial, temporal = of_list
    return temporal + spatial.transpose(0, 1)


@contextmanager
def corrected(
    tiny: Tiny,
    model: nn.Module,
    blocks: dict[tuple[str, int], ForecastBlock],
    step: int,
    computed: set[int],
) -> Iterator[None]:
    """Add the forecast errors of all blocks to the streams that leave the last block."""
    last = getattr(model, tiny.lists[-1])[-1]

    def add(_module: nn.Module, _args: Any, output: Any) -> Any:
        if step not in computed or step - 1 in computed or step == 1:
            return output
        streams = list(output) if isinstance(output, tuple) else [output]
        for index, stream in enumerate(streams):
            streams[index] = stream + total(tiny, blocks, lambda b, i=index: b.missed(step, i))
        return tuple(streams) if isinstance(output, tuple) else streams[0]

    handle = last.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
