"""Test the benchmarks' cases, reports and predicted GPU times; no test depends on a time."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.ops import baselines as op_baselines
from bench.ops import cases as op_cases
from bench.ops import predict_gpu, roof
from bench.ops import report as op_report
from bench.ops import run as bench_ops
from bench.runtime import overhead_report
from tests import ROOT

BENCH = Path(bench_ops.__file__).parent
CASES = {case.key: case for case in op_cases.cases()}
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
# Number of tensors of x's size that are read or written; int8 and float8 are counted below.
STREAMS = {
    "distance_update: residual given": 3,
    "distance_update: x_out - x_in": 4,
    "distance_update: residual given, motion": 3,
    "distance_update: forecast of two": 5,
    "residual_update: plain": 3,
    "conditional_add: one residual": 3,
    "conditional_add: one residual, out of place": 3,
    "conditional_add: two residuals": 4,
    "conditional_add: flag 0": 0,
    "decide: one location, motion": 0,
}


def tensors_of(key: str, dtype: torch.dtype) -> op_cases.Tensors:
    return CASES[key].make((2, 3, 5, 16), dtype)


@DTYPES
@pytest.mark.parametrize("key", CASES)
def test_providers_agree_with_the_reference(key: str, dtype: torch.dtype) -> None:
    CASES[key].check(CASES[key].providers(), tensors_of(key, dtype))


@pytest.mark.parametrize("key", CASES)
def test_a_provider_that_is_wrong_is_refused(key: str) -> None:
    tensors = tensors_of(key, torch.float32)

    def idle(**_: torch.Tensor) -> torch.Tensor:
        return torch.zeros(2, 3)

    if CASES[key].key != "conditional_add: flag 0":  # With flag 0, doing nothing is right.
        with pytest.raises(AssertionError, match=f"{key}, eager"):
            CASES[key].check({"eager": idle}, tensors)


@DTYPES
@pytest.mark.parametrize("key", STREAMS)
def test_bytes_are_those_of_the_streams(key: str, dtype: torch.dtype) -> None:
    tensors = tensors_of(key, dtype)
    assert CASES[key].bytes(tensors) == STREAMS[key] * 2 * 3 * 5 * 16 * dtype.itemsize


@DTYPES
def test_an_int8_residual_is_a_byte_an_element_and_a_scale_a_token(dtype: torch.dtype) -> None:
    key = "conditional_add: int8 residual"
    numel = 2 * 3 * 5 * 16
    expected = 2 * numel * dtype.itemsize + numel + numel // 16 * 4
    assert CASES[key].bytes(tensors_of(key, dtype)) == expected


@DTYPES
@pytest.mark.parametrize("key", ["distance_update: into int8", "distance_update: into float8"])
def test_a_slot_of_eight_bits_is_read_and_written(key: str, dtype: torch.dtype) -> None:
    numel = 2 * 3 * 5 * 16
    expected = 2 * numel * dtype.itemsize + 2 * (numel + numel // 16 * 4)
    assert CASES[key].bytes(tensors_of(key, dtype)) == expected


def test_every_case_has_its_bytes_documented() -> None:
    in_eight_bits = {
        "distance_update: into int8",
        "distance_update: into float8",
        "conditional_add: int8 residual",
    }
    assert {*STREAMS, *in_eight_bits} == set(CASES)


@DTYPES
@pytest.mark.parametrize("key", CASES)
def test_a_roof_leaves_values_to_work_with(key: str, dtype: torch.dtype) -> None:
    case, tensors = CASES[key], tensors_of(key, dtype)
    for run in case.roofs.values():
        tried = {name: tensor.clone() for name, tensor in tensors.items()}
        run(**tried)
        written = case.writes if case.writes in case.reads else case.reads[0]
        assert torch.equal(tried[case.writes].float(), tensors[written].float())


def test_a_roof_touches_every_word() -> None:
    """With another mask, every word of each stream changes the result."""
    words = torch.arange(4 * 37, dtype=torch.int64).view(4, 37)
    ones = roof.ctypes.c_uint64(2**64 - 1)
    x, a, b, c = words.clone()
    pointers = [roof._address(tensor) for tensor in (x, a, b, c)]
    roof.library().roof_update(*pointers, roof._words(x), 2, ones)
    torch.testing.assert_close(x, words[0] ^ words[1] ^ words[2] ^ words[3])
    for write in (roof.library().roof_write, roof.library().roof_write_streaming):
        x = torch.zeros(40, dtype=torch.int64)[:37]
        write(roof._address(x), *pointers[1:3], roof._words(x), 2, ones)
        torch.testing.assert_close(x, words[1] ^ words[2])


@DTYPES
def test_the_roof_of_a_slot_of_eight_bits_touches_every_byte(dtype: torch.dtype) -> None:
    integer = {2: torch.int16, 4: torch.int32}[dtype.itemsize]
    a, b = torch.randint(-(2**15), 2**15, (2, 5, 37)).to(integer)
    slot, scale = torch.arange(5 * 37).view(5, 37).to(torch.uint8), torch.arange(5).int()
    expected = slot ^ (a ^ b).to(torch.uint8)
    ones, sizes = roof.ctypes.c_uint64(2**64 - 1), map(roof.ctypes.c_size_t, (5, 37, a.itemsize))
    pointers = [roof._address(tensor) for tensor in (slot, scale, a, b)]
    roof.library().roof_store_bytes(*pointers, *sizes, 2, ones)
    assert torch.equal(slot, expected)
    assert torch.equal(scale, ~torch.arange(5).int())


def test_sizes_are_those_of_one_tensor() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        numel = torch.Size(op_cases.shape_of(16, dtype)).numel()
        assert numel * dtype.itemsize == pytest.approx(16 * 2**20, rel=0.02)


def test_a_smoke_run_writes_everything(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.ops.run", "--smoke", "--dtypes", "bf16"]
    subprocess.run([*command, "--out", str(tmp_path)], check=True, cwd=ROOT)
    with (tmp_path / "ops.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    measured = {(f"{row['op']}: {row['case']}", row["provider"]) for row in rows}
    expected = {
        (case.key, name)
        for case in CASES.values()
        for name in case.providers()
        if name != "compile"
    }
    assert measured == expected
    assert all(float(row["ms_p20"]) <= float(row["ms_p80"]) for row in rows)
    assert all(row["cpu"] and row["commit"] and row["torch"] for row in rows)
    assert (tmp_path / "ops.png").stat().st_size > 10_000
    assert "decide: one location, motion" in (tmp_path / "table.md").read_text()


def test_ratios_are_of_the_same_round(tmp_path: Path) -> None:
    rows = [
        ("ours", "2 4 20"), ("roof", "1 3 19"), ("roof streaming", "9 9 9"),
        ("eager", "8 16 80"), ("compile", "3 6 30"),
    ]  # fmt: skip
    with (tmp_path / "raw.csv").open("w") as file:
        file.write("op,case,provider,dtype,size_mb,threads,bytes,calls,ms\n")
        file.writelines(f"a,b,{name},bf16,16,1,8000000,1,{ms}\n" for name, ms in rows)
    ours, *_ = found = op_report.timings(tmp_path / "raw.csv")
    assert (ours.ms_p50, ours.gb_per_s) == (4, 2)
    assert (ours.of_roof, ours.over_eager, ours.over_compile) == (0.75, 4, 1.5)
    assert ours.over_authors is None
    (worst,) = op_report.worst(found)
    assert (worst.of_roof, worst.over_eager, worst.over_authors) == (0.75, 4, None)


@pytest.mark.parametrize(
    ("name", "tokens", "channels", "adds"),
    [
        ("Open-Sora", 54000, 1152, 112),
        ("Latte", 16 * 32 * 32, 1152, 112),
        ("Wan", 75600, 5120, 80),
        ("HunyuanVideo", 118800, 3072, 80),
    ],
)
def test_sizes_of_the_models(name: str, tokens: int, channels: int, adds: int) -> None:
    (model,) = [model for model in predict_gpu.MODELS if model.name.startswith(name)]
    assert (model.tokens, model.channels, model.adds) == (tokens, channels, adds)
    reused = predict_gpu.authors(model)["reused step"]
    streams = 1 + bool(model.text_tokens)
    assert len(reused.kernels) == adds * streams * model.calls


def test_eager_kernels_are_counted_op_by_op() -> None:
    x = torch.empty(1000, dtype=torch.bfloat16, device="meta")
    # A difference, and a copy that does not read its target.
    work = predict_gpu.count(op_baselines.residual, x, x, x)
    assert work.kernels == (6000, 4000)
    # Views launch nothing; a reduction reads once.
    frames = torch.empty(1, 4, 5, 6, device="meta")
    work = predict_gpu.count(lambda x: x[:, 1:].norm(1), frames)
    assert work.kernels == (3 * 5 * 6 * 4 + 4,)


def test_a_kernel_takes_its_bytes_or_its_launch() -> None:
    work = predict_gpu.Work((0, 1_700_000_000))
    assert work.milliseconds(2e12) == pytest.approx(1 + predict_gpu.LAUNCH_US / 1e3)


def test_the_committed_predictions_are_what_the_script_prints(tmp_path: Path) -> None:
    predict_gpu.write(tmp_path)
    for name in ("predicted_gpu.md", "predicted_gpu.csv"):
        committed = (BENCH / "results" / name).read_text()
        assert (tmp_path / name).read_text().splitlines() == committed.splitlines()
        assert predict_gpu.HEADER in committed


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would tune for minutes")
def test_tuning_needs_a_gpu() -> None:
    command = [sys.executable, "-m", "bench.ops.tune"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert "CUDA GPU" in done.stderr


def test_a_smoke_run_of_the_overhead_writes_its_table(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.runtime.overhead", "--models", "demo", "--rounds", "2"]
    subprocess.run([*command, "--out", str(tmp_path)], check=True, cwd=ROOT)
    with (tmp_path / "overhead.csv").open(newline="") as file:
        rows = {row["way"]: row for row in csv.DictReader(file)}
    patched = {*overhead_report.COMPUTED, *overhead_report.REUSED}
    again = {"unpatched again", "block lists emptied again"}
    followed = set(overhead_report.FOLLOWED.values())
    assert set(rows) == {*patched, *again, *followed, "unpatched", "block lists emptied"}
    assert all(rows[way]["against"] == "unpatched" for way in overhead_report.COMPUTED)
    assert all(rows[way]["against"] == "block lists emptied" for way in overhead_report.REUSED)
    assert all(float(row["wall_min"]) > 0 and row["rounds"] == "2" for row in rows.values())
    table = (tmp_path / "overhead.md").read_text()
    assert all(f"| {way} |" in table for way in rows)


def test_overhead_ratios_are_of_the_same_round() -> None:
    times = {
        "unpatched": [(1_000_000, 1_000_000), (4_000_000, 2_000_000), (10_000_000, 3_000_000)],
        "codebook never reuses": [
            (2_000_000, 3_000_000), (12_000_000, 4_000_000), (10_000_000, 3_000_000),
        ],
    }  # fmt: skip
    base, row = overhead_report.rows("m", times)
    assert (base.ratio_p50, base.of_min) == (1, 1)
    assert (row.wall_p50, row.ratio_p50, row.cpu_ratio_p50, row.of_min) == (10, 2, 2, 2)


def test_the_cache_needs_the_bytes_of_the_table() -> None:
    """Plan again from the models' shapes; no model runs."""
    from bench.runtime import cache_bytes

    table = cache_bytes.RESULT.read_text().splitlines()
    assert [cache_bytes.row(case) for case in cache_bytes.CASES] == table[-len(cache_bytes.CASES) :]
