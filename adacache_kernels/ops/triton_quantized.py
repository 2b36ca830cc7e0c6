"""The launch of the kernel that stores residuals in eight bits, one token at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..kernels.launch_config import MAX_CHANNELS, RING_ELEMENTS, TokenConfig, token_config
from . import reference
from . import triton_launch as launch

MAX_PROGRAMS = token_config(1).max_programs
DTYPES = {torch.float32, torch.bfloat16, torch.float16}


def partials(slot: Tensor) -> int:
    """Return the number of partial sums of a sample `[F, S, C]`: one for each program."""
    return max(1, min(slot.shape[2], MAX_PROGRAMS))


def takes(x: Sequence[Tensor], stored: Sequence[Tensor], strides: Sequence[int]) -> bool:
    """Return True if the kernel takes these tensors `[B, F, S, C]` and frame strides below F."""
    channels = x[0].shape[3]
    rows = all(channels <= 1 or tensor.stride(3) == 1 for tensor in (*x, *stored))
    dtypes = all(tensor.dtype in DTYPES for tensor in x) and all(
        tensor.dtype in DTYPES or tensor.dtype in reference.LARGEST for tensor in stored
    )
    if not (rows and dtypes and 0 < channels <= MAX_CHANNELS):
        return False
    vector = _vector([*stored, *x])
    elements = token_config(channels // vector).groups_per_thread * vector
    return max(strides, default=0) * elements <= RING_ELEMENTS


def quantized_update(
    slot: Tensor,
    scale: Tensor,
    x: Sequence[Tensor],
    previous: Sequence[Tensor],
    previous_scales: Sequence[Tensor | None],
    coefficients: Tensor | None,
    strides: Sequence[int],
    metric: str,
    slot_holds: str,
) -> Tensor:
    """Store the residual `[B, F, S, C]` in eight bits; return its sums `[B, P, columns]`.

    `x` is `(x_out,)` or `(x_out, x_in)`; the other arguments are those of `distance_update`.
    """
    batch, frames, tokens, channels = slot.shape
    programs = partials(slot)
    sums = slot.new_empty((batch, programs, 3 + 2 * len(strides)), dtype=torch.float32)
    if slot.numel() == 0:
        return sums.zero_()
    tensors = [slot, *x, *previous]
    vector = _vector(tensors)
    scales = previous_scales or [None] * len(previous)
    kernels = launch.kernels()
    views = [kernels.View(launch.as_bytes(t), *t.stride()[:3]) for t in tensors]
    with launch.on(slot):
        kernels.quantized_update_kernel[programs, batch](
            views[0],
            kernels.View(scale, *scale.stride()[:3]),
            views[1],
            views[2] if len(x) == 2 else None,
            tuple(views[1 + len(x) :]),
            tuple(None if s is None else kernels.View(s, *s.stride()[:3]) for s in scales),
            None if coefficients is None else coefficients.contiguous(),
            sums,
            frames,
            tokens,
            channels // vector,
            METRIC=metric,
            SLOT_HOLDS=slot_holds,
            **_compile_time(slot, vector, strides),
        )
    return sums


def _compile_time(slot: Tensor, vector: int, strides: Sequence[int]) -> dict[str, Any]:
    """Return the compile-time arguments that depend on the slot `[B, F, S, C]` and the strides."""
    config = token_config(slot.shape[3] // vector)
    return {
        "STRIDES": tuple(strides),
        "RING": max(strides, default=0),
        "GROUPS": config.groups,
        "VECTOR": vector,
        "LARGEST": reference.LARGEST[slot.dtype],
        # A fused multiply-add rounds once where the reference rounds twice.
        "enable_fp_fusion": False,
        **_threads(config),
    }


def _threads(config: TokenConfig) -> dict[str, int]:
    if torch.version.hip:
        return {"num_warps": max(1, config.num_warps // 2)}
    if config.num_warps < 16:
        return {"num_warps": config.num_warps}
    # Without a limit, ptxas stays at 64 registers and spills 16 bytes (5120 channels, sm_80).
    return {"num_warps": 16, "maxnreg": 128}


def _vector(tensors: Sequence[Tensor]) -> int:
    """Return the elements of a group, see `launch.vector`."""
    return launch.vector(
        list(tensors[0].shape), [list(tensor.stride()) for tensor in tensors], tensors
    )
