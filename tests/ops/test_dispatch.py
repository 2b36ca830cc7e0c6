"""The backend that runs an op: its choice, its fallback, and calls without torch's dispatcher."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from adacache_kernels import AdaCacheWarning, _native, ops
from adacache_kernels.ops import reference, registration
from adacache_kernels.ops import triton_backend as gpu
from adacache_kernels.ops import triton_launch as launch
from adacache_kernels.ops.native_views import takes


@pytest.mark.parametrize(
    "name", ["distance_update", "residual_update", "conditional_add", "decide", "begin_step"]
)
def test_other_devices_run_the_reference(name: str) -> None:
    for device in ("XPU", "MPS", "PrivateUse1"):
        assert torch._C._dispatch_has_computed_kernel_for_dispatch_key(f"adacache::{name}", device)


def test_an_unknown_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADACACHE_BACKEND", "cuda")
    with pytest.raises(ValueError, match="ADACACHE_BACKEND is 'cuda', expected one of auto, tri"):
        ops.residual_update(torch.zeros(2), torch.zeros(2), torch.zeros(2))


def test_without_triton_the_reference_runs_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADACACHE_BACKEND", "triton")
    monkeypatch.setitem(sys.modules, "triton", None)
    for cached in (launch.kernels, launch.has_triton):
        cached.cache_clear()
    slot, x_out = torch.randn(2, 3, 300, 64), torch.randn(2, 3, 300, 64)
    with pytest.warns(AdaCacheWarning, match="needs? Triton 3.6 or newer"):
        sums = ops.distance_update(slot.clone(), x_out, strides=(1,))
    expected = reference.distance_update(slot, x_out, None, [], None, (1,), "l1", "previous")
    # As many partial sums as the kernel makes; all but the first are zero.
    assert sums.shape[1] == gpu.partials(slot, (1,)) > 1
    assert torch.equal(sums.sum(dim=1), expected.sum(dim=1))
    for cached in (launch.kernels, launch.has_triton):
        cached.cache_clear()


def test_kernels_know_what_they_cannot_take() -> None:
    assert takes(torch.randn(2, 3), torch.randn(3, 1).T[:1], torch.randn(()))
    assert not takes(torch.randn(2, 3).T)
    assert not takes(torch.randn(2, dtype=torch.float64))
    assert not takes(torch.randn(1, 1, 1, 1, 2))


def test_a_missing_extension_says_how_to_build_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adacache_kernels._C", None)
    monkeypatch.delattr("adacache_kernels._C")
    _native.module.cache_clear()
    with pytest.raises(ImportError, match=r"pip install"):
        ops.residual_update(torch.zeros(2), torch.zeros(2), torch.zeros(2))


class Noted(TorchDispatchMode):
    """A mode that records the ops that torch's dispatcher runs."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def test_the_dispatcher_is_left_out_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mode, gradients and tracing see every op; without them, no op uses the dispatcher."""
    direct: list[str] = []
    run = registration._direct["residual_update", "cpu"]

    def noted(*arguments: Any) -> None:
        direct.append("residual_update")
        run(*arguments)

    monkeypatch.setitem(registration._direct, ("residual_update", "cpu"), noted)
    slot, x_out, x_in = (torch.randn(2, 3) for _ in range(3))
    with torch.no_grad():
        ops.residual_update(slot, x_out, x_in)
        assert direct == ["residual_update"]
        with Noted() as mode:
            ops.residual_update(slot, x_out, x_in)
        assert mode.names == ["adacache::residual_update"]
    ops.residual_update(slot, x_out, x_in)
    assert direct == ["residual_update"], "with gradients torch is asked"
    assert torch.equal(slot, x_out - x_in)
