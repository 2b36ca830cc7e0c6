"""Facts of kernels that are compiled ahead of time."""

import pytest

triton = pytest.importorskip("triton")


from tests.support.ptx_emulator import compile_ahead  # noqa: E402
from tests.support.ptx_emulator.ptx_snippets import scaled_sum  # noqa: E402

SIGNATURE = {"x_ptr": "*bf16", "y_ptr": "*bf16", "out_ptr": "*bf16", "scale": "fp32", "n": "i32"}
POINTERS = ("x_ptr", "y_ptr", "out_ptr")


@pytest.mark.parametrize("target", ["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"])
def test_facts_from_machine_code(target: str) -> None:
    constants = {"BLOCK": 1024}
    wide = compile_ahead(
        scaled_sum, SIGNATURE, target, constants=constants, divisible=(*POINTERS, "n")
    )
    narrow = compile_ahead(scaled_sum, SIGNATURE, target, constants=constants, divisible=POINTERS)
    assert (wide.global_accesses.loads, wide.global_accesses.stores) == ({128: 2}, {128: 1})
    assert (narrow.global_accesses.loads, narrow.global_accesses.stores) == ({16: 16}, {16: 8})
    assert 8 < wide.resources.registers < 64
    assert wide.resources.spilled == 0
    assert wide.kernel.target.startswith(target)


def test_facts_for_amd() -> None:
    compiled = compile_ahead(
        scaled_sum, SIGNATURE, "gfx942", constants={"BLOCK": 2048}, divisible=(*POINTERS, "n")
    )
    assert (compiled.global_accesses.loads, compiled.global_accesses.stores) == ({128: 2}, {128: 1})
    assert compiled.resources.registers > 0
    assert compiled.resources.scalar_registers > 0
    assert compiled.resources.spilled == 0


def test_spills_are_seen() -> None:
    constants = {"BLOCK": 8192}
    compiled = compile_ahead(
        scaled_sum, SIGNATURE, "sm_90", constants=constants, num_warps=1, maxnreg=32
    )
    assert compiled.resources.spilled > 0


def test_a_misspelt_argument_is_refused() -> None:
    with pytest.raises(ValueError, match="no arguments"):
        compile_ahead(scaled_sum, SIGNATURE, "sm_90", constants={"BLOCK": 64}, divisible=("z",))
