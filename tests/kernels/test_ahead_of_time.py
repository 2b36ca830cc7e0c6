"""The compiler's facts of every kernel of the table; see ahead_of_time.py."""

from __future__ import annotations

import json

import pytest
import torch
import triton
from torch._subclasses.fake_tensor import FakeTensorMode

from adacache_kernels.kernels import launch_config as config
from adacache_kernels.ops import triton_backend as gpu
from tests.support.ptx_emulator import aot
from tests.tools import ahead_of_time

RECORD = json.loads(ahead_of_time.RECORD.read_text())


@pytest.mark.parametrize("dtype", ahead_of_time.DTYPES)
@pytest.mark.parametrize("target", aot.TARGETS)
def test_every_kernel_compiles_as_recorded(target: str, dtype: str) -> None:
    """After an intended change, run `python -m tests.tools.ahead_of_time --record`."""
    found = ahead_of_time.facts(target, dtype)
    for name, facts in found.items():
        assert facts["spilled"] == 0, name
        if not name.startswith(("decide", "begin_step")):
            assert is_wide(name, facts), (name, facts)
    assert triton.__version__ == RECORD["triton"], "the record is of the pinned Triton"
    assert found == RECORD["facts"][f"{target} {dtype}"]


def is_wide(name: str, facts: ahead_of_time.Facts) -> bool:
    """Return True if large tensors are accessed 128 bits at a time.

    Narrower accesses are allowed for coefficients and flag, which all threads read, for partial
    sums, and for residuals of 8 bits: a thread reads as many of them as it has elements of x in 128
    bits.
    """
    kernel, _, *options = name.split()
    reads_little = kernel == "conditional_add" or "forecast," in options
    narrow_loads, narrow_stores = ({*facts[key]} - {"128"} for key in ("loads", "stores"))
    if kernel == "quantized_update":  # It stores eight bits, and reads them in a forecast.
        loads_are_wide = narrow_loads <= ({"32", "64"} if reads_little else set())
        return facts["loads"]["128"] > 0 and loads_are_wide and {*facts["stores"]} <= {"32", "64"}
    return (
        min(facts["loads"]["128"], facts["stores"]["128"]) > 0
        and narrow_loads <= ({"32", "64"} if reads_little else set())
        and narrow_stores <= ({"32"} if kernel == "distance_update" else set())
    )


def test_the_table_is_read_by_size_and_architecture() -> None:
    for architecture in (70, *config.ARCHITECTURES, 130):
        for itemsize in (2, 4):
            small = config.distance_config(itemsize, 64, architecture)
            large = config.distance_config(itemsize, 1 << 24, architecture)
            assert small.groups < large.groups
            assert large.max_programs >= small.max_programs
            assert small.elements(itemsize) * itemsize == 16 * small.groups
            assert config.elementwise_config(itemsize, 0, architecture).vectors == 1
            assert config.elementwise_config(itemsize, 1 << 24, architecture).vectors == 2
    for table in (config._DISTANCE, config._ELEMENTWISE):
        for rows in table.values():
            sizes = [least for least, _ in rows]
            assert sizes == sorted(sizes, reverse=True)
            assert sizes[-1] == 0


def test_programs_are_as_many_as_the_fake_says() -> None:
    """The number of partial sums depends on the shape only, not on alignment or layout."""
    for shape in ((2, 4, 100, 64), (1, 1, 1, 1), (0, 2, 3, 4), (1, 2, 4096, 512)):
        for strides in ((), (1,)):
            real = gpu.partials(torch.empty(shape), strides)
            with FakeTensorMode():
                assert gpu.partials(torch.empty(shape), strides) == real
            assert real >= 1
