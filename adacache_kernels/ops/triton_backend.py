"""The ops in Triton: the launches of the kernels of ``kernels/``.

No function here reads a value of a tensor. ``reference.py`` runs if Triton is missing, and for
arguments that the kernels do not take: float64, layouts of too many dimensions, frame strides
beyond ``MAX_STRIDE``, and exponents that are no whole numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..kernels.launch_config import MAX_STRIDE, Config, distance_config, elementwise_config
from . import reference, triton_quantized
from . import triton_launch as launch
from .cpu_backend import has_whole_power
from .decide_settings import DecideSettings, DecideStep
from .strided_layout import merge, pad

DTYPES = {torch.float32, torch.bfloat16, torch.float16}
STORED_DTYPES = DTYPES | {torch.int8, torch.float8_e4m3fn}
"""The dtypes of a residual that conditional_add adds; the other kernels do not convert float8."""
DECIDE_BLOCK = 1024
"""The partial sums that `decide` adds at once: 8 for each thread."""
MIN_ENTRIES = 16
"""The codebook size up to which all codebooks share one compiled kernel."""


def distance_update(
    slot: Tensor,
    x_out: Tensor,
    x_in: Tensor | None,
    previous: Sequence[Tensor],
    coefficients: Tensor | None,
    strides: Sequence[int],
    metric: str,
    slot_holds: str,
    scale: Tensor | None = None,
    previous_scales: Sequence[Tensor | None] = (),
) -> Tensor:
    """Store the residual `[B, F, S, C]`; return its sums `[B, P, 3 + 2 * strides]`."""
    frames = slot.shape[1]
    # Strides of F or more have no pair of frames; the kernel leaves the sums of stride 0 zero.
    reachable = tuple(stride if stride < frames else 0 for stride in strides)
    x = [x_out] if x_in is None else [x_out, x_in]
    is_quantized = scale is not None and triton_quantized.takes(x, [slot, *previous], reachable)
    if scale is not None and is_quantized and launch.has_triton():
        tensors = (slot, scale, x, previous, previous_scales, coefficients)
        return triton_quantized.quantized_update(*tensors, reachable, metric, slot_holds)
    count = partials(slot, strides)
    planes = _frame_planes([slot, *x, *previous], bool(strides))
    if planes is None or max(reachable, default=0) > MAX_STRIDE:
        options = (strides, metric, slot_holds, scale, previous_scales)
        sums = reference.distance_update(slot, x_out, x_in, previous, coefficients, *options)
        return torch.nn.functional.pad(sums, (0, 0, 0, count - 1))
    sums = slot.new_empty((slot.shape[0], count, 3 + 2 * len(strides)), dtype=torch.float32)
    if slot.numel() == 0:
        return sums.zero_()
    has_input = x_in is not None
    _launch_distance_update(
        slot, planes, has_input, coefficients, sums, reachable, metric, slot_holds
    )
    return sums


def _launch_distance_update(
    slot: Tensor,
    planes: Planes,
    has_input: bool,
    coefficients: Tensor | None,
    sums: Tensor,
    strides: Sequence[int],
    metric: str,
    slot_holds: str,
) -> None:
    """Launch the kernel on planes of the slot `[B, F, S, C]`, x_out, x_in and the previous ones."""
    config = _distance_config(slot, strides)
    view_of_slot, view_of_x_out, *views = planes.views
    view_of_x_in = views.pop(0) if has_input else None
    with launch.on(slot):
        launch.kernels().distance_update_kernel[sums.shape[1], slot.shape[0]](
            view_of_slot,
            view_of_x_out,
            view_of_x_in,
            tuple(views),
            None if coefficients is None else coefficients.contiguous(),
            sums,
            planes.sizes[1],
            planes.tiles(config, slot),
            *planes.groups,
            METRIC=metric,
            SLOT_HOLDS=slot_holds,
            STRIDES=tuple(strides),
            RING=max(strides, default=0),
            **planes.tile(config, slot),
        )


def partials(slot: Tensor, strides: Sequence[int]) -> int:
    """Return the partial sums of a sample of `slot` `[B, F, S, C]`: one for each program."""
    if slot.element_size() == 1:
        return triton_quantized.partials(slot)
    elements = _distance_config(slot, strides).elements(slot.element_size())
    tiles = -(-_columns(slot, strides) // elements)
    return max(1, min(tiles, _distance_config(slot, strides).max_programs))


def residual_update(slot: Tensor, x_out: Tensor, x_in: Tensor) -> None:
    """Store `x_out - x_in` in a slot of any shape."""
    planes = _planes(slot.shape, [slot, x_out, x_in])
    if planes is None:
        return reference.residual_update(slot, x_out, x_in)
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
            **planes.tile(config, slot),
        )


def conditional_add(
    out: Tensor,
    x: Tensor,
    residuals: Sequence[Tensor],
    scales: Sequence[Tensor | None],
    coefficients: Tensor,
    flag: Tensor,
) -> None:
    """Write `x` plus the residuals to `out`, or `x` without the flag. All have any one shape."""
    given_scales = [scale.expand(x.shape) for scale in scales if scale is not None]
    planes = _planes(x.shape, [out, x, *residuals], given_scales, STORED_DTYPES)
    if planes is None or x.dtype not in DTYPES:
        return reference.conditional_add(out, x, residuals, scales, coefficients, flag)
    if x.numel() == 0:
        return
    config = elementwise_config(x.element_size(), x.numel(), _architecture(x.device))
    tiles = planes.tiles(config, x)
    view_of_out, view_of_x, *views = planes.views
    views_of_scales = iter(views[len(residuals) :])
    with launch.on(x):
        launch.kernels().conditional_add_kernel[planes.count * tiles,](
            view_of_out,
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
    state: Tensor, sums: Tensor, codebook: Tensor, settings: DecideSettings, values: DecideStep
) -> None:
    """Write the decision about sums `[locations, B, P, columns]` to the state `[10]`."""
    states = [t for t in (state, values.clock, values.motions) if t is not None]
    is_contiguous = all(tensor.is_contiguous() for tensor in states)
    is_taken = has_whole_power(settings.moreg_b) and is_contiguous and sums.numel() > 0
    if not (is_taken and launch.has_triton()):
        return reference.decide(state, sums, codebook, settings, values)
    locations, rows, parts, columns = sums.shape
    entries = codebook.shape[1]
    with launch.on(state):
        launch.kernels().decide_kernel[1,](
            state,
            sums.contiguous(),
            codebook.contiguous(),
            values.clock,
            values.motions,
            rows // values.videos,
            values.videos,
            parts,
            locations,
            entries,
            values.sequence,
            values.step,
            int(values.has_previous),
            int(values.in_window),
            METRIC=settings.metric,
            MEAN=settings.batch == "mean",
            APPLY_MOREG=settings.apply_moreg,
            MOREG_A=settings.moreg_a,
            MOREG_B=int(settings.moreg_b),
            MOREG_D=settings.moreg_d,
            MOGRAD_MUL=settings.mograd_mul,
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
    """Advance the clock `[3]` and write the flags `[2]`: computed, reused."""
    bounds = (first_reusable, last_reusable, window_begin, window_end)
    is_taken = all(tensor.is_contiguous() for tensor in (clock, flags, state))
    if not (is_taken and launch.has_triton()):
        return reference.begin_step(clock, flags, state, *bounds)
    with launch.on(state):
        launch.kernels().begin_step_kernel[1,](clock, flags, state, *bounds, num_warps=1)


@dataclass(frozen=True)
class Planes:
    """Tensors of one shape as the kernels take them: planes of rows of groups of elements.

    Args:
        sizes: the sizes of the four dimensions.
        views: a `View` of each tensor.
        vector: the elements of a group; 1 if a tensor is not aligned.
    """

    sizes: list[int]
    views: list[Any]
    vector: int

    @property
    def count(self) -> int:
        """Return the number of planes, the index pairs of the first two dimensions."""
        return self.sizes[0] * self.sizes[1]

    @property
    def groups(self) -> tuple[int, int]:
        """Return the number of groups in a plane, and in a row."""
        groups_per_row = self.sizes[3] // self.vector
        return self.sizes[2] * groups_per_row, groups_per_row

    def tile(self, config: Config, x: Tensor) -> dict[str, Any]:
        """Return the compile-time arguments that all kernels have."""
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
        """Return the number of tiles of a plane."""
        rows = config.elements(x.element_size()) // self.vector
        return -(-self.groups[0] // rows)


def _frame_planes(tensors: Sequence[Tensor], walks_frames: bool) -> Planes | None:
    """Return the planes of tensors `[B, F, S, C]`: samples, frames, and the columns of a frame.

    Without `walks_frames`, frames may merge with columns. None: the kernels do not take them.
    """
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
    """Return the planes of tensors of any one shape, and of scales expanded to that shape.

    None: the kernels do not take them.
    """
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
    """Return the planes of tensors with these strides, or None if the kernels do not take them."""
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
    """Return the elements of a sample of `slot` `[B, F, S, C]` that its programs divide."""
    _, frames, tokens, channels = slot.shape
    return tokens * channels * (1 if strides else frames)


def _distance_config(slot: Tensor, strides: Sequence[int]) -> Config:
    architecture = _architecture(slot.device)
    return distance_config(slot.element_size(), _columns(slot, strides), architecture)


@functools.cache
def _architecture(device: torch.device) -> int:
    """Return the compute capability times ten; 90 if there is no such device from NVIDIA."""
    if device.type != "cuda" or torch.version.hip or not torch.cuda.is_available():
        return 90
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def _power_of_two(n: int) -> int:
    """Return the smallest power of two that is at least n."""
    return 1 << (max(n, 1) - 1).bit_length()
