"""`adacache bench quality`: methods, costs, resumed rows, tables, plots, errors."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import adacache_kernels as ak
from adacache_kernels.cli import main as cli
from adacache_kernels.cli.common import progress_bar, read_prompts, split_methods
from adacache_kernels.evaluate import contact_sheet, pipelines
from adacache_kernels.evaluate.method_spec import Method, parse_method, parse_methods
from adacache_kernels.evaluate.pipelines import Subject
from adacache_kernels.evaluate.results import Case, Row, read_rows
from adacache_kernels.evaluate.runner import Study
from adacache_kernels.evaluate.table_lines import table_lines
from adacache_kernels.evaluate.tables import markdown
from adacache_kernels.measure import lpips_vbench
from adacache_kernels.measure.costs import counted_work
from tests.support.tiny_pipelines.latte_and_wan import latte, run_latte

STEPS = 8


def subject() -> Subject:
    """Return the tiny Latte, with its latents as frames."""
    pipe = latte()

    def generate(prompt: str, steps: int, seed: int) -> Any:
        scale = 1 + 0.1 * len(prompt) + seed
        latents = run_latte(pipe, steps, latents=torch.ones(1, 4, 4, 8, 8) * scale)
        frames = torch.sigmoid(latents)[0].permute(1, 2, 3, 0)[..., :3].repeat(1, 2, 2, 1)
        return frames.numpy().astype(np.float32)

    return Subject(pipe, generate)


def parsed(*names: str) -> list[Method]:
    return parse_methods(names, STEPS)


NAMES = (
    "adacache:codebook={inf: 3}".replace("inf", "9e9"),
    "even:5:forecast=1",
    "steps:4",
    "steps:4:UniPCMultistepScheduler",
)
CASES = [Case("a", 0), Case("bc", 0), Case("a", 1)]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    folder = tmp_path_factory.mktemp("study")
    return Study(subject(), parsed(*NAMES), STEPS).run(CASES, folder)


def by_method(rows: Sequence[Row], name: str) -> list[Row]:
    return [row for row in rows if row.method == name]


def test_every_method_has_a_row_for_every_video(rows: list[Row]) -> None:
    for name in ("full", *NAMES):
        assert [(row.prompt, row.seed) for row in by_method(rows, name)] == [
            (case.prompt, case.seed) for case in CASES
        ]


def test_the_values_of_rows(rows: list[Row]) -> None:
    full, adacache, even, fewer, other = (by_method(rows, n)[0] for n in ("full", *NAMES))
    assert (full.psnr, full.ssim, full.computed, full.cache_bytes) == (None, 1.0, STEPS, 0)
    assert adacache.computed_steps == [1, 2, 5, 7, 8] and adacache.distances[0] is None
    assert all(distance is not None for distance in adacache.distances[1:])
    assert even.computed == 5
    assert (fewer.scheduled, fewer.computed, fewer.waits) == (4, 4, 0)
    assert fewer.curve == "fewer steps" and other.curve == "fewer steps, UniPCMultistep"
    for row in (adacache, even, fewer, other):
        assert row.psnr is not None and 10 < row.psnr < 100 and row.ssim < 1
        assert row.seconds > 0 and row.full_seconds == full.full_seconds
    assert adacache.cache_bytes and adacache.cache_bytes > 0 and adacache.peak_bytes is None


def test_the_pipeline_is_as_before_after_every_method() -> None:
    own = subject()
    before = vars(own.pipe.transformer).copy(), own.pipe.scheduler
    for method in parsed(*NAMES):
        with method.applied(own.pipe):
            changed = vars(own.pipe.transformer) != before[0] or own.pipe.scheduler is not before[1]
            assert changed == (method.name != "steps:4")
        assert vars(own.pipe.transformer) == before[0] and own.pipe.scheduler is before[1]


def test_flops_are_counted_for_the_first_video(rows: list[Row]) -> None:
    """A computed step has a fixed number of operations; a reused step has almost none."""
    full = by_method(rows, "full")
    assert full[0].flops is not None and full[1].flops is None
    adacache, fewer = by_method(rows, NAMES[0])[0], by_method(rows, "steps:4")[0]
    assert fewer.flops == full[0].flops // 2
    computed_only = full[0].flops * len(adacache.computed_steps) / STEPS
    assert computed_only < adacache.flops < computed_only * 1.15  # type: ignore[operator]


def test_flops_of_a_known_module() -> None:
    """Two operations for a multiplication and an addition: products, and attention on a CPU."""
    linear = torch.nn.Linear(3, 5, bias=False)
    with counted_work(linear) as work:
        linear(torch.ones(2, 3))
        linear(torch.ones(4, 3))
    assert work.flops == [2 * 2 * 3 * 5, 2 * 4 * 3 * 5] and work.total == 180

    class Attention(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.scaled_dot_product_attention(x, x, x)

    attention = Attention()
    with counted_work(attention) as work, torch.no_grad():
        attention(torch.ones(1, 4, 6, 8))
    assert work.total == 2 * (2 * 4 * 6 * 6 * 8)


def test_an_interrupted_run_resumes(tmp_path: Path) -> None:
    """Existing rows stay unchanged; only the missing ones are generated."""
    own = subject()
    half = Study(own, parsed(NAMES[0]), STEPS, flops=False)
    half.run(CASES[:1], tmp_path)
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    reports: list[str] = []
    whole = Study(own, parsed(*NAMES[:2]), STEPS, flops=False)
    resumed = whole.run(CASES[:2], tmp_path, lambda doing, done, total: reports.append(doing))
    assert (tmp_path / "rows.jsonl").read_text().splitlines()[: len(lines)] == lines
    assert len(resumed) == 6 and len(reports) == 4
    assert len({row.key for row in resumed}) == 6
    assert len(list((tmp_path / "strips").iterdir())) == 6


def test_rows_of_another_version_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"method": "full"}\n')
    with pytest.raises(ValueError, match=r"line 1: .* written by another version"):
        read_rows(tmp_path / "rows.jsonl")
    (tmp_path / "rows.jsonl").write_text("half a li")
    with pytest.raises(ValueError, match="line 1: not JSON"):
        read_rows(tmp_path / "rows.jsonl")


def fixed_row(method: str, psnr: float | None, computed: int, seconds: float, **other: Any) -> Row:
    values: dict[str, Any] = {
        "curve": method, "prompt": "a", "seed": 0, "scheduled": 10, "ssim": 0.9, "lpips": None,
        "pipeline_seconds": seconds + 1, "full_seconds": 8.0, "full_pipeline_seconds": 9.0,
        "flops": None, "peak_bytes": None, "cache_bytes": 2**20, "waits": 5, "computed_steps": [],
        "distances": [],
    }  # fmt: skip
    row = {"method": method, "psnr": psnr, "computed": computed, "seconds": seconds}
    return Row(**values | row | other)


def test_a_line_is_the_mean_over_videos() -> None:
    rows = [
        fixed_row("m", 20.0, 4, 2.0, flops=3 * 10**12),
        fixed_row("m", 40.0, 6, 4.0, seed=1, peak_bytes=2**30, lpips=0.5),
    ]
    (line,) = table_lines(rows, {"m": 0.75})
    assert (line.videos, line.computed, line.computed_least, line.computed_most) == (2, 5, 4, 6)
    assert line.psnr == 30 and line.psnr_worst == 20
    assert line.psnr_of_mse == pytest.approx(-10 * math.log10((1e-2 + 1e-4) / 2))
    assert (line.speedup, line.pipeline_speedup) == (3.0, pytest.approx((9 / 3 + 9 / 5) / 2))
    assert (line.teraflops, line.peak_gib, line.cache_mib, line.waits) == (3, 1, 1, 0.5)
    assert (line.lpips, line.scores) == (0.5, 0.75)


def test_the_gain_is_a_mean_over_videos() -> None:
    """Differences 2 and 4 of the videos of both methods: 3 +- sqrt(2) / sqrt(2)."""
    rows = [
        fixed_row("ours", psnr, 4, 2.0, seed=seed) for seed, psnr in enumerate((32.0, 24.0, 99.0))
    ]
    rows += [fixed_row("theirs", psnr, 4, 2.0, seed=seed) for seed, psnr in enumerate((30.0, 20.0))]
    ours, theirs = table_lines(rows, against="theirs")
    assert (ours.gain, ours.gain_error) == (3.0, pytest.approx(1.0))
    assert (theirs.gain, theirs.gain_error) == (0.0, 0.0)
    assert "| +3.00 +- 1.00 |" in "\n".join(markdown([ours, theirs]))
    assert "gain" not in "\n".join(markdown(table_lines(rows)))


def test_columns_that_were_not_measured_are_left_out(rows: list[Row]) -> None:
    text = "\n".join(markdown(table_lines(rows)))
    assert "TFLOPs" in text and "LPIPS" not in text and "VBench" not in text and "GiB" not in text
    assert text.count("\n") == len(NAMES) + 2
    assert "| full | 8.0 | 1.000 | equal |" in text


def test_the_command_writes_tables_and_plots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipelines, "load", lambda *args, **kwargs: subject())
    options = ["--methods", NAMES[0], "steps:4,even:5", "--steps", str(STEPS)]
    arguments = ["bench", "quality", "--prompts", "a", "bc", *options, "--out", str(tmp_path)]
    assert cli.main(arguments) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert {"table.md", "table.csv", "table.json", "rows.jsonl", "study.json"} <= names
    assert {"distances.png", "frontier.png", "contact_sheet.png"} <= names
    table = json.loads((tmp_path / "table.json").read_text())
    assert [line["method"] for line in table] == ["full", NAMES[0], "steps:4", "even:5"]
    assert "| steps:4 |" in capsys.readouterr().out
    assert cli.main([*arguments, "--seeds", "2"]) == 0
    assert cli.main([*arguments[:-3], "9", *arguments[-2:]]) == 2
    assert "holds a study with other steps" in capsys.readouterr().err


def test_prompts_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("one\n\ntwo words\n")
    assert read_prompts([str(path)]) == ["one", "two words"]
    path.write_text("\n")
    with pytest.raises(ValueError, match="has no prompt; write one a line"):
        read_prompts([str(path)])
    with pytest.raises(ValueError, match="a prompt of --prompts is empty"):
        read_prompts(["one", " "])


def test_methods_are_split_outside_of_brackets() -> None:
    text = "fast, adacache:codebook={0.1: 3, 9: 1}:cache_loc=(0, 1),steps:4"
    names = ["fast", "adacache:codebook={0.1: 3, 9: 1}:cache_loc=(0, 1)", "steps:4"]
    assert split_methods(text) == names


@pytest.mark.parametrize(
    "name, message",
    [
        ("quick", r"method 'quick': there are fast, slow, forecast, adacache, even:COUNT"),
        ("fast:3", r"method 'fast:3': '3' is no option; write key=value"),
        ("steps", r"method 'steps': after the colon comes a number of steps, 1 to 8"),
        ("steps:9", r"method 'steps:9': after the colon comes a number of steps, 1 to 8"),
        ("steps:4:Nothing", r"diffusers has no scheduler Nothing"),
        ("steps:4:x=1", r"write steps:COUNT or steps:COUNT:SCHEDULER"),
        ("fast:treshold=3", r"method 'fast:treshold=3': unknown setting treshold; there are"),
        ("fast:codebook=3", r"method 'fast:codebook=3': .*codebook"),
        ("FirstBlockCache:treshold=3", r"no option treshold; there are threshold, help"),
        ("TaylorSeerCache:taylor_factors_dtype=flot", r"torch has no dtype flot"),
        ("MagCache:mag_ratios=nothing.json", r"nothing.json holds no list of numbers"),
        ("profile", r"no profile ships for 8 steps, only for 50, 100; `adacache calibrate` makes"),
        ("refined:7", r"of 8 steps there are refined schedules of none; write refined:COUNT"),
        ("even:x", r"method 'even:x': after the colon comes a number"),
    ],
)
def test_wrong_methods(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_method(name, STEPS)


def test_a_cache_of_diffusers_by_name() -> None:
    """Applied and removed; a cache that needs timesteps gets the pipeline's."""
    from types import SimpleNamespace

    from tests.support.tiny_models.chained_models import VIDEOS

    pipe = SimpleNamespace(transformer=VIDEOS["ltx"].build(), _current_timestep=500)
    for name in ("FirstBlockCache:threshold=0.2", "PyramidAttentionBroadcastConfig"):
        with parse_method(name, STEPS).applied(pipe) as last_summary:
            assert pipe.transformer.is_cache_enabled and last_summary() is None
        assert not pipe.transformer.is_cache_enabled


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


@pytest.mark.parametrize(
    "name, call, message",
    [
        ("demo", {"height": 3}, r"the demo takes guidance=, not height"),
        ("nothing.py:build", {}, r"nothing.py is no file"),
    ],
)
def test_wrong_pipelines(name: str, call: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipelines.load(name, arguments=call)


def test_a_pipeline_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text("def build(device, scale):\n    return device, lambda *a: scale\n")
    own = pipelines.load(f"{path}:build", device="cpu", arguments={"scale": 3})
    assert (own.pipe, own.generate("a", 1, 0)) == ("cpu", 3)
    with pytest.raises(ValueError, match=r"has no function nothing; it has to return \(pipe"):
        pipelines.load(f"{path}:nothing")


def test_the_output_of_a_pipeline() -> None:
    from types import SimpleNamespace

    video = np.ones((1, 4, 8, 8, 3)) * 2
    assert pipelines.as_video(SimpleNamespace(frames=video)).shape == (4, 8, 8, 3)
    image = pipelines.as_video(SimpleNamespace(images=np.zeros((1, 8, 8, 3))))
    assert image.shape == (1, 8, 8, 3)
    with pytest.raises(ValueError, match=r"shape \(1, 8, 8, 5\); expected frames"):
        pipelines.as_video(SimpleNamespace(images=np.zeros((1, 8, 8, 5))))


def test_a_gain_over_a_method_that_is_not_compared(tmp_path: Path) -> None:
    options = ["--methods", "fast", "--against", "slow", "--out", str(tmp_path)]
    assert cli.main(["bench", "quality", "--prompts", "a", *options]) != 0


def test_two_methods_of_one_name() -> None:
    with pytest.raises(ValueError, match="--methods has fast twice"):
        parsed("fast", "fast")
    assert ak.__version__


@pytest.mark.parametrize("steps", [50, 100])
def test_the_methods_of_the_papers_table_are_known(steps: int, tmp_path: Path) -> None:
    from bench.quality import paper_table

    ratios = tmp_path / "ratios.json"
    ratios.write_text(json.dumps([1.0] * steps))
    names = paper_table.methods(steps, ratios)
    assert len(set(names)) == len(names) >= 25
    curves = {parse_method(name, steps).curve for name in names}
    assert {"pab", "t-gate", "delta-dit", "per-layer", "first-block", "mag-cache"} <= curves
    assert {"fewer steps", "fewer steps, DPMSolverMultistep", "forecast", "slow"} <= curves
    assert len(paper_table.PROMPTS) == len(set(paper_table.PROMPTS)) == 24


def test_the_contact_sheet(tmp_path: Path) -> None:
    """Each strip has eight frames, large ones are resized; the sheet shows eight of nine videos."""
    from PIL import Image

    rows = [fixed_row("fast", 30.0, 4, 1.0, seed=seed) for seed in range(9)]
    for row in rows:
        path = contact_sheet.strip_path(tmp_path, row)
        contact_sheet.save_strip(np.full((16, 192, 100, 3), 0.1 * row.seed, np.float32), path)
        with Image.open(path) as strip:
            assert strip.size == (8 * 50, 96)
    contact_sheet.save_contact_sheet(rows, tmp_path)
    with Image.open(tmp_path / "contact_sheet.png") as sheet:
        assert sheet.size == (contact_sheet.LABEL_WIDTH + 8 * 50, 8 * (96 + contact_sheet.GAP))
        middles = [sheet.getpixel((sheet.width - 200, 99 * row + 48)) for row in range(8)]
    assert middles == [3 * (round(25.5 * seed),) for seed in range(8)]


def test_methods_with_about_equal_work_share_a_table() -> None:
    from bench.quality import paper_table

    near = {paper_table.ours(50, 25): (25, 40.0), "even:25": (27, 35.0)}
    far = {"fast": (11, 30.0), paper_table.ours(50, 17): (17, 38.0)}
    rows = [fixed_row(name, psnr, count, 1.0) for name, (count, psnr) in (near | far).items()]
    halves = paper_table.matched(rows, 50).split("17 of 50")[0].splitlines()
    cells = [line.split(" | ") for line in halves if line.startswith("| ")][1:]
    assert [cell[0].strip("| ") for cell in cells] == list(near)
    assert [cell[3] for cell in cells] == ["+0.00 +- 0.00", "-5.00 +- 0.00"]


def test_the_variants_of_the_ablations_compute_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thresholds are scaled to equal computed steps; here 20 / scale, and 40 / scale for l2."""
    from bench.quality import ablations

    def mean_computed(pipe: Any, config: Any, settings: dict[str, Any], cases: Any) -> float:
        thresholds = list(dict(config.codebook if config else settings["codebook"]))
        return (40 if settings.get("metric") == "l2" else 20) / (thresholds[0] / 0.075)

    monkeypatch.setattr(ablations, "load_pipeline", lambda weights: None)
    monkeypatch.setattr(ablations, "mean_computed", mean_computed)
    variants = ablations.codebook_methods()
    assert len(variants) == len(ablations.VARIANTS) + 2
    assert all(parse_method(name, ablations.STEPS) for name in variants.values())
    codebook = variants["L2"].split("{")[1]
    assert float(codebook.split(":")[0]) == pytest.approx(0.15, rel=0.05)


def test_ablations_by_motion_and_by_budget() -> None:
    from bench.quality import ablations

    words = {"plain": "adacache:codebook={1: 2}", "MoReg": "adacache:codebook={2: 2}"}
    rows = [
        fixed_row(name, psnr + fast, 17, 1.0, prompt=f"a white six {motion}")
        for psnr, name in zip((30.0, 31.0), words.values(), strict=True)
        for fast, motion in enumerate(("standing still", "moving fast"))
    ]
    rows += [fixed_row(name.format(17), 40.0, 17, 1.0) for name in ablations.FORECASTS]
    tables_of = ablations.report(rows, words).split("Codebooks, ")
    fast = next(text for text in tables_of if text.startswith("moving fast"))
    assert "| plain | 17.0 | 31.0 / 31.0 / 31.0 | +0.00 +- 0.00 |" in fast
    assert "| MoReg | 17.0 | 32.0 / 32.0 / 32.0 | +1.00 +- 0.00 |" in fast
    assert tables_of[-1].count("+0.00 +- 0.00") >= len(ablations.FORECASTS)
    for name in (text.format(17) for text in ablations.FORECASTS):
        assert parse_method(name, ablations.STEPS)


def test_ratios_from_a_broken_file(tmp_path: Path) -> None:
    path = tmp_path / "ratios.json"
    path.write_text("{")
    with pytest.raises(ValueError, match="holds no list of numbers"):
        parse_method(f"mag-cache:ratios={path}", STEPS)


def test_the_bar_shows_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    """A study resumes at the fifth video, and another count follows."""
    with progress_bar() as show:
        show("a: fast", 5, 8)
        show("b: slow", 6, 8)
        show("held-out cases", 1, 8)
        show("held-out cases", 2, 8)
    shown = capsys.readouterr().err
    assert "b: slow:  75%" in shown and "6/8" in shown
    assert "held-out cases:  25%" in shown.splitlines()[-1]
