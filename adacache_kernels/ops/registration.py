"""Schemas, fakes and dispatch of the ops.

``ADACACHE_BACKEND`` says what runs, for tests and for the search of a fault:

- ``auto``, the default: compiled code for CPU tensors, Triton for CUDA tensors;
- ``triton``: Triton for CPU tensors as well, which needs a Triton driver that takes them;
- ``reference``: plain torch everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from . import cpu_backend as cpu
from . import reference
from . import triton_backend as gpu
from .checks import check_apart

BACKENDS = ("auto", "triton", "reference")

SCHEMAS = {
    "distance_update": "(Tensor(a!) slot, Tensor x_out, Tensor? x_in, Tensor[] previous, "
    "Tensor? coefficients, int[] strides, int metric, int slot_holds, Tensor(b!)? scale, "
    "Tensor?[] previous_scales) -> Tensor",
    "residual_update": "(Tensor(a!) slot, Tensor x_out, Tensor x_in, bool accumulate) -> ()",
    "conditional_add": "(Tensor(a!) x, Tensor[] residuals, Tensor?[] scales, Tensor coefficients, "
    "Tensor flag) -> ()",
    "decide": "(Tensor(a!) state, Tensor sums, Tensor codebook, int step, int metric, "
    "bool has_previous, bool apply_moreg, bool in_window, float moreg_a, float moreg_b, "
    "float moreg_d, float mograd_mul, int sequence=0, Tensor? clock=None, "
    "int videos=1, int batch=0, Tensor(b!)? motions=None) -> ()",
    "begin_step": "(Tensor(a!) clock, Tensor(b!) flags, Tensor state, int first_reusable, "
    "int last_reusable, int window_begin, int window_end) -> ()",
}

_direct: dict[tuple[str, str], Callable[..., Tensor | None]] = {}
_libraries: list[object] = []  # The ops are gone when their library is.


def register() -> None:
    """Make the ops known to torch, once in a process."""
    if _libraries:
        return
    make_library: Any = torch.library.Library  # Any: torch has not annotated its methods.
    # define and impl, not the decorators of torch.library: those cost five times as much per call.
    library = make_library("adacache", "DEF")
    for name, schema in SCHEMAS.items():
        library.define(name + schema)
        _direct[name, "cpu"] = _dispatch(name, getattr(cpu, name))
        _direct[name, "cuda"] = _dispatch(name, getattr(gpu, name))
        library.impl(name, _direct[name, "cpu"], "CPU")
        library.impl(name, _direct[name, "cuda"], "CUDA")
        library.impl(name, getattr(reference, name), "CompositeExplicitAutograd")
        fake = _distance_update_fake if name == "distance_update" else _no_result_fake
        torch.library.register_fake(f"adacache::{name}", fake, lib=library)
    _libraries.append(library)


def call(name: str, first: Tensor, *others: Any) -> Any:
    """The op of that name, past torch's dispatcher where nobody listens to it.

    On a CPU the dispatcher costs 26 us a call, of which the compiled code is 17 for 256 KiB.
    """
    direct = _direct.get((name, first.device.type))
    if direct is None or is_watched() or type(first) is not Tensor:
        return getattr(torch.ops.adacache, name).default(first, *others)
    return direct(first, *others)


def is_watched() -> bool:
    """Whether a graph is traced, gradients are recorded, or a mode wants to see every op."""
    return (
        torch.compiler.is_compiling()
        or torch.is_grad_enabled()
        or _get_current_dispatch_mode() is not None
    )


def backend() -> str:
    """What ``ADACACHE_BACKEND`` asks for.

    Raises:
        ValueError: it is none of the three.
    """
    value = os.environ.get("ADACACHE_BACKEND") or "auto"
    if value not in BACKENDS:
        raise ValueError(f"ADACACHE_BACKEND is {value!r}, expected one of {', '.join(BACKENDS)}")
    return value


def _dispatch(name: str, native: Callable[..., Tensor | None]) -> Callable[..., Tensor | None]:
    """The op of that name, as the environment has it; nothing is written where memory overlaps."""
    alternatives: dict[str, Callable[..., Tensor | None]] = {
        "auto": native,
        "triton": getattr(gpu, name),
        "reference": getattr(reference, name),
    }

    def run(*arguments: Any) -> Tensor | None:
        for written, tensor, read in _written_and_read(name, arguments):
            check_apart(written, tensor, read)
        return alternatives[backend()](*arguments)

    return run


def _written_and_read(
    name: str, arguments: Sequence[Any]
) -> list[tuple[str, Tensor, list[tuple[str, Tensor]]]]:
    """Each tensor that the op writes, and what must lie apart from it."""
    if name in ("decide", "begin_step"):
        return []
    if name == "conditional_add":
        x, residuals, scales, *_ = arguments
        return [("x", x, [*_named("residuals", residuals), *_named("scales", scales)])]
    slot, x_out, x_in, *rest = arguments
    read = [("x_out", x_out)] if x_in is None else [("x_out", x_out), ("x_in", x_in)]
    if name == "residual_update":
        return [("slot", slot, read)]
    previous, *_, scale, previous_scales = rest
    read += [*_named("previous", previous), *_named("previous_scales", previous_scales)]
    if scale is None:
        return [("slot", slot, read)]
    return [("slot", slot, [*read, ("scale", scale)]), ("scale", scale, read)]


def _named(name: str, tensors: Sequence[Tensor | None]) -> list[tuple[str, Tensor]]:
    return [(f"{name}[{i}]", tensor) for i, tensor in enumerate(tensors) if tensor is not None]


def _distance_update_fake(
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
    on_triton = {"auto": slot.device.type == "cuda", "triton": slot.device.type != "meta"}
    partials = gpu.partials(slot, strides) if on_triton.get(backend()) else 1
    return slot.new_empty((slot.shape[0], partials, 3 + 2 * len(strides)), dtype=torch.float32)


def _no_result_fake(*arguments: object) -> None:
    pass
