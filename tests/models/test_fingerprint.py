"""Fingerprints: equal for equal values in any strides, different after any write."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from adacache_kernels.models.fingerprint import fingerprint

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int8, torch.complex64)
SHAPES = ((2, 5, 8), (2, 5, 3), (7,), (), (2, 1, 3, 4, 16), (0, 4, 8), (2, 3, 0))
WRITES: dict[str, Callable[[Tensor], Tensor]] = {
    "one bit of one value": lambda x: x[1, 2, 3:4].view(torch.int32).bitwise_xor_(1),
    "some tokens": lambda x: x[:, 4:].mul_(1.5),
    "one branch of the batch": lambda x: x[1].add_(0.25),
    "the order of frames": lambda x: x.copy_(x.roll(1, dims=1)),
    "the order of channels": lambda x: x.copy_(x.flip(-1)),
    "a NaN for a number": lambda x: x[0, 0, 0:1].fill_(float("nan")),
}


def differ(before: Tensor, after: Tensor) -> bool:
    return bool(fingerprint(before).differs(fingerprint(after)))


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equal_values_have_equal_fingerprints_in_any_strides(
    shape: tuple[int, ...], dtype: torch.dtype, inference: bool
) -> None:
    with torch.inference_mode(inference):
        x = torch.randn(shape).to(dtype)
        transposed = x.mT.contiguous().mT if x.ndim > 1 else x
        apart = torch.stack([x, x], dim=-1)[..., 1]
        assert not differ(x, x.clone())
        assert not differ(x, transposed)
        assert not differ(x, apart)


@pytest.mark.parametrize("write", WRITES)
def test_a_write_changes_the_fingerprint(write: str) -> None:
    x = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
    before = fingerprint(x)
    WRITES[write](x)
    assert bool(before.differs(fingerprint(x)))


def test_a_nan_is_a_value_like_others() -> None:
    x = torch.full((2, 6, 8), float("nan"))
    assert not differ(x, x.clone())
    before = fingerprint(x)
    x[1, 2, 3] = 1.0
    assert bool(before.differs(fingerprint(x)))


def test_no_copy_is_made_of_a_stream() -> None:
    x = torch.randn(2, 64, 32, dtype=torch.bfloat16)
    with torch.profiler.profile(profile_memory=True, record_shapes=True) as profiled:
        fingerprint(x)
    largest = max(event.self_cpu_memory_usage for event in profiled.events() or [])
    sums = (2 * 64 + 32 * 2 // 8) * 8
    assert largest <= sums < x.nbytes


def test_fingerprints_of_other_tensors_are_not_compared() -> None:
    one, other = fingerprint(torch.zeros(2, 4, 8)), fingerprint(torch.zeros(2, 4, 16))
    assert not one.is_comparable(other)
    with pytest.raises(ValueError, match="one shape, dtype and device"):
        one.differs(other)


def test_a_meta_tensor_has_a_fingerprint_without_values() -> None:
    x = torch.zeros(2, 4, 8, device="meta")
    assert fingerprint(x).differs(fingerprint(x)).device == x.device
