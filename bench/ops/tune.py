"""Find the block sizes for `adacache_kernels/kernels/launch_config.py` on a CUDA GPU.

    python -m bench.ops.tune

The script times every candidate on the cases of `bench/ops/cases.py`, for both dtypes and several
sizes, and prints the fastest one of each case. The table in the package has rows by bytes: a row
ends where the fastest candidate changes.

This script has not run on a GPU yet: the table in the package is an estimate.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest import mock

import torch

from bench.ops.cases import Case, cases, shape_of

# Dimensions of a candidate: 16-byte loads in flight a thread, warps, programs a launch.
VECTORS = (1, 2, 4, 8)
WARPS = (2, 4, 8)
PROGRAMS = (264, 528, 1056, 4096)
SIZES_MB = (1, 16, 256)
DTYPES = (torch.bfloat16, torch.float32)
LOOKUPS = {
    "distance_update": "distance_config",
    "residual_update": "elementwise_config",
    "conditional_add": "elementwise_config",
}


def fastest(call: Callable[[], object], lookup: str) -> tuple[Any, float]:
    """Return the fastest candidate for a call, and its milliseconds.

    Each candidate replaces the result of the table's function `lookup`.
    """
    from triton.testing import do_bench

    from adacache_kernels.kernels.launch_config import Config
    from adacache_kernels.ops import triton_backend as gpu

    found = []
    for vectors, warps, programs in itertools.product(VECTORS, WARPS, PROGRAMS):
        candidate = Config(vectors=vectors, num_warps=warps, max_programs=programs)
        with mock.patch.object(gpu, lookup, lambda *_, chosen=candidate: chosen):
            found.append((do_bench(call, quantiles=[0.5]), candidate))
    milliseconds, best = min(found, key=lambda pair: pair[0])
    return best, milliseconds


def on_gpu(case: Case, size_mb: float, dtype: torch.dtype) -> Callable[[], object]:
    """Return a call of our op on tensors on the GPU."""
    tensors = case.make(shape_of(size_mb, dtype), dtype)
    return partial(case.ours, **{name: tensor.cuda() for name, tensor in tensors.items()})


def lines(arch: int) -> Iterator[str]:
    """Yield one line for each case, dtype and size, for one architecture."""
    for case in cases():
        if case.latency:
            continue
        for dtype, size in itertools.product(DTYPES, SIZES_MB):
            best, milliseconds = fastest(on_gpu(case, size, dtype), LOOKUPS[case.op])
            where = f"sm_{arch}, {LOOKUPS[case.op]}, {case.key}, {dtype}, {size} MiB a tensor"
            yield f"{where}: {best}, {milliseconds:.4f} ms"


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    if not torch.cuda.is_available():
        raise SystemExit(
            "bench.ops.tune needs a CUDA GPU, and torch finds none; run it on a machine with one"
        )
    major, minor = torch.cuda.get_device_capability()
    print(f"# {torch.cuda.get_device_name()}, torch {torch.__version__}")
    for line in lines(10 * major + minor):
        print(line, flush=True)


if __name__ == "__main__":
    main()
