"""The registration of the ops with torch: schemas, fakes and dispatch.

The environment variable ``ADACACHE_BACKEND`` selects the backend, for tests and for debugging:

- ``auto``, the default: compiled code for CPU tensors, Triton for CUDA tensors;
- ``triton``: Triton for CPU tensors as well, which needs a Triton driver that takes them;
- ``reference``: plain torch everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from . import cpu_backend, reference, triton_backend
from .checks import check_apart, is_same_memory
from .decide_settings import FLAT_SCHEMA, unflatten

BACKENDS = ("auto", "triton", "reference")

SCHEMAS = {
    "distance_update": "(Tensor(a!) slot, Tensor x_out, Tensor? x_in, Tensor[] previous, "
    "Tensor? coefficients, int[] strides, str metric, str slot_holds, Tensor(b!)? scale, "
    "Tensor?[] previous_scales) -> Tensor",
    "residual_update": "(Tensor(a!) slot, Tensor x_out, Tensor x_in) -> ()",
    "conditional_add": "(Tensor(a!) out, Tensor x, Tensor[] residuals, Tensor?[] scales, "
    "Tensor coefficients, Tensor flag) -> ()",
    "decide": f"(Tensor(a!) state, Tensor sums, Tensor codebook, {FLAT_SCHEMA}) -> ()",
    "begin_step": "(Tensor(a!) clock, Tensor(b!) flags, Tensor state, int first_reusable, "
    "int last_reusable, int window_begin, int window_end) -> ()",
}

Function = Callable[..., Tensor | None]

_direct: dict[tuple[str, str], Function] = {}
_libraries: list[object] = []  # torch removes the ops when it deletes their library.


def register() -> None:
    """Register the ops with torch; later calls do nothing."""
    if _libraries:
        return
    make_library: Any = torch.library.Library  # Any: torch has not annotated its methods.
    # The decorators of torch.library cost five times as much per call as define and impl.
    library = make_library("adacache", "DEF")
    for name, schema in SCHEMAS.items():
        library.define(name + schema)
        for device, backend_module in (("cpu", cpu_backend), ("cuda", triton_backend)):
            _direct[name, device] = _dispatch(name, _implementation(backend_module, name))
            library.impl(name, _direct[name, device], device.upper())
        library.impl(name, _implementation(reference, name), "CompositeExplicitAutograd")
        fake = _distance_update_fake if name == "distance_update" else _no_result_fake
        torch.library.register_fake(f"adacache::{name}", fake, lib=library)
    _libraries.append(library)


def call(name: str, first: Tensor, *others: Any) -> Any:
    """Run an op by name, without torch's dispatcher if nothing observes the dispatcher.

    On a CPU the dispatcher costs 26 us a call; the compiled code needs 17 us for 256 KiB.
    """
    direct = _direct.get((name, first.device.type))
    if direct is None or is_watched() or type(first) is not Tensor:
        return getattr(torch.ops.adacache, name).default(first, *others)
    return direct(first, *others)


def is_watched() -> bool:
    """Return True if torch traces a graph, records gradients, or has an active dispatch mode."""
    return (
        torch.compiler.is_compiling()
        or torch.is_grad_enabled()
        or _get_current_dispatch_mode() is not None
    )


def backend() -> str:
    """Return the backend that ``ADACACHE_BACKEND`` selects.

    Raises:
        ValueError: the variable is none of "auto", "triton" and "reference".
    """
    value = os.environ.get("ADACACHE_BACKEND") or "auto"
    if value not in BACKENDS:
        raise ValueError(f"ADACACHE_BACKEND is {value!r}, expected one of {', '.join(BACKENDS)}")
    return value


def _implementation(module: ModuleType, name: str) -> Function:
    """Return the op of a backend, with the arguments of its schema."""
    function: Function = getattr(module, name)
    if name != "decide":
        return function

    def run(state: Tensor, sums: Tensor, codebook: Tensor, *flat: Any) -> Tensor | None:
        return function(state, sums, codebook, *unflatten(flat))

    return run


def _dispatch(name: str, native: Function) -> Function:
    """Return the op that runs the selected backend, after the check for overlapping memory."""
    alternatives = {
        "auto": native,
        "triton": _implementation(triton_backend, name),
        "reference": _implementation(reference, name),
    }

    def run(*arguments: Any) -> Tensor | None:
        for written, tensor, read in _written_and_read(name, arguments):
            check_apart(written, tensor, read)
        return alternatives[backend()](*arguments)

    return run


def _written_and_read(
    name: str, arguments: Sequence[Any]
) -> list[tuple[str, Tensor, list[tuple[str, Tensor]]]]:
    """Return each tensor that the op writes, with the tensors that must not overlap it."""
    if name in ("decide", "begin_step"):
        return []
    if name == "conditional_add":
        out, x, residuals, scales, *_ = arguments
        read = [*_named("residuals", residuals), *_named("scales", scales)]
        # Each element of x is read before it is written, by the same thread.
        return [("out", out, read if is_same_memory(out, x) else [("x", x), *read])]
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
    metric: str,
    slot_holds: str,
    scale: Tensor | None,
    previous_scales: Sequence[Tensor | None],
) -> Tensor:
    on_triton = {"auto": slot.device.type == "cuda", "triton": slot.device.type != "meta"}
    partials = triton_backend.partials(slot, strides) if on_triton.get(backend()) else 1
    return slot.new_empty((slot.shape[0], partials, 3 + 2 * len(strides)), dtype=torch.float32)


def _no_result_fake(*arguments: object) -> None:
    pass
