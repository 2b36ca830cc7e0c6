"""The torch ops of the package: their documentation and their checks.

On the CPU, an op runs the compiled code of ``csrc/``; on CUDA devices, it runs the Triton kernels
of ``kernels/``. On all other devices, and for arguments that these do not take, it runs
``reference.py``. The environment variable ``ADACACHE_BACKEND`` overrides this choice, see
``registration.py``. Every op works under ``torch.compile(fullgraph=True)`` and on meta tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import reference, registration
from .checks import (
    METRICS,
    SLOT_HOLDS,
    check_alike,
    check_choice,
    check_exactly,
    check_floating,
    check_matches,
    check_stored,
    check_writable,
)
from .decide_settings import DecideSettings, DecideStep, flatten
from .decision_state import SEQUENCES, State, StepState


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
    """Store a residual in its slot and return its distance and motion sums, in one pass.

    With the new residual ``p`` and the forecast ``c``::

        p = x_out - x_in;  c = sum_i coefficients[i] * r_i;  sums = f(c, p);  slot = p

    The op computes ``p`` in float32 and rounds it to the dtype of ``slot``. The sums are those of
    the rounded ``p``. They are accumulated in the same order in every run. The CPU adds eight terms
    in float32 and the rest in float64, within ``2**-21`` of the sum of the terms' magnitudes. A GPU
    adds in float32, first over the elements of a thread, then over the threads of a program.

    The terms ``r_i`` of the forecast are the residuals ``previous``, then the slot if it holds one.
    They are added in float32 from left to right. Without any term the first three sums are zero.

    A slot may have eight bits (int8 or float8_e4m3fn). Each token then gets a scale. With ``L`` =
    127 or 448, the largest number of the dtype::

        m = max(max_c |p_c|, 2**-100);  scale = m * (1 / L);  slot = round(p * (L / m))

    Rounding is to nearest, ties to even. The error of ``slot * scale`` is at most half a scale in
    int8, and ``max(|p| / 16, scale / 1024)`` in float8, times ``1 + 2**-13``. The sums are those of
    ``slot * scale``. All of a token becomes NaN if one of its elements is not finite.

    Args:
        slot: ``[B, F, S, C]``, written; floating-point, or int8 with a scale.
        x_out: ``[B, F, S, C]``, floating-point, the stream after the blocks.
        x_in: ``[B, F, S, C]``, floating-point, the stream before them; None if ``x_out`` is ``p``.
        previous: up to three stored residuals ``[B, F, S, C]``, eight bits allowed.
        coefficients: float32 ``[terms]``; None for at most one term, with the coefficient 1.
        strides: the frame strides of the motion sums, at least 1.
        metric: "l1", "l2" or "cosine".
        slot_holds: "previous" if the slot holds the oldest stored residual, which is then the last
            term; "nothing" if its content is undefined and not to be read.
        scale: float32 ``[B, F, S, 1]``, written; required for a slot of eight bits only.
        previous_scales: empty, or for each of ``previous`` None or its scale ``[B, F, S, 1]``;
            int8 needs one.

    Any strides of the tensors are allowed. float32, bfloat16 and float16 with contiguous channels
    are fast.

    Returns:
        float32 ``[B, P, 3 + 2 * len(strides)]`` with ``P`` partial sums, one on the CPU and one for
        each program on a GPU. Summed over ``P``, the first three columns are the distance sums:

        - ``l1``: ``sum|c - p|, sum|c|, 0``;
        - ``l2``: ``sum (c - p)^2, sum c^2, 0``;
        - ``cosine``: ``sum c * p, sum c^2, sum p^2``.

        Two columns follow for each frame stride ``s``, zero if ``s >= F``:
        ``sum|p[s:] - p[:-s]|, sum|p[s:]| + sum|p[:-s]|``.

    Raises:
        TypeError: a tensor has the wrong dtype, or ``scale`` is given for a slot of more bits.
        ValueError: shapes or devices differ; ``slot`` does not have 4 dimensions; a frame stride is
            below 1; ``metric`` or ``slot_holds`` is unknown; there are more than three
            ``previous``; ``coefficients`` does not have one element for each term; a scale is
            missing; elements of ``slot`` share memory, or it overlaps a tensor that is read.
    """
    scales = list(previous_scales) or [None] * len(previous)
    check_stored("slot", slot, "scale", scale, "slot", slot)
    _check_sources(slot, x_out, x_in, previous, scales)
    _check_written(slot, scale, slot_holds)
    if any(stride < 1 for stride in strides):
        raise ValueError(f"strides is {tuple(strides)}, expected frame strides of at least 1")
    check_choice("metric", metric, METRICS)
    terms = len(previous) + (slot_holds == "previous")
    if coefficients is not None:
        check_exactly("coefficients", coefficients, torch.float32, (terms,), slot.device)
    elif terms > 1:
        raise ValueError(f"coefficients is None, expected one for each of {terms} residuals")
    residuals = (slot, x_out, x_in, list(previous), coefficients)
    sums: Tensor = registration.call(
        "distance_update", *residuals, list(strides), metric, slot_holds, scale, scales
    )
    return sums


def residual_update(slot: Tensor, x_out: Tensor, x_in: Tensor) -> None:
    """Store the residual ``slot = x_out - x_in``.

    The op computes in float32 and rounds once to the dtype of ``slot``. Dtypes and strides of the
    tensors may differ.

    Args:
        slot: a floating-point tensor of any shape and more than eight bits, written.
        x_out: a floating-point tensor of that shape, the stream after the blocks.
        x_in: a floating-point tensor of that shape, the stream before them.

    Raises:
        TypeError: a tensor is not floating-point, or ``slot`` has eight bits.
        ValueError: shapes or devices differ; elements of ``slot`` share memory, or it overlaps a
            tensor that is read.
    """
    if slot.dtype in reference.LARGEST:
        raise TypeError(
            f"slot is {slot.dtype}, expected more than eight bits; use distance_update with a scale"
        )
    check_alike({"slot": slot, "x_out": x_out, "x_in": x_in})
    check_writable("slot", slot)
    registration.call("residual_update", slot, x_out, x_in)


def conditional_add(
    x: Tensor,
    residuals: Sequence[Tensor],
    coefficients: Tensor,
    flag: Tensor,
    scales: Sequence[Tensor | None] = (),
    out: Tensor | None = None,
) -> Tensor:
    """Return ``x + coefficients[0] * residuals[0] + ...`` if ``flag[0] != 0``, else ``x``.

    The op computes in float32 from left to right and rounds once to the dtype of ``x``. The device
    reads the flag and the coefficients; the host does not wait. Dtypes and strides may differ.

    Args:
        x: a floating-point tensor of any shape ``[..., C]``; not written unless it is ``out``.
        residuals: one to four tensors of that shape, floating-point or int8.
        coefficients: float32 ``[len(residuals)]``, on the device of ``x``.
        flag: int32 ``[1]``, on the device of ``x``.
        scales: empty, or for each residual None or float32 ``[..., 1]``, which multiplies its
            tokens; int8 needs one.
        out: the result, of the shape and dtype of ``x``, written. It may be ``x`` itself. None: a
            new contiguous tensor.

    Returns:
        ``out``.

    Raises:
        TypeError: a tensor has the wrong dtype.
        ValueError: shapes or devices differ; the number of residuals is not one to four; an int8
            residual has no scale; elements of ``out`` share memory; it overlaps a residual, a
            scale, or a part of ``x``.
    """
    if not 1 <= len(residuals) <= 4:
        raise ValueError(f"there are {len(residuals)} residuals, expected one to four")
    scales = list(scales) or [None] * len(residuals)
    if len(scales) != len(residuals):
        raise ValueError(f"there are {len(scales)} scales, expected one for each residual or none")
    check_alike({"x": x})
    for index, (residual, scale) in enumerate(zip(residuals, scales, strict=True)):
        check_stored(f"residuals[{index}]", residual, f"scales[{index}]", scale, "x", x)
    check_exactly("coefficients", coefficients, torch.float32, (len(residuals),), x.device)
    check_exactly("flag", flag, torch.int32, (1,), x.device)
    if out is None:
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
    check_exactly("out", out, x.dtype, tuple(x.shape), x.device)
    check_writable("out", out)
    registration.call("conditional_add", out, x, list(residuals), scales, coefficients, flag)
    return out


def decide(
    state: Tensor,
    sums: Tensor,
    codebook: Tensor,
    settings: DecideSettings,
    step: int,
    *,
    has_previous: bool = True,
    in_window: bool = False,
    sequence: int = 0,
    clock: Tensor | None = None,
    videos: int = 1,
    motions: Tensor | None = None,
) -> None:
    """Write distance, rate and next computed step to ``state``, all on its device.

    The batch has ``videos`` videos with equally many guidance rows: row ``r`` belongs to video
    ``r % videos``. With ``k = step - state[STEP]`` and ``s``, the sums of one location added up
    over the rows of one video and their partial sums::

        distance_l = s0 / s1 / k  |  sqrt(s0) / sqrt(s1) / k  |  (1 - s0 / sqrt(s1 * s2)) / k
        raw        = mean of distance_l over the locations
        motion     = mean of s[3 + 2i] / s[4 + 2i] over the frame strides, of the last location
        score      = (motion / moreg_a) ** moreg_b / moreg_d in the window, else 1
        gradient   = mograd_mul * (score - state[PREVIOUS_MOTION]) / k
        distance   = raw * (score + |gradient|) with apply_moreg, else raw

    The three forms of ``distance_l`` belong to the metrics l1, l2 and cosine. Of all videos::

        distance   = the largest ("any") or the mean ("mean") of the videos' distances
        rate       = the rate of the first threshold above the distance, or the last rate
        state[NEXT_STEP] = step + rate

    With "any", raw distance and score are those of the first video with the largest distance; with
    "mean", they are means.

    The rate is 1, and ``state[FLAGS]`` is a :class:`Flag`, in three cases: there is no previous
    residual, the distance of a video is not finite, or a denominator is zero. With "any", the first
    video with such a distance decides. A score that is not finite does not become
    ``PREVIOUS_MOTION``.

    Args:
        state: float32 ``[10]``, see :class:`State`; from :func:`new_state`, written.
        sums: float32 ``[locations, B, P, 3 + 2 * strides]``, the results of
            :func:`distance_update` stacked over the locations.
        codebook: float32 ``[2, n]``, the rising thresholds and their rates.
        settings: the constants of the formulas.
        step: the computed step, counted from 1.
        has_previous: False if no residual was stored before, so that the sums mean nothing.
        in_window: True if the step lies in the window of motion regularization.
        sequence: the sequence number of the decision, 0 to ``SEQUENCES - 1``; the state has it at
            both ends.
        clock: float32 ``[3]`` from :func:`begin_step`, in place of ``step``, ``has_previous`` and
            ``in_window``.
        videos: the number of videos in the batch.
        motions: float32 ``[videos]``, the previous motion scores in place of
            ``state[PREVIOUS_MOTION]``, written; ones before the first decision.

    Raises:
        TypeError: a tensor is not float32.
        ValueError: shapes or devices are wrong; ``videos`` does not divide the rows; several videos
            have ``apply_moreg`` and no ``motions``; ``apply_moreg`` in the window has no motion
            sums; ``sequence`` is out of range.
    """
    if sums.dim() != 4 or sums.shape[3] < 3 or sums.shape[3] % 2 == 0 or sums.shape[0] == 0:
        raise ValueError(
            f"sums has shape {tuple(sums.shape)}, expected [locations, batch, partials, 3 + 2 * "
            "strides]; stack the results of distance_update"
        )
    if codebook.dim() != 2 or codebook.shape[0] != 2 or codebook.shape[1] == 0:
        raise ValueError(
            f"codebook has shape {tuple(codebook.shape)}, expected [2, n]: thresholds, rates"
        )
    if has_previous and settings.apply_moreg and in_window and sums.shape[3] == 3:
        raise ValueError(
            "apply_moreg needs motion sums, but sums has none; give distance_update frame strides"
        )
    check_exactly("state", state, torch.float32, (len(State),), state.device)
    check_exactly("sums", sums, torch.float32, tuple(sums.shape), state.device)
    check_exactly("codebook", codebook, torch.float32, tuple(codebook.shape), state.device)
    if clock is not None:
        check_exactly("clock", clock, torch.float32, (len(StepState),), state.device)
    _check_videos(sums, videos, motions, settings.apply_moreg)
    if not 0 <= sequence < SEQUENCES:
        raise ValueError(f"sequence is {sequence}, expected 0 to {SEQUENCES - 1}")
    values = DecideStep(step, has_previous, in_window, sequence, clock, videos, motions)
    registration.call("decide", state, sums, codebook, *flatten(settings, values))


def begin_step(
    clock: Tensor, flags: Tensor, state: Tensor, reusable: tuple[int, int], window: tuple[int, int]
) -> None:
    """Advance ``clock`` by one step and write whether the step is computed, on the device.

    A step is reused if it lies in ``reusable`` and comes before ``state[NEXT_STEP]``, and computed
    otherwise.

    Args:
        clock: float32 ``[3]``, see :class:`StepState`; from :func:`new_step_state`, written.
        flags: int32 ``[2]``, written: 1 if the step is computed, 1 if it is reused; else 0.
        state: float32 ``[10]``, the state of :func:`decide`, read.
        reusable: the first and the last step that may be reused.
        window: the first and the last step in the window of motion regularization.

    Raises:
        TypeError: a tensor has another dtype.
        ValueError: a shape or device is wrong.
    """
    check_exactly("state", state, torch.float32, (len(State),), state.device)
    check_exactly("clock", clock, torch.float32, (len(StepState),), state.device)
    check_exactly("flags", flags, torch.int32, (2,), state.device)
    registration.call("begin_step", clock, flags, state, *reusable, *window)


def _check_written(slot: Tensor, scale: Tensor | None, slot_holds: str) -> None:
    """Check the slot `[B, F, S, C]` and the scale that `distance_update` writes."""
    check_writable("slot", slot)
    if slot.dtype in reference.LARGEST and scale is None:
        raise ValueError(f"slot is {slot.dtype}, expected a scale for it; pass scale")
    if scale is not None:
        if slot.dtype not in reference.LARGEST:
            raise TypeError(f"slot is {slot.dtype}, expected int8 or float8_e4m3fn with a scale")
        check_writable("scale", scale)
    check_choice("slot_holds", slot_holds, SLOT_HOLDS)


def _check_sources(
    slot: Tensor,
    x_out: Tensor,
    x_in: Tensor | None,
    previous: Sequence[Tensor],
    scales: Sequence[Tensor | None],
) -> None:
    """Check the tensors `[B, F, S, C]` that `distance_update` reads, against the slot."""
    for name, tensor in (("x_out", x_out), ("x_in", x_in)):
        if tensor is not None:
            check_floating(name, tensor)
            check_matches(name, tensor, "slot", slot)
    if len(scales) != len(previous):
        raise ValueError(
            f"there are {len(scales)} previous_scales, expected one for each previous or none"
        )
    for i, (tensor, scale) in enumerate(zip(previous, scales, strict=True)):
        check_stored(f"previous[{i}]", tensor, f"previous_scales[{i}]", scale, "slot", slot)
    if len(previous) > 3:
        raise ValueError(f"there are {len(previous)} previous residuals, expected at most three")
    if slot.dim() != 4:
        raise ValueError(
            f"slot has shape {tuple(slot.shape)}, expected 4 dimensions [batch, frames, tokens, "
            "channels]; view or permute it"
        )


def _check_videos(sums: Tensor, videos: int, motions: Tensor | None, apply_moreg: bool) -> None:
    """Check the videos against the rows of the sums `[locations, B, P, columns]`."""
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
