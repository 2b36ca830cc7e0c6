"""The torch ops of the package. This subpackage alone launches a kernel.

On the CPU an op runs the compiled code of ``csrc/``, on CUDA devices the Triton kernels of
``kernels/``; on every other device, and for what neither takes, ``reference.py``. The environment
variable ``ADACACHE_BACKEND`` overrides this, see ``library.py``. Every op works under
``torch.compile(fullgraph=True)`` and on meta tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import reference
from . import registration as library
from .checks import (
    check_alike,
    check_exactly,
    check_floating,
    check_place,
    check_stored,
    check_writable,
)
from .decision_state import (
    SEQUENCES,
    Flag,
    State,
    StepState,
    new_state,
    new_step_state,
    reset_state,
)

__all__ = [
    "BATCHES",
    "METRICS",
    "SEQUENCES",
    "SLOT_HOLDS",
    "Flag",
    "State",
    "StepState",
    "begin_step",
    "conditional_add",
    "decide",
    "distance_update",
    "new_state",
    "new_step_state",
    "reset_state",
    "residual_update",
]

METRICS = {"l1": 0, "l2": 1, "cosine": 2}
BATCHES = {"any": reference.ANY, "mean": reference.MEAN}
SLOT_HOLDS = {"nothing": reference.NOTHING, "previous": reference.PREVIOUS, "sum": reference.SUM}

library.register()


def distance_update(
    slot: Tensor,
    x_out: Tensor,
    x_in: Tensor | None = None,
    previous: Sequence[Tensor] = (),
    coefficients: Tensor | None = None,
    strides: Sequence[int] = (),
    metric: str = "l1",
    slot_holds: str = "previous",
    scale: Tensor | None = None,
    previous_scales: Sequence[Tensor | None] = (),
) -> Tensor:
    """``p = x_out - x_in; c = sum_i a_i * r_i; sums = f(c, p); slot = p`` in one pass.

    All tensors are ``[B, F, S, C]``: batch, frames, tokens of a frame, channels. ``p`` is computed
    in float32, without ``x_in`` it is ``x_out``, and rounded to the dtype of ``slot``; the sums are
    those of the rounded ``p``. What becomes of the old content of the slot, ``slot_holds`` says:

    - ``"previous"``: it is the oldest stored residual, and the last term of ``c``;
    - ``"nothing"``: it is undefined and not read;
    - ``"sum"``: what earlier blocks have added; ``p = slot + (x_out - x_in)``.

    ``c`` is what ``p`` is compared with: the residuals ``previous``, then the slot if it holds one,
    times the float32 ``coefficients`` on the same device, added in float32 from left to right. One
    residual needs no coefficient; ``coefficients=None`` then means 1. There are up to three
    ``previous``. With none at all, the first three sums are zeros.

    A slot may have eight bits, int8 or float8_e4m3fn, and then has a ``scale``, float32
    ``[B, F, S, 1]``, that is written as well: one for each token, with ``L`` 127 or 448, the
    largest number of the dtype::

        m = max(max_c |p_c|, 2**-100);  scale = m * (1 / L);  slot = round(p * (L / m))

    rounded to the nearest, ties to even, so that ``p`` is off by at most half a scale in int8, and
    by ``max(|p| / 16, scale / 1024)`` in float8, times ``1 + 2**-13``. The sums are those of
    ``slot * scale``. A token with an element that is not finite becomes NaN. ``previous`` may have
    eight bits, too: ``previous_scales`` is empty or has an entry for each, None or its scale, which
    int8 needs.

    The result is float32 ``[B, P, 3 + 2 * len(strides)]``: ``P`` partial sums, one on the CPU and
    one for each program on a GPU. The sum over ``P`` is

    - the distance:
      ``l1``: ``sum|c - p|, sum|c|, 0``;
      ``l2``: ``sum (c - p)^2, sum c^2, 0``;
      ``cosine``: ``sum c * p, sum c^2, sum p^2``;
    - then for each frame stride ``s``, zeros if ``s >= F``:
      ``sum|p[s:] - p[:-s]|, sum|p[s:]| + sum|p[:-s]|``.

    Sums are accumulated in the same order in every run. On the CPU eight terms are added in float32
    and then in float64, within ``2**-21`` of the sum of the magnitudes of the terms; on a GPU in
    float32 over the elements of one thread and then over the threads of a program. Any strides and
    floating dtypes are accepted; float32, bfloat16 and float16 with contiguous channels are fast.

    Raises:
        TypeError: a tensor of the wrong dtype.
        ValueError: shapes or devices that differ, not exactly 4 dimensions, a stride below 1, an
            unknown metric or ``slot_holds``, more than three ``previous``, coefficients that are
            not one for each residual, a scale that is missing or of no use, a sum in eight bits
            (each addition would round again), a slot whose elements share memory or that overlaps
            what is read.
    """
    check_stored("slot", slot, "scale", scale, "slot", slot)
    for name, tensor in (("x_out", x_out), ("x_in", x_in)):
        if tensor is not None:
            check_floating(name, tensor)
            check_place(name, tensor, "slot", slot)
    check_writable("slot", slot)
    if slot.dtype in reference.LARGEST and scale is None:
        raise ValueError(f"slot is {slot.dtype}, expected a scale for it; pass scale")
    if scale is not None:
        _check_written_scale(slot, scale, slot_holds)
    scales = list(previous_scales) or [None] * len(previous)
    if len(scales) != len(previous):
        raise ValueError(
            f"there are {len(scales)} previous_scales, expected one for each previous or none"
        )
    for i, (tensor, own) in enumerate(zip(previous, scales, strict=True)):
        check_stored(f"previous[{i}]", tensor, f"previous_scales[{i}]", own, "slot", slot)
    if slot.dim() != 4:
        raise ValueError(
            f"slot has shape {tuple(slot.shape)}, expected 4 dimensions [batch, frames, tokens, "
            "channels]; view or permute it"
        )
    if any(stride < 1 for stride in strides):
        raise ValueError(f"strides is {tuple(strides)}, expected frame strides of at least 1")
    if slot_holds not in SLOT_HOLDS:
        raise ValueError(
            f"slot_holds is {slot_holds!r}, expected one of {', '.join(map(repr, SLOT_HOLDS))}"
        )
    if len(previous) > 3:
        raise ValueError(f"there are {len(previous)} previous residuals, expected at most three")
    terms = len(previous) + (slot_holds == "previous")
    if coefficients is not None:
        check_exactly("coefficients", coefficients, torch.float32, (terms,), slot.device)
    elif terms > 1:
        raise ValueError(f"coefficients is None, expected one for each of {terms} residuals")
    sums: Tensor = library.call(
        "distance_update",
        slot,
        x_out,
        x_in,
        list(previous),
        coefficients,
        list(strides),
        _metric_index(metric),
        SLOT_HOLDS[slot_holds],
        scale,
        scales,
    )
    return sums


def residual_update(slot: Tensor, x_out: Tensor, x_in: Tensor, accumulate: bool = False) -> None:
    """``slot = x_out - x_in``, or ``slot = slot + (x_out - x_in)`` with ``accumulate``.

    Computed in float32 and rounded once to the dtype of ``slot``. The tensors have one shape and
    device; dtypes and strides may differ.

    Raises:
        TypeError: a tensor that is not floating point.
        ValueError: shapes or devices that differ, a slot whose elements share memory or that
            overlaps what is read.
    """
    if slot.dtype in reference.LARGEST:
        raise TypeError(
            f"slot is {slot.dtype}, expected more than eight bits; distance_update with a scale "
            "stores those"
        )
    check_alike({"slot": slot, "x_out": x_out, "x_in": x_in})
    check_writable("slot", slot)
    library.call("residual_update", slot, x_out, x_in, accumulate)


def conditional_add(
    x: Tensor,
    residuals: Sequence[Tensor],
    coefficients: Tensor,
    flag: Tensor,
    scales: Sequence[Tensor | None] = (),
) -> None:
    """``x = x + c_0 * r_0 + c_1 * r_1 + ...`` if ``flag[0] != 0``, else ``x`` stays as it is.

    Computed in float32 from left to right and rounded once to the dtype of ``x``. There are one to
    four residuals of the shape and device of ``x``; dtypes and strides may differ. ``coefficients``
    is float32 ``[len(residuals)]`` and ``flag`` int32 ``[1]``, both on the device of ``x``, so that
    the device alone decides.

    A residual may be stored in eight bits, and is then multiplied by its scale on the way: int8, or
    float8_e4m3fn, which may do without. ``scales`` is empty or has an entry for each residual:
    None, or float32 of the residual's shape but for one channel, one scale a token.

    Raises:
        TypeError: a tensor of the wrong dtype.
        ValueError: shapes or devices that differ, no or more than four residuals, an int8 residual
            without a scale, an ``x`` whose elements share memory or that overlaps a residual.
    """
    if not 1 <= len(residuals) <= 4:
        raise ValueError(f"there are {len(residuals)} residuals, expected one to four")
    scales = list(scales) or [None] * len(residuals)
    if len(scales) != len(residuals):
        raise ValueError(f"there are {len(scales)} scales, expected one for each residual or none")
    check_alike({"x": x})
    for index, (residual, scale) in enumerate(zip(residuals, scales, strict=True)):
        check_stored(f"residuals[{index}]", residual, f"scales[{index}]", scale, "x", x)
    check_writable("x", x)
    check_exactly("coefficients", coefficients, torch.float32, (len(residuals),), x.device)
    check_exactly("flag", flag, torch.int32, (1,), x.device)
    library.call("conditional_add", x, list(residuals), scales, coefficients, flag)


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
    sequence: int = 0,
    clock: Tensor | None = None,
    videos: int = 1,
    batch: str = "any",
    motions: Tensor | None = None,
) -> None:
    """``distance -> rate -> state[NEXT_STEP] = step + rate``, all on the device of ``state``.

    The batch is of ``videos``, and each has as many rows in it, those of guidance: row ``r`` is of
    video ``r % videos``. With ``k = step - state[STEP]`` and ``s`` the sums of one location over
    the rows of one video and their partials::

        distance_l = s0 / s1 / k  |  sqrt(s0) / sqrt(s1) / k  |  (1 - s0 / sqrt(s1 * s2)) / k
        raw        = mean of distance_l over the locations
        motion     = mean over the strides of s[3 + 2i] / s[4 + 2i], of the last location
        score      = (motion / moreg_a) ** moreg_b / moreg_d in the window, else 1
        gradient   = mograd_mul * (score - state[PREVIOUS_MOTION]) / k
        distance   = raw * (score + |gradient|) with apply_moreg, else raw

    and of the videos' distances, by ``batch``::

        distance   = the largest ("any"), or the mean ("mean")
        rate       = that of the first threshold above the distance, else the last rate

    ``state`` is float32 ``[10]``, see :class:`State`, and starts as :func:`new_state`. ``sums`` is
    float32 ``[locations, batch, partials, 3 + 2 * strides]`` as :func:`distance_update` returns it,
    stacked over the locations; ``codebook`` float32 ``[2, n]``: rising thresholds, their rates.
    ``sequence``, below 2^24, is recorded at both ends of the state. A ``clock`` as
    :func:`begin_step` keeps it stands for ``step``, ``has_previous`` and ``in_window``.

    Raw distance and score are recorded of the video whose distance decides, the first of several;
    with "mean" their means. Several videos keep their previous motion scores in ``motions``,
    float32 ``[videos]``, ones at first, instead of in ``state[PREVIOUS_MOTION]``.

    The rate is 1 and ``state[FLAGS]`` is a :class:`Flag` if there is no previous residual, if any
    video's distance is not finite, or if anything divided by is zero. With "any", the first video
    of which that is so then counts as the one that decides. A score that is not finite is recorded
    but does not become ``PREVIOUS_MOTION``.

    Raises:
        TypeError: a tensor that is not float32.
        ValueError: wrong shapes or devices, an unknown metric or ``batch``, ``videos`` that do not
            divide the rows, several videos with ``apply_moreg`` and no ``motions``, or
            ``apply_moreg`` in the window without sums for any stride.
    """
    if sums.dim() != 4 or sums.shape[3] < 3 or sums.shape[3] % 2 == 0 or sums.shape[0] == 0:
        raise ValueError(
            f"sums has shape {tuple(sums.shape)}, expected [locations, batch, partials, 3 + 2 * "
            "strides]; stack what distance_update returned"
        )
    if codebook.dim() != 2 or codebook.shape[0] != 2 or codebook.shape[1] == 0:
        raise ValueError(
            f"codebook has shape {tuple(codebook.shape)}, expected [2, n]: thresholds, rates"
        )
    if has_previous and apply_moreg and in_window and sums.shape[3] == 3:
        raise ValueError(
            "apply_moreg needs motion sums, but sums has none; give distance_update frame strides"
        )
    check_exactly("state", state, torch.float32, (len(State),), state.device)
    check_exactly("sums", sums, torch.float32, tuple(sums.shape), state.device)
    check_exactly("codebook", codebook, torch.float32, tuple(codebook.shape), state.device)
    if clock is not None:
        check_exactly("clock", clock, torch.float32, (len(StepState),), state.device)
    _check_videos(sums, videos, batch, motions, apply_moreg)
    if not 0 <= sequence < SEQUENCES:
        raise ValueError(f"sequence is {sequence}, expected 0 to {SEQUENCES - 1}")
    library.call(
        "decide",
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
        sequence,
        clock,
        videos,
        BATCHES[batch],
        motions,
    )


def begin_step(
    clock: Tensor, flags: Tensor, state: Tensor, reusable: tuple[int, int], window: tuple[int, int]
) -> None:
    """``step += 1; compute = step not in reusable or step >= state[NEXT_STEP]``, on the device.

    ``clock`` is float32 ``[3]``, see :class:`StepState`, and zero before the first step. ``flags``
    is int32 ``[2]``: 1 if the step is to be computed, and 1 if it is to be reused. ``state`` is
    that of :func:`decide`. The first and the last step of ``reusable``, and of ``window``, the
    steps in which motion is measured, belong to them.

    Raises:
        TypeError: a tensor of another dtype.
        ValueError: wrong shapes or devices.
    """
    check_exactly("state", state, torch.float32, (len(State),), state.device)
    check_exactly("clock", clock, torch.float32, (len(StepState),), state.device)
    check_exactly("flags", flags, torch.int32, (2,), state.device)
    library.call("begin_step", clock, flags, state, *reusable, *window)


def _metric_index(metric: str) -> int:
    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}, expected one of {', '.join(METRICS)}")
    return METRICS[metric]


def _check_videos(
    sums: Tensor, videos: int, batch: str, motions: Tensor | None, apply_moreg: bool
) -> None:
    if batch not in BATCHES:
        raise ValueError(f"batch is {batch!r}, expected one of {', '.join(map(repr, BATCHES))}")
    rows = sums.shape[1]
    if videos < 1 or rows % videos:
        raise ValueError(
            f"videos is {videos}, expected a number that divides the {rows} rows of the batch"
        )
    if motions is not None:
        check_exactly("motions", motions, torch.float32, (videos,), sums.device)
    elif videos > 1 and apply_moreg:
        raise ValueError(
            f"motions is None, expected the previous motion scores of {videos} videos; pass "
            f"torch.ones({videos}) at first"
        )


def _check_written_scale(slot: Tensor, scale: Tensor, slot_holds: str) -> None:
    if slot.dtype not in reference.LARGEST:
        raise TypeError(f"slot is {slot.dtype}, expected int8 or float8_e4m3fn with a scale")
    if slot_holds == "sum":
        raise ValueError(
            'slot_holds is "sum", expected "nothing" or "previous" with a slot of eight bits; add '
            "up in full precision and store the sum as x_out"
        )
    check_writable("scale", scale)
