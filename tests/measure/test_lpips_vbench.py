"""LPIPS and VBench, which are optional packages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from adacache_kernels.measure import lpips_vbench


@pytest.mark.parametrize("name", ["lpips", "vbench"])
def test_metrics_that_are_not_installed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str) -> Any:
        raise ImportError(f"No module named {module!r}")

    monkeypatch.setattr(lpips_vbench.importlib, "import_module", missing)
    lpips_vbench._lpips.cache_clear()
    with pytest.raises(ImportError, match=rf"package {name}, which is not installed.*expected in"):
        lpips_vbench.check_installed([name])


def test_lpips_by_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replacement network: frames are -1 to 1, channels first; the result is the mean."""

    class Network(torch.nn.Module):
        def __init__(self, **_: Any) -> None:
            super().__init__()

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            assert a.shape[1] == 3 and a.min() >= -1
            return (a - b).abs().mean(dim=(1, 2, 3), keepdim=True)

    monkeypatch.setattr(lpips_vbench, "_lpips", Network)
    black, white = np.zeros((2, 16, 16, 3), np.float32), np.ones((2, 16, 16, 3), np.float32)
    assert lpips_vbench.lpips_distance(white, black) == 2.0
