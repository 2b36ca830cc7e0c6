"""The ops in Triton: how the kernels of ``kernels/`` are launched.

Nothing here reads a value of a tensor. What the kernels do not take, ``reference.py`` does:
float64, layouts of more dimensions than they have, frame strides beyond ``MAX_STRIDE``, powers that
are no whole numbers, and everything where Triton is missing.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..kernels.launch_config import MAX_STRIDE, Config, distance_config, elementwise_config
from . import reference
from . import triton_launch as launch
from . import triton_quantized as gpu_tokens
from .cpu_backend import has_whole_power
from .strided_layout import merge, pad

METRICS = ("l1", "l2", "cosine")
SLOT_HOLDS = ("nothing", "previous", "sum")
DTYPES = {torch.float32, torch.bfloat16, torch.float16}
STORED_DTYPES = DTYPES | {torch.int8, torch.float8_e4m3fn}
"""Those of a residual that conditional_add adds; the other kernels would take float8 for uint8."""
DECIDE_BLOCK = 1024  # Partial sums that are added at once: 8 a thread.
MIN_ENTRIES = 16  # One compiled kernel for every codebook up to this size.


def distance_update(
    slot: Tensor,
    x_out: Tensor,
    x_in: Tensor | None,
    previous: Sequence[Tensor],
    coefficients: Tensor | None,
    strides: Sequence[int],
    metric: int,
    slot_holds: int,
    scale: Tensor | None = None,
    previous_scales: Sequence[Tensor | None] = (),
) -> Tensor:
    frames = slot.shape[1]
    shape = (slot.shape[0], partials(slot, strides), 3 + 2 * len(strides))
    # No two frames are that far apart; the kernel leaves the sums of stride 0 at zero.
    strides_in_reach = tuple(stride if stride < frames else 0 for stride in strides)
    x = [x_out] if x_in is None else [x_out, x_in]
    in_tokens = scale is not None and gpu_tokens.takes(x, [slot, *previous], strides_in_reach)
    if scale is not None and in_tokens and launch.has_triton():
        operands = (slot, scale, x, previous, previous_scales, coefficients)
        return gpu_tokens.quantized_update(
            *operands, strides_in_reach, METRICS[metric], SLOT_HOLDS[slot_holds]
        )
    planes = _frame_planes([slot, *x, *previous], bool(strides))
    is_out_of_reach = max(strides_in_reach, default=0) > MAX_STRIDE
    if planes is None or is_out_of_reach or not launch.has_triton():
        where_to = (slot, x_out, x_in, previous, coefficients)
        how = (strides, metric, slot_holds, scale, previous_scales)
        sums = reference.distance_update(*where_to, *how)
        return torch.cat([sums, sums.new_zeros(shape[0], shape[1] - 1, shape[2])], dim=1)
    sums = slot.new_empty(shape, dtype=torch.float32)
    if slot.numel() == 0:
        return sums.zero_()
    config = _distance_config(slot, strides)
    view_of_slot, view_of_x_out, *views = planes.views
    view_of_x_in = None if x_in is None else views.pop(0)
    with launch.on(slot):
        launch.kernels().distance_update_kernel[shape[1], shape[0]](
            view_of_slot,
            view_of_x_out,
            view_of_x_in,
            tuple(views),
            None if coefficients is None else coefficients.contiguous(),
            sums,
            planes.sizes[1],
            planes.tiles(config, slot),
            *planes.groups,
            METRIC=METRICS[metric],
            SLOT_HOLDS=SLOT_HOLDS[slot_holds],
            STRIDES=strides_in_reach,
            RING=max(strides_in_reach, default=0),
            **planes.tile(config, slot),
        )
    return sums


def partials(slot: Tensor, strides: Sequence[int]) -> int:
    """How many partial sums `distance_update` makes of a sample: one a program."""
    if slot.element_size() == 1:
        return gpu_tokens.partials(slot)
    elements = _distance_config(slot, strides).elements(slot.element_size())
    tiles = -(-_columns(slot, strides) // elements)
    return max(1, min(tiles, _distance_config(slot, strides).max_programs))


def residual_update(slot: Tensor, x_out: Tensor, x_in: Tensor, accumulate: bool) -> None:
    planes = _planes(slot.shape, [slot, x_out, x_in])
    if planes is None or not launch.has_triton():
        return reference.residual_update(slot, x_out, x_in, accumulate)
    if slot.numel() == 0:
        return
    config = elementwise_config(slot.element_size(), slot.numel(), _architecture(slot.device))
    tiles = planes.tiles(config, slot)
    with launch.on(slot):
        launch.kernels().residual_update_kernel[planes.count * tiles,](
            *planes.views,
            planes.sizes[1],
            tiles,
            *planes.groups,
            ACCUMULATE=accumulate,
            **planes.tile(config, slot),
        )


def conditional_add(
    x: Tensor,
    residuals: Sequence[Tensor],
    scales: Sequence[Tensor | None],
    coefficients: Tensor,
    flag: Tensor,
) -> None:
    given_scales = [scale.expand(x.shape) for scale in scales if scale is not None]
    planes = _planes(x.shape, [x, *residuals], given_scales, STORED_DTYPES)
    if planes is None or x.dtype not in DTYPES or not launch.has_triton():
        return reference.conditional_add(x, residuals, scales, coefficients, flag)
    if x.numel() == 0:
        return
    config = elementwise_config(x.element_size(), x.numel(), _architecture(x.device))
    tiles = planes.tiles(config, x)
    view_of_x, *views = planes.views
    views_of_scales = iter(views[len(residuals) :])
    with launch.on(x):
        launch.kernels().conditional_add_kernel[planes.count * tiles,](
            view_of_x,
            tuple(views[: len(residuals)]),
            tuple(None if scale is None else next(views_of_scales) for scale in scales),
            coefficients.contiguous(),
            flag,
            planes.sizes[1],
            tiles,
            *planes.groups,
            **planes.tile(config, x),
        )


def decide(
    state: Tensor,
    sums: Tensor,
    codebook: Tensor,
    step: int,
    metric: int,
    has_previous: bool,
    apply_moreg: bool,
    in_window: bool,
    moreg_a: float,
    moreg_b: float,
    moreg_d: float,
    mograd_mul: float,
    sequence: int = 0,
    clock: Tensor | None = None,
    videos: int = 1,
    batch: int = 0,
    motions: Tensor | None = None,
) -> None:
    states = [tensor for tensor in (state, motions) if tensor is not None]
    is_contiguous = all(tensor.is_contiguous() for tensor in states)
    is_taken = has_whole_power(moreg_b) and is_contiguous and sums.numel() > 0
    if not (is_taken and launch.has_triton()):
        flags = (has_previous, apply_moreg, in_window)
        moreg = (moreg_a, moreg_b, moreg_d, mograd_mul)
        how = (step, metric, *flags, *moreg, sequence, clock, videos, batch, motions)
        return reference.decide(state, sums, codebook, *how)
    locations, rows, parts, columns = sums.shape
    entries = codebook.shape[1]
    with launch.on(state):
        launch.kernels().decide_kernel[1,](
            state,
            sums.contiguous(),
            codebook.contiguous(),
            clock,
            motions,
            rows // videos,
            videos,
            parts,
            locations,
            entries,
            sequence,
            step,
            int(has_previous),
            int(in_window),
            METRIC=METRICS[metric],
            MEAN=batch == reference.MEAN,
            APPLY_MOREG=apply_moreg,
            MOREG_A=moreg_a,
            MOREG_B=int(moreg_b),
            MOREG_D=moreg_d,
            MOGRAD_MUL=mograd_mul,
            COLUMNS=columns,
            BLOCK=DECIDE_BLOCK,
            ENTRIES=max(MIN_ENTRIES, _power_of_two(entries)),
            num_warps=4,
            enable_fp_fusion=False,
        )


def begin_step(
    clock: Tensor,
    flags: Tensor,
    state: Tensor,
    first_reusable: int,
    last_reusable: int,
    window_begin: int,
    window_end: int,
) -> None:
    bounds = (first_reusable, last_reusable, window_begin, window_end)
    is_taken = all(tensor.is_contiguous() for tensor in (clock, flags, state))
    if not (is_taken and launch.has_triton()):
        return reference.begin_step(clock, flags, state, *bounds)
    with launch.on(state):
        launch.kernels().begin_step_kernel[1,](clock, flags, state, *bounds, num_warps=1)


@dataclass(frozen=True)
class Planes:
    """Tensors of one shape as the kernels take them.

    Args:
        sizes: of the four dimensions.
        views: of the tensors.
        vector: elements of a group, 1 where something is not aligned.
    """

    sizes: list[int]
    views: list[Any]
    vector: int

    @property
    def count(self) -> int:
        """Planes: pairs of places in the first two dimensions."""
        return self.sizes[0] * self.sizes[1]

    @property
    def groups(self) -> tuple[int, int]:
        """In the last two dimensions, and in the last."""
        groups_per_row = self.sizes[3] // self.vector
        return self.sizes[2] * groups_per_row, groups_per_row

    def tile(self, config: Config, x: Tensor) -> dict[str, Any]:
        """What all kernels are compiled for."""
        kernels = launch.kernels()
        rows = config.elements(x.element_size()) // self.vector
        warps = config.num_warps // 2 if torch.version.hip else config.num_warps
        return {
            "ROWS": rows,
            "VECTOR": self.vector,
            "INDEX": kernels.int32 if self.groups[0] + rows < 2**31 else kernels.int64,
            "num_warps": warps,
            # A fused multiply-add rounds once where the reference rounds twice.
            "enable_fp_fusion": False,
        }

    def tiles(self, config: Config, x: Tensor) -> int:
        """Tiles of the last two dimensions."""
        rows = config.elements(x.element_size()) // self.vector
        return -(-self.groups[0] // rows)


def _frame_planes(tensors: Sequence[Tensor], walks_frames: bool) -> Planes | None:
    """Of tensors [B, F, S, C]: samples, frames, and the columns that a program walks along."""
    batch, frames, *columns = tensors[0].shape
    strides = [tensor.stride() for tensor in tensors]
    sizes, merged = merge(tensors[0].shape[1:], [stride[1:] for stride in strides])
    if walks_frames or len(sizes) > 2 or any(stride[-1] != 1 for stride in merged):
        sizes, merged = merge(columns, [stride[2:] for stride in strides])
        pad(sizes, merged, 2)
        sizes.insert(0, frames)
        for stride, whole in zip(merged, strides, strict=True):
            stride.insert(0, whole[1])
    pad(sizes, merged, 3)
    for stride, whole in zip(merged, strides, strict=True):
        stride.insert(0, whole[0])
    return _as_planes([batch, *sizes], merged, tensors, [], DTYPES)


def _planes(
    shape: Sequence[int],
    tensors: Sequence[Tensor],
    scales: Sequence[Tensor] = (),
    dtypes: Collection[torch.dtype] = DTYPES,
) -> Planes | None:
    """Of tensors of any shape, and of scales that are expanded along the channels."""
    sizes, strides = merge(shape, [tensor.stride() for tensor in (*tensors, *scales)])
    if any(stride[-1] != 1 for stride in strides[: len(tensors)]):
        sizes.append(1)
        for stride in strides:
            stride.append(1)
    pad(sizes, strides, 4)
    return _as_planes(sizes, strides, tensors, scales, dtypes)


def _as_planes(
    sizes: list[int],
    strides: list[list[int]],
    tensors: Sequence[Tensor],
    scales: Sequence[Tensor],
    dtypes: Collection[torch.dtype],
) -> Planes | None:
    """None if the kernels do not take them."""
    contiguous = sizes[-1] == 1 or all(stride[-1] == 1 for stride in strides[: len(tensors)])
    if len(sizes) > 4 or not contiguous or any(tensor.dtype not in dtypes for tensor in tensors):
        return None
    if not launch.has_triton():
        return None
    vector = launch.vector(sizes, strides, tensors)
    views = [
        launch.kernels().View(launch.as_bytes(tensor), *stride[:3])
        for tensor, stride in zip((*tensors, *scales), strides, strict=True)
    ]
    return Planes(sizes, views, vector)


def _columns(slot: Tensor, strides: Sequence[int]) -> int:
    """Elements of a sample that the programs share among themselves."""
    _, frames, tokens, channels = slot.shape
    return tokens * channels * (1 if strides else frames)


def _distance_config(slot: Tensor, strides: Sequence[int]) -> Config:
    architecture = _architecture(slot.device)
    return distance_config(slot.element_size(), _columns(slot, strides), architecture)


@functools.cache
def _architecture(device: torch.device) -> int:
    """Compute capability times ten; 90 for a device that is not there, or not from NVIDIA."""
    if device.type != "cuda" or torch.version.hip or not torch.cuda.is_available():
        return 90
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def _power_of_two(n: int) -> int:
    """The smallest that is not below n."""
    return 1 << (max(n, 1) - 1).bit_length()
