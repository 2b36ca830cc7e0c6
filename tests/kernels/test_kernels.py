"""The Triton kernels, compiled for three architectures, executed as PTX, against reference.py.

The emulator checks bounds, alignment, races, barriers and reads of unwritten memory, see
tests/support/ptx_emulator. Every case runs twice, with the programs in both orders.
"""

from __future__ import annotations

import pytest
import torch

from adacache_kernels import ops
from adacache_kernels.ops import triton_launch as launch
from tests.support.op_checks.decide_checks import DECISIONS, check_decide, check_on_a_threshold
from tests.support.op_checks.kernel_cases import DTYPES, Case
from tests.support.op_checks.kernel_checks import (
    CASES,
    EIGHT_BIT_CASES,
    MODES,
    Mode,
    check_conditional_add,
    check_conditional_add_of_eight_bits,
    check_distance_update,
    check_residual_update,
)
from tests.support.ptx_emulator import EmulatorDriver


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: f"{mode.metric}-{mode.slot_holds}")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_distance_update(emulator: EmulatorDriver, dtype: torch.dtype, mode: Mode) -> None:
    for case in CASES:
        check_distance_update(emulator, dtype, mode, case)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_residual_update(emulator: EmulatorDriver, dtype: torch.dtype) -> None:
    for case in CASES:
        check_residual_update(emulator, dtype, case)


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_conditional_add(emulator: EmulatorDriver, dtype: torch.dtype, count: int) -> None:
    for case in CASES:
        check_conditional_add(emulator, dtype, count, case)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_conditional_add_of_eight_bits(emulator: EmulatorDriver, dtype: torch.dtype) -> None:
    for case in EIGHT_BIT_CASES:
        check_conditional_add_of_eight_bits(emulator, dtype, case)


@pytest.mark.parametrize("metric", ops.METRICS)
@pytest.mark.parametrize("apply_moreg", [True, False])
def test_decide(emulator: EmulatorDriver, metric: str, apply_moreg: bool) -> None:
    for decision in DECISIONS:
        check_decide(emulator, metric, apply_moreg, *decision)
    check_on_a_threshold(emulator, metric, apply_moreg)


def test_groups_numbered_in_64_bits(
    emulator: EmulatorDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planes of 2^31 groups or more need 64 bits."""
    monkeypatch.setattr(launch.kernels(), "int32", launch.kernels().int64)
    case = Case("several tiles", (1, 5, 36, 64))
    check_distance_update(emulator, torch.bfloat16, MODES[0], case)
    check_residual_update(emulator, torch.bfloat16, case)
    check_conditional_add(emulator, torch.bfloat16, 2, case)
