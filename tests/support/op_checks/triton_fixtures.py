"""Fixtures that run the ops on Triton kernels in the PTX emulator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.ptx_emulator import EmulatorDriver, emulated

ARCHITECTURES = [80, 90, 100]


@pytest.fixture
def on_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADACACHE_BACKEND", "triton")


@pytest.fixture(params=ARCHITECTURES, ids=lambda arch: f"sm_{arch}")
def emulator(request: pytest.FixtureRequest, on_triton: None) -> Iterator[EmulatorDriver]:
    with emulated(request.param, guard_views=True) as emulator:
        yield emulator
