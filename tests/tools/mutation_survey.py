"""Test whether the tests detect a change of one instruction of a compiled kernel.

    python -m tests.tools.mutation_survey        every mutant of every kernel; about half an hour
    python -m tests.tools.mutation_survey NAME   only of kernels whose name contains NAME

Each mutant runs on the cases of tests/support/op_checks that launch the kernel, until one fails.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from unittest import mock

import torch

from tests.kernels import test_kernels_quantized as quantized
from tests.ops import test_decide_videos
from tests.ops import test_decision_state as test_decision
from tests.support.op_checks import decide_checks, kernel_checks
from tests.support.op_checks.kernel_cases import Case
from tests.support.ptx_emulator import EmulatorDriver, Kernel, emulated
from tests.support.ptx_emulator.mutants import Report, survey

Check = Callable[[EmulatorDriver], None]
MUTATED = ("fewer programs than tokens", "two layouts", "text and history", "NaN and infinity")
"""Small cases of the update into eight bits that launch the same kernel."""


def checks() -> dict[str, list[Check]]:
    """Return the checks of each kernel; the first check launches the kernel of that name."""
    bf16, fp32 = torch.bfloat16, torch.float32
    found: dict[str, list[Check]] = {}
    for mode in kernel_checks.MODES[:3]:
        name = f"distance_update {mode.metric}, slot holds {mode.slot_holds}"
        found[name] = [partial(distance_update, bf16, mode, case) for case in kernel_checks.CASES]
    unaligned = [
        case for case in kernel_checks.CASES if case.name.startswith(("odd", "misal", "rows"))
    ]
    name = "distance_update unaligned"
    found[name] = [
        partial(distance_update, fp32, kernel_checks.MODES[0], case) for case in unaligned
    ]
    # First a case that needs all four dimensions.
    cases = sorted(kernel_checks.CASES, key=lambda case: case.name != "two layouts, several tiles")
    found["residual_update"] = [partial(residual_update, fp32, case) for case in cases]
    found["conditional_add"] = [partial(conditional_add, bf16, case) for case in cases]
    found["conditional_add of eight bits"] = [
        partial(eight_bits, bf16, case) for case in kernel_checks.EIGHT_BIT_CASES
    ]
    for eight in (torch.int8, torch.float8_e4m3fn):
        # First a case with several tokens, frames and both kinds of terms.
        modes = sorted(quantized.MODES, key=lambda mode: -mode.previous * (mode.metric == "cosine"))
        found[f"quantized_update {eight}".replace("torch.", "")] = [
            partial(quantized_update, bf16, eight, modes[0], case)
            for case in quantized.CASES
            if case.name in MUTATED
        ]
    found["begin_step"] = [lambda driver: test_decision.check_begin_step()]
    for metric, apply_moreg in (("l2", True), ("cosine", False)):
        found[f"decide {metric}"] = [
            *(
                partial(decide, metric, apply_moreg, *decision)
                for decision in decide_checks.DECISIONS
            ),
            partial(on_a_threshold, metric, apply_moreg),
        ]
    found["decide cosine"] += [
        partial(several_videos, "cosine", bad, False) for bad in test_decide_videos.BAD_VALUES
    ]
    found["decide of several videos"] = [
        *(partial(several_videos, "l1", bad, True) for bad in test_decide_videos.BAD_VALUES),
        *(partial(many_partial_sums, parts) for parts in (20, 90, 150, 210, 240, 600)),
    ]
    return found


def distance_update(
    dtype: torch.dtype, mode: kernel_checks.Mode, case: Case, driver: EmulatorDriver
) -> None:
    kernel_checks.check_distance_update(driver, dtype, mode, case)


def quantized_update(
    dtype: torch.dtype,
    eight: torch.dtype,
    mode: quantized.Mode,
    case: Case,
    driver: EmulatorDriver,
) -> None:
    quantized.check_quantized_update(driver, dtype, eight, mode, case)


def residual_update(dtype: torch.dtype, case: Case, driver: EmulatorDriver) -> None:
    kernel_checks.check_residual_update(driver, dtype, case)


def conditional_add(dtype: torch.dtype, case: Case, driver: EmulatorDriver) -> None:
    kernel_checks.check_conditional_add(driver, dtype, 2, case)


def eight_bits(dtype: torch.dtype, case: Case, driver: EmulatorDriver) -> None:
    kernel_checks.check_conditional_add_of_eight_bits(driver, dtype, case)


def decide(
    metric: str,
    apply_moreg: bool,
    sums: list[list[float]],
    partials: int,
    situation: tuple[int, bool, bool],
    driver: EmulatorDriver,
) -> None:
    decide_checks.check_decide(driver, metric, apply_moreg, sums, partials, situation)


def on_a_threshold(metric: str, apply_moreg: bool, driver: EmulatorDriver) -> None:
    decide_checks.check_on_a_threshold(driver, metric, apply_moreg)


def several_videos(metric: str, bad: str, apply_moreg: bool, driver: EmulatorDriver) -> None:
    test_decide_videos.check_decide(metric, bad, "any", apply_moreg)


def many_partial_sums(parts: int, driver: EmulatorDriver) -> None:
    test_decide_videos.check_many_partial_sums(parts)


def survey_kernel(all_checks: list[Check], *, sample: int | None = None) -> Report:
    """Test each mutant of the first check's kernel with all checks that launch this kernel."""
    with (
        mock.patch.dict(os.environ, {"ADACACHE_BACKEND": "triton"}),
        emulated(90, guard_views=True) as driver,
    ):
        launched = [kernels_of(check, driver) for check in all_checks]
        kernel = launched[0][0]
        relevant = [c for c, kernels in zip(all_checks, launched, strict=True) if kernel in kernels]

        def trial(candidate: Kernel) -> bool:
            with driver.substituted(kernel, candidate):
                for check in [*relevant]:
                    try:
                        run(check, driver)
                    except Exception:
                        # A check that detects one mutant is likely to detect the next.
                        relevant.remove(check)
                        relevant.insert(0, check)
                        raise
            return True

        return survey(kernel, trial, sample=sample)


def kernels_of(check: Check, driver: EmulatorDriver) -> list[Kernel]:
    """Return the kernels that a check launches."""
    before = len(driver.launches)
    run(check, driver)
    return [launch.original for launch in driver.launches[before:]]


def run(check: Check, driver: EmulatorDriver) -> None:
    """Run a check, each time on the same numbers."""
    torch.manual_seed(0)
    check(driver)


def main() -> None:
    """Print the verdicts and the survivors."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    torch.set_num_threads(1)
    for name, all_checks in checks().items():
        if wanted in name:
            print(f"{name}: {survey_kernel(all_checks)}", flush=True)


if __name__ == "__main__":
    main()
