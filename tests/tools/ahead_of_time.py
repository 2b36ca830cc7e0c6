"""Compile every kernel of the table for several GPUs, as the launcher launches it.

    python -m tests.tools.ahead_of_time            compile all, print the facts
    python -m tests.tools.ahead_of_time --record   also write them to tests/tools/ahead_of_time.json

The tool calls the ops on CPU tensors, with a Triton driver that compiles and does not run.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import CompiledKernel

from adacache_kernels import ops
from adacache_kernels.kernels.launch_config import MAX_STRIDE
from adacache_kernels.ops import triton_backend as gpu
from tests.support.ptx_emulator import EmulatorDriver, aot
from tests.support.ptx_emulator.triton_driver import active

RECORD = Path(__file__).with_suffix(".json")
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
# A frame of each shape lies below or above the sizes at which the tables change.
SHAPES = {"small": (1, 2, 64, 64), "large": (1, 2, 2048, 1024)}

Facts = dict[str, Any]


class CompilingDriver(EmulatorDriver):
    """A Triton driver that keeps the last compiled kernel and runs nothing."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target
        self.last: CompiledKernel | None = None

    def get_current_target(self) -> GPUTarget:
        return aot.TARGETS[self.target]

    def get_current_device(self) -> int:
        return 2000 + list(aot.TARGETS).index(self.target)

    def run(self, compiled: CompiledKernel, *_: object) -> None:
        self.last = compiled


@contextmanager
def compiling(target: str) -> Iterator[CompilingDriver]:
    """Make the ops compile for a target inside the block, with the launches of that target."""
    driver = CompilingDriver(target)
    is_amd = target.startswith("gfx")
    architecture = 90 if is_amd else int(target.removeprefix("sm_"))
    with (
        active(driver),
        mock.patch.dict(os.environ, {"ADACACHE_BACKEND": "triton"}),
        mock.patch.object(gpu, "_architecture", lambda device: architecture),
        mock.patch.object(torch.version, "hip", "6" if is_amd else None),
    ):
        yield driver


def cases(dtype: torch.dtype) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield a name and a call for each kernel and each entry of its table."""
    for size, shape in SHAPES.items():
        slot, x_out, x_in, older = (torch.empty(shape, dtype=dtype) for _ in range(4))
        yield from distance_cases(size, slot, x_out, x_in, older)
        yield from elementwise_cases(size, slot, x_out, x_in)
    yield from quantized_cases(dtype)
    sums, codebook = torch.ones(1, 2, 100, 5), torch.tensor([[0.1, 0.2], [3.0, 2.0]])
    state, clock = ops.new_state("cpu"), ops.new_step_state("cpu")
    flags, settings = torch.zeros(2, dtype=torch.int32), ops.DecideSettings(apply_moreg=True)
    if dtype == torch.float32:
        yield (
            "begin_step",
            lambda: ops.begin_step(clock, flags, state, (3, 8), (2, 4)),
        )
        yield (
            "decide",
            lambda: ops.decide(state, sums, codebook, settings, 1),
        )
        yield (
            "decide by the clock",
            lambda: ops.decide(state, sums, codebook, settings, 1, clock=clock),
        )
        several: dict[str, Any] = {"videos": 2, "motions": torch.ones(2)}
        yield (
            "decide of two videos",
            lambda: ops.decide(state, sums, codebook, settings, 1, **several),
        )


def distance_cases(
    size: str, slot: Tensor, x_out: Tensor, x_in: Tensor, older: Tensor
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the cases with the fewest and the most registers; long strides need long videos."""
    longer = (torch.empty(1, MAX_STRIDE + 1, *slot.shape[2:], dtype=slot.dtype) for _ in range(2))
    long_slot, long_x_out = longer
    two = torch.ones(2)
    yield f"distance_update {size}", lambda: ops.distance_update(slot, x_out, x_in)
    yield (
        f"distance_update {size} forecast, stride 1",
        lambda: ops.distance_update(slot, x_out, x_in, [older], two, (1,), "cosine"),
    )
    yield (
        f"distance_update {size} stride {MAX_STRIDE}",
        lambda: ops.distance_update(long_slot, long_x_out, strides=(1, MAX_STRIDE)),
    )


def elementwise_cases(
    size: str, x: Tensor, first: Tensor, second: Tensor
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the cases of `residual_update` and `conditional_add`."""
    one, two, flag = torch.ones(1), torch.ones(2), torch.ones(1, dtype=torch.int32)
    quantised, scale = torch.empty(x.shape, dtype=torch.int8), torch.ones(*x.shape[:-1], 1)
    float8 = quantised.view(torch.float8_e4m3fn)
    yield f"residual_update {size}", lambda: ops.residual_update(x, first, second)
    yield f"conditional_add {size} 1", lambda: ops.conditional_add(x, [first], one, flag)
    yield f"conditional_add {size} 2", lambda: ops.conditional_add(x, [first, second], two, flag)
    yield (
        f"conditional_add {size} int8, float8",
        lambda: ops.conditional_add(x, [quantised, float8], two, flag, [scale, None]),
    )


def quantized_cases(dtype: torch.dtype) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the cases with the channels of Latte, HunyuanVideo and Wan."""
    for channels in (1152, 3072, 5120):
        shape = (1, 3, 2, channels)
        x_out, x_in = (torch.empty(shape, dtype=dtype) for _ in range(2))
        for name, eight in (("int8", torch.int8), ("float8", torch.float8_e4m3fn)):
            slot, older = (torch.empty(shape, dtype=eight) for _ in range(2))
            scale, other = (torch.empty(*shape[:3], 1) for _ in range(2))
            plain = {"slot_holds": "nothing", "scale": scale}
            forecast = {"scale": scale, "previous_scales": [other]}
            yield (
                f"quantized_update {name} {channels}",
                partial(ops.distance_update, slot, x_out, x_in, **plain),
            )
            yield (
                f"quantized_update {name} {channels} forecast, stride 1",
                partial(
                    ops.distance_update,
                    *(slot, x_out, x_in, [older], torch.ones(2), (1,), "cosine"),
                    **forecast,
                ),
            )


def facts(target: str, dtype: str) -> dict[str, Facts]:
    """Return the compiler's facts of each case: registers, spills, widths of accesses in bits."""
    found = {}
    with compiling(target) as driver:
        for name, call in cases(DTYPES[dtype]):
            call()
            assert driver.last is not None
            metadata = driver.last.metadata
            compiled = aot.Compiled(target, metadata.num_warps, metadata.shared, driver.last.asm)
            accesses = compiled.global_accesses
            found[name] = {
                "registers": compiled.resources.registers,
                "spilled": compiled.resources.spilled,
                "shared": compiled.resources.shared,
                "warps": compiled.num_warps,
                "loads": {str(width): n for width, n in sorted(accesses.loads.items())},
                "stores": {str(width): n for width, n in sorted(accesses.stores.items())},
            }
    return found


def main() -> None:
    """Compile everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.name}")
    record = parser.parse_args().record
    everything = {}
    for target in aot.TARGETS:
        for dtype in DTYPES:
            found = everything[f"{target} {dtype}"] = facts(target, dtype)
            for name, fact in found.items():
                print(f"Triton {triton.__version__} {target} {dtype} {name}: {json.dumps(fact)}")
    if record:
        content = {"triton": triton.__version__, "facts": everything}
        RECORD.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
