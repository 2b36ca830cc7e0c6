"""The torch ops of the package: schemas, fakes, dispatch, and the only code that launches a kernel.

On the CPU an op runs the compiled code of ``csrc/``; on every other device, and for the dtypes and
layouts that the compiled code does not take, it runs ``reference.py``. Every op works under
``torch.compile(fullgraph=True)`` and on meta tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from . import _native, reference

METRICS = {"l1": 0, "l2": 1, "cosine": 2}


class State(IntEnum):
    """Where each value lies in the float32 state of :func:`decide`."""

    STEP = 0
    """The last computed step."""
    DISTANCE = 1
    """Its distance, motion regularisation included; NaN if there is none."""
    MOTION = 2
    """Its motion score; 1 outside the window."""
    RATE = 3
    """How many steps after it the next computed step comes."""
    NEXT_STEP = 4
    """The next computed step."""
    PREVIOUS_MOTION = 5
    """The motion score that the next one is compared with."""
    FLAGS = 6
    """0, or a :class:`Flag`: why there is no rate from the codebook."""
    RAW_DISTANCE = 7
    """The distance without motion regularisation."""


class Flag(IntEnum):
    """Why a computed step got the rate 1 without a look at the codebook."""

    NO_PREVIOUS = 1
    """No residual was stored before."""
    NOT_FINITE = 2
    """The distance is NaN or infinite."""
    ZERO_DENOMINATOR = 4
    """A sum that is divided by is zero, or the step does not come after the last computed one."""


def new_state(device: torch.device | str) -> Tensor:
    """The state at the start of a generation: no step computed yet, the first one is next."""
    return torch.tensor([0.0, torch.nan, 1.0, 1.0, 1.0, 1.0, 0.0, torch.nan], device=device)


def distance_update(
    slot: Tensor,
    x_out: Tensor,
    x_in: Tensor | None = None,
    strides: Sequence[int] = (),
    metric: str = "l1",
    has_previous: bool = True,
) -> Tensor:
    """``p = x_out - x_in; sums = f(slot, p); slot = p`` in one pass.

    All tensors are ``[B, F, S, C]``: batch, frames, tokens of a frame, channels. Without ``x_in``,
    ``p = x_out``. ``p`` is computed in float32 and rounded to the dtype of ``slot``; the sums are
    those of the rounded ``p``. With ``c`` the old content of ``slot``, which is not read if
    ``has_previous`` is false, the result is float32 ``[B, 3 + 2 * len(strides)]``:

    - the distance, zeros if ``has_previous`` is false:
      ``l1``: ``sum|c - p|, sum|c|, 0``;
      ``l2``: ``sum (c - p)^2, sum c^2, 0``;
      ``cosine``: ``sum c * p, sum c^2, sum p^2``;
    - then for each frame stride ``s``, zeros if ``s >= F``:
      ``sum|p[s:] - p[:-s]|, sum|p[s:]| + sum|p[:-s]|``.

    Sums are accumulated in float64, in the same order in every run. Any strides and floating
    dtypes are accepted; float32, bfloat16 and float16 with contiguous channels are fast.

    Raises:
        TypeError: a tensor that is not floating point.
        ValueError: shapes or devices that differ, not exactly 4 dimensions, a stride below 1, an
            unknown metric, or a slot whose elements share memory.
    """
    operands = {"slot": slot, "x_out": x_out} | ({} if x_in is None else {"x_in": x_in})
    _check_alike(operands)
    _check_writable("slot", slot)
    if slot.dim() != 4:
        raise ValueError(
            f"slot has shape {tuple(slot.shape)}, expected 4 dimensions [batch, frames, tokens, "
            "channels]; view or permute it"
        )
    if any(stride < 1 for stride in strides):
        raise ValueError(f"strides is {tuple(strides)}, expected frame strides of at least 1")
    sums: Tensor = torch.ops.adacache.distance_update.default(
        slot, x_out, x_in, list(strides), _metric_index(metric), has_previous
    )
    return sums


def residual_update(slot: Tensor, x_out: Tensor, x_in: Tensor, accumulate: bool = False) -> None:
    """``slot = x_out - x_in``, or ``slot = slot + (x_out - x_in)`` with ``accumulate``.

    Computed in float32 and rounded once to the dtype of ``slot``. The tensors have one shape and
    device; dtypes and strides may differ.

    Raises:
        TypeError: a tensor that is not floating point.
        ValueError: shapes or devices that differ, or a slot whose elements share memory.
    """
    _check_alike({"slot": slot, "x_out": x_out, "x_in": x_in})
    _check_writable("slot", slot)
    torch.ops.adacache.residual_update.default(slot, x_out, x_in, accumulate)


def conditional_add(
    x: Tensor, residuals: Sequence[Tensor], coefficients: Tensor, flag: Tensor
) -> None:
    """``x = x + c_0 * r_0 + c_1 * r_1 + ...`` if ``flag[0] != 0``, else ``x`` stays as it is.

    Computed in float32 from left to right and rounded once to the dtype of ``x``. There are one to
    three residuals of the shape and device of ``x``; dtypes and strides may differ.
    ``coefficients`` is float32 ``[len(residuals)]`` and ``flag`` int32 ``[1]``, both on the device
    of ``x``, so that the device alone decides.

    Raises:
        TypeError: a tensor of the wrong dtype.
        ValueError: shapes or devices that differ, no or more than three residuals, or an ``x``
            whose elements share memory.
    """
    if not 1 <= len(residuals) <= 3:
        raise ValueError(f"there are {len(residuals)} residuals, expected one to three")
    _check_alike({"x": x} | {f"residuals[{i}]": tensor for i, tensor in enumerate(residuals)})
    _check_writable("x", x)
    _check_exactly("coefficients", coefficients, torch.float32, (len(residuals),), x.device)
    _check_exactly("flag", flag, torch.int32, (1,), x.device)
    torch.ops.adacache.conditional_add.default(x, list(residuals), coefficients, flag)


def decide(
    state: Tensor,
    sums: Tensor,
    codebook: Tensor,
    step: int,
    metric: str = "l1",
    has_previous: bool = True,
    apply_moreg: bool = False,
    in_window: bool = False,
    moreg_a: float = 0.385,
    moreg_b: float = 8.0,
    moreg_d: float = 1.0,
    mograd_mul: float = 10.0,
) -> None:
    """``distance -> rate -> state[NEXT_STEP] = step + rate``, all on the device of ``state``.

    With ``k = step - state[STEP]`` and ``s`` the sums of one location over the batch::

        distance_l = s0 / s1 / k  |  sqrt(s0) / sqrt(s1) / k  |  (1 - s0 / sqrt(s1 * s2)) / k
        raw        = mean of distance_l over the locations
        motion     = mean over the strides of s[3 + 2i] / s[4 + 2i], of the last location
        score      = (motion / moreg_a) ** moreg_b / moreg_d in the window, else 1
        gradient   = mograd_mul * (score - state[PREVIOUS_MOTION]) / k
        distance   = raw * (score + |gradient|) with apply_moreg, else raw
        rate       = that of the first threshold above the distance, else the last rate

    ``state`` is float32 ``[8]``, see :class:`State`, and starts as :func:`new_state`. ``sums`` is
    float32 ``[locations, batch, 3 + 2 * strides]`` as :func:`distance_update` returns it, stacked
    over the locations; ``codebook`` float32 ``[2, n]``: rising thresholds, then their rates.

    The rate is 1 and ``state[FLAGS]`` is a :class:`Flag` if there is no previous residual, if the
    distance is not finite, or if something divided by is zero. A score that is not finite is
    recorded but does not become ``PREVIOUS_MOTION``.

    Raises:
        TypeError: a tensor that is not float32.
        ValueError: wrong shapes or devices, an unknown metric, or ``apply_moreg`` in the window
            without sums for any stride.
    """
    if sums.dim() != 3 or sums.shape[2] < 3 or sums.shape[2] % 2 == 0 or sums.shape[0] == 0:
        raise ValueError(
            f"sums has shape {tuple(sums.shape)}, expected [locations, batch, 3 + 2 * strides]; "
            "stack what distance_update returned"
        )
    if codebook.dim() != 2 or codebook.shape[0] != 2 or codebook.shape[1] == 0:
        raise ValueError(
            f"codebook has shape {tuple(codebook.shape)}, expected [2, n]: thresholds, rates"
        )
    if has_previous and apply_moreg and in_window and sums.shape[2] == 3:
        raise ValueError(
            "apply_moreg needs motion sums, but sums has none; give distance_update frame strides"
        )
    _check_exactly("state", state, torch.float32, (len(State),), state.device)
    _check_exactly("sums", sums, torch.float32, tuple(sums.shape), state.device)
    _check_exactly("codebook", codebook, torch.float32, tuple(codebook.shape), state.device)
    torch.ops.adacache.decide.default(
        state,
        sums,
        codebook,
        step,
        _metric_index(metric),
        has_previous,
        apply_moreg,
        in_window,
        moreg_a,
        moreg_b,
        moreg_d,
        mograd_mul,
    )


def _metric_index(metric: str) -> int:
    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}, expected one of {', '.join(METRICS)}")
    return METRICS[metric]


def _check_alike(tensors: dict[str, Tensor]) -> None:
    (first_name, first), *_ = tensors.items()
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise TypeError(f"{name} is {tensor.dtype}, expected a floating-point dtype")
        if tensor.shape != first.shape:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, expected that of {first_name}, "
                f"{tuple(first.shape)}"
            )
        if tensor.device != first.device:
            raise ValueError(
                f"{name} is on {tensor.device}, expected the device of {first_name}, {first.device}"
            )


def _check_exactly(
    name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...], device: torch.device
) -> None:
    if tensor.dtype != dtype:
        raise TypeError(f"{name} is {tensor.dtype}, expected {dtype}")
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")
    if tensor.device != device:
        raise ValueError(f"{name} is on {tensor.device}, expected {device}; move it there")


def _check_writable(name: str, tensor: Tensor) -> None:
    """An expanded tensor has many elements in one place: an in-place op on it has no meaning."""
    sizes_and_strides = zip(tensor.shape, tensor.stride(), strict=True)
    if any(size > 1 and stride == 0 for size, stride in sizes_and_strides):
        raise ValueError(f"{name} is expanded, its elements share memory; clone it first")


def _distance_update_cpu(
    slot: Tensor,
    x_out: Tensor,
    x_in: Tensor | None,
    strides: Sequence[int],
    metric: int,
    has_previous: bool,
) -> Tensor:
    if not _native.takes(slot, x_out, *(() if x_in is None else (x_in,))):
        return reference.distance_update(slot, x_out, x_in, strides, metric, has_previous)
    sums = torch.empty((slot.shape[0], 3 + 2 * len(strides)), dtype=torch.float32)
    _native.module().distance_update(
        _native.view(slot),
        _native.view(x_out),
        None if x_in is None else _native.view(x_in),
        strides,
        metric,
        has_previous,
        sums.data_ptr(),
    )
    return sums


def _residual_update_cpu(slot: Tensor, x_out: Tensor, x_in: Tensor, accumulate: bool) -> None:
    if not _native.takes(slot, x_out, x_in):
        return reference.residual_update(slot, x_out, x_in, accumulate)
    slot_view, out_view, in_view = map(_native.view, (slot, x_out, x_in))
    _native.module().residual_update(slot_view, out_view, in_view, accumulate)


def _conditional_add_cpu(
    x: Tensor, residuals: Sequence[Tensor], coefficients: Tensor, flag: Tensor
) -> None:
    if not _native.takes(x, *residuals, coefficients):
        return reference.conditional_add(x, residuals, coefficients, flag)
    _native.module().conditional_add(
        _native.view(x),
        [_native.view(residual) for residual in residuals],
        coefficients.data_ptr(),
        flag.data_ptr(),
    )


def _decide_cpu(
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
) -> None:
    moreg = (moreg_a, moreg_b, moreg_d, mograd_mul)
    if not (_has_native_power(moreg_b) and _native.takes(state)):
        return reference.decide(
            state,
            sums,
            codebook,
            step,
            metric,
            has_previous,
            apply_moreg,
            in_window,
            *moreg,
        )
    sums, codebook = sums.contiguous(), codebook.contiguous()
    _native.module().decide(
        state.data_ptr(),
        sums.data_ptr(),
        sums.shape,
        codebook.data_ptr(),
        codebook.shape[1],
        step,
        metric,
        has_previous,
        apply_moreg,
        in_window,
        moreg_a,
        int(moreg_b),
        moreg_d,
        mograd_mul,
    )


def _has_native_power(exponent: float) -> bool:
    """The compiled code multiplies; it does without pow, and so without libm."""
    return exponent.is_integer() and abs(exponent) <= 64


def _distance_update_fake(
    slot: Tensor,
    x_out: Tensor,
    x_in: Tensor | None,
    strides: Sequence[int],
    metric: int,
    has_previous: bool,
) -> Tensor:
    return slot.new_empty((slot.shape[0], 3 + 2 * len(strides)), dtype=torch.float32)


def _no_result_fake(*arguments: object) -> None:
    pass


_SCHEMAS = {
    "distance_update": "(Tensor(a!) slot, Tensor x_out, Tensor? x_in, int[] strides, int metric, "
    "bool has_previous) -> Tensor",
    "residual_update": "(Tensor(a!) slot, Tensor x_out, Tensor x_in, bool accumulate) -> ()",
    "conditional_add": "(Tensor(a!) x, Tensor[] residuals, Tensor coefficients, Tensor flag) -> ()",
    "decide": "(Tensor(a!) state, Tensor sums, Tensor codebook, int step, int metric, "
    "bool has_previous, bool apply_moreg, bool in_window, float moreg_a, float moreg_b, "
    "float moreg_d, float mograd_mul) -> ()",
}

_ON_CPU: dict[str, Callable[..., Tensor | None]] = {
    "distance_update": _distance_update_cpu,
    "residual_update": _residual_update_cpu,
    "conditional_add": _conditional_add_cpu,
    "decide": _decide_cpu,
}


def _register() -> object:
    make_library: Any = torch.library.Library  # Any: torch has not annotated its methods.
    # define and impl, not the decorators of torch.library: those cost five times as much per call.
    library = make_library("adacache", "DEF")
    for name, schema in _SCHEMAS.items():
        library.define(name + schema)
        library.impl(name, _ON_CPU[name], "CPU")
        library.impl(name, getattr(reference, name), "CompositeExplicitAutograd")
        fake = _distance_update_fake if name == "distance_update" else _no_result_fake
        torch.library.register_fake(f"adacache::{name}", fake, lib=library)
    return library


_LIBRARY = _register()  # The ops are gone when the library is.
