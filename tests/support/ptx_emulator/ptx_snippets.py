"""Small PTX modules for the emulator's own tests, and functions that run them."""

from typing import Any

import numpy as np
import pytest

triton = pytest.importorskip("triton")

import triton.language as tl  # noqa: E402

from tests.support.ptx_emulator import Execution, GlobalMemory, launch, load_kernel  # noqa: E402

ARCHES = (80, 90, 100)
WARP = 32


def module(body: str, *, parameters: int = 1, shared: int = 0, threads: int = 32) -> str:
    """Return a PTX module whose parameters are pointers in %rd1 and up; %r1 is the thread."""
    names = [f"p{index}" for index in range(parameters)]
    loads = [f"ld.param.b64 %rd{i + 1}, [{name}];" for i, name in enumerate(names)]
    declared = ", ".join(f".param .u64 .ptr .global .align 1 {name}" for name in names)
    memory = f".shared .align 16 .b8 cells[{shared}];" if shared else ""
    return f"""
        .version 8.6
        .target sm_90a
        .address_size 64
        {memory}
        .visible .entry test({declared})
        .reqntid {threads}
        {{
            .reg .pred %p<9>;
            .reg .b16 %rs<9>;
            .reg .b32 %r<20>;
            .reg .b64 %rd<20>;
            {" ".join(loads)}
            mov.u32 %r1, %tid.x;
            {body}
            ret;
        }}
    """


def run(
    ptx: str,
    *arrays: np.ndarray,
    programs: int = 1,
    threads: int = 32,
    written: bool = True,
    **options: Any,
) -> Execution:
    memory = GlobalMemory()
    addresses = [
        memory.add(array, f"buffer{index}", initialised=written)
        for index, array in enumerate(arrays)
    ]
    kernel = load_kernel(ptx)
    return launch(kernel, (programs,), threads, addresses, memory, **options)


ADDRESS = "mul.wide.u32 %rd5, %r1, 4; add.s64 %rd6, %rd1, %rd5;"


@triton.jit
def scaled_sum(x_ptr, y_ptr, out_ptr, scale, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    y = tl.load(y_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + offsets, (x * scale + y).to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def row_norms(x_ptr, out_ptr, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, columns, BLOCK):
        offsets = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + row * columns + offsets, mask=offsets < columns, other=0.0)
        total += x.to(tl.float32) * x.to(tl.float32)
    tl.store(out_ptr + row, tl.sqrt_rn(tl.sum(total, axis=0)))
