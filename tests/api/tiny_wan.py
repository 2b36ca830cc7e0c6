"""A tiny Wan model, patched to reuse two steps after each computed one."""

from __future__ import annotations

from torch import Tensor, nn

import adacache_kernels as ak
from tests.support.tiny_models.common_models import TINY, denoise

STEPS = 7
EVERY_THIRD = {float("inf"): 3}
COMPUTED = [1, 2, 5, 6, 7]


def build() -> nn.Module:
    return TINY["wan"].build()


def patch(model: nn.Module) -> nn.Module:
    return ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS)


def run(model: nn.Module) -> Tensor:
    return denoise(TINY["wan"], model, STEPS)[-1]
