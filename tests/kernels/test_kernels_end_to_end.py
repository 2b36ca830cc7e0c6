"""The patched demo transformer on compiled PTX: the same steps as on the compiled C++."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import adacache_kernels as ak
from adacache_kernels.demo.pipeline import load_pipeline
from adacache_kernels.demo.run import generate
from tests.support.ptx_emulator import emulated

STEPS = 8
KERNELS = {
    "conditional_add_kernel",
    "decide_kernel",
    "distance_update_kernel",
    "residual_update_kernel",
}
SETTINGS: dict[str, dict[str, Any]] = {
    "the paper's, with motion": {"codebook": {0.4: 3, 0.6: 2, 2.0: 1}, "apply_moreg": True},
    "forecast, corrected": {
        "codebook": {0.5: 2, 9.0: 1},
        "forecast": 1,
        "correct": True,
        "measure": "forecast-error",
    },
}


def run(settings: dict[str, Any]) -> tuple[torch.Tensor, ak.Summary]:
    pipe = load_pipeline()
    ak.patch(pipe, **settings)
    video = generate(pipe, "three moving fast", steps=STEPS)
    return torch.as_tensor(video), ak.summary(pipe)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_generation_on_triton(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, on_cpu = run(SETTINGS[name])
    monkeypatch.setenv("ADACACHE_BACKEND", "triton")
    with emulated(90, check=False) as driver:
        found, on_triton = run(SETTINGS[name])
    assert {launch.name for launch in driver.launches} == KERNELS
    assert on_cpu.reused_steps
    assert on_triton.computed_steps == on_cpu.computed_steps
    for a, b in zip(on_triton.distances, on_cpu.distances, strict=True):
        assert (a is b is None) or a == pytest.approx(b, rel=1e-5)
    # Stored and added values have the same bits; only the sums are rounded differently.
    assert torch.equal(found, expected)
