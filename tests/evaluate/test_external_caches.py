"""Caches of other packages in `adacache bench quality`: with and without workarounds, errors."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import adacache_kernels as ak
from adacache_kernels.cli import main as cli
from adacache_kernels.evaluate import external_caches, pipelines
from adacache_kernels.evaluate.latte_pairs import paired
from adacache_kernels.evaluate.method_spec import Method, full_method, parse_method
from adacache_kernels.evaluate.results import Case, read_rows
from adacache_kernels.evaluate.runner import Study
from adacache_kernels.evaluate.table_lines import IDLE, table_lines
from adacache_kernels.evaluate.tables import markdown
from adacache_kernels.measure import costs
from tests.support.oracles.baselines import relative
from tests.support.tiny_models.common_models import TINY, denoise
from tests.support.tiny_pipelines.latte_and_wan import latte, run_latte, run_wan, wan
from tests.support.tiny_study import STEPS, fixed_row, subject

FLOAT32 = "taylor_factors_dtype=float32"


def ran(pipe: Any, run: Any, name: str) -> tuple[Tensor, Method, int]:
    """Return the output of a pipeline by a method, the method, and the operations."""
    method = parse_method(name, STEPS)
    with method.applied(pipe), costs.counted_work(pipe.transformer) as work:
        return run(pipe, STEPS), method, work.total


def test_pairs_of_latte_blocks_compute_the_same_to_the_bit() -> None:
    tiny = TINY["latte"]
    model = tiny.build()
    before, names = dict(model._modules), [name for name, _ in model.named_parameters()]
    expected = denoise(tiny, model, 3)
    with paired(model):
        assert len(model.transformer_blocks) == 3
        assert all(map(torch.equal, denoise(tiny, model, 3), expected))
    assert dict(model._modules) == before
    assert [name for name, _ in model.named_parameters()] == names
    assert all(map(torch.equal, denoise(tiny, model, 3), expected))


def test_pairs_take_the_timestep_of_each_video_of_a_batch() -> None:
    tiny = TINY["latte"]
    model = tiny.build()
    inputs = {
        "hidden_states": tiny.noise(2),
        "timestep": torch.tensor([900, 100]),
        "encoder_hidden_states": tiny.text(2),
        "return_dict": False,
    }
    with torch.no_grad():
        expected = model(**inputs)[0]
        with paired(model):
            assert torch.equal(model(**inputs)[0], expected)


def test_pairs_run_no_temporal_block_where_the_model_does_not() -> None:
    tiny = TINY["latte"]
    model = tiny.build()
    inputs = {
        "hidden_states": tiny.noise(),
        "timestep": torch.tensor([500]),
        "encoder_hidden_states": tiny.text(),
        "enable_temporal_attentions": False,
        "return_dict": False,
    }
    with torch.no_grad():
        expected = model(**inputs)[0]
        with paired(model):
            assert torch.equal(model(**inputs)[0], expected)


@pytest.mark.parametrize(("make", "run"), [(latte, run_latte), (wan, run_wan)])
def test_taylorseer_of_diffusers_forecasts_what_ours_does(make: Any, run: Any) -> None:
    """Two implementations of one method: on Latte, and with guidance in two calls.

    The default patterns of diffusers match none of these modules; the workaround passes ours.
    """
    pipe = make()
    name = f"TaylorSeerCache:cache_interval=2:{FLOAT32}"
    theirs, method, work = ran(pipe, run, name)
    ours, _, own_work = ran(pipe, run, "taylorseer:interval=2:warmup=3")
    assert work == own_work
    # The same terms summed in another order, over 8 steps: about 1e-7 of the largest value each.
    assert relative(theirs, ours) < 1e-5
    assert external_caches.PATTERNS_NOTE in method.notes
    assert (external_caches.CONTEXT_NOTE in method.notes) == (make is latte)


def test_taylorseer_of_diffusers_does_nothing_without_workarounds() -> None:
    pipe = latte()
    plain, _, all_work = ran(pipe, run_latte, "steps:8")
    output, method, work = ran(pipe, run_latte, "TaylorSeerCache:cache_interval=2:help=False")
    assert torch.equal(output, plain) and work == all_work and method.notes == []


WITH_WORKAROUNDS = [
    ("FirstBlockCache:threshold=1.5", [external_caches.PAIRS_NOTE, external_caches.CONTEXT_NOTE]),
    (
        "MagCache:mag_ratios=(1.0,1.0)",
        [external_caches.PAIRS_NOTE, external_caches.STEPS_NOTE, external_caches.CONTEXT_NOTE],
    ),
    (
        "PyramidAttentionBroadcast:spatial_attention_block_skip_range=2",
        [external_caches.TIMESTEP_NOTE],
    ),
    (f"TaylorSeerCache:use_lite_mode=True:{FLOAT32}", [external_caches.CONTEXT_NOTE]),
]


@pytest.mark.parametrize(("name", "notes"), WITH_WORKAROUNDS)
def test_caches_of_diffusers_reuse_on_latte_with_the_noted_workarounds(
    name: str, notes: list[str]
) -> None:
    pipe = latte()
    plain, _, all_work = ran(pipe, run_latte, "steps:8")
    before = vars(pipe.transformer).keys() | {"_cache_config", "_diffusers_hook", "forward"}
    _, method, work = ran(pipe, run_latte, name)
    assert work < 0.95 * all_work
    assert method.notes == notes
    assert vars(pipe.transformer).keys() <= before
    assert torch.equal(ran(pipe, run_latte, "steps:8")[0], plain)


WITHOUT_WORKAROUNDS = [
    ("FirstBlockCache:help=False", "No cache context is set"),
    ("TaylorSeerCache:use_lite_mode=True:help=False", "No cache context is set"),
    ("PyramidAttentionBroadcast:spatial_attention_block_skip_range=2:help=False", "callback"),
]


@pytest.mark.parametrize(("name", "message"), WITHOUT_WORKAROUNDS)
def test_an_error_without_workarounds_leaves_the_pipeline_unchanged(
    name: str, message: str
) -> None:
    pipe = latte()
    plain = run_latte(pipe, STEPS)
    with pytest.raises(ValueError, match=message):
        ran(pipe, run_latte, name)
    assert torch.equal(run_latte(pipe, STEPS), plain)


def test_a_pipeline_that_names_its_calls_keeps_its_names() -> None:
    pipe = wan()
    _, method, _ = ran(pipe, run_wan, "FirstBlockCache:threshold=1.5")
    assert method.notes == []
    assert "cache_context" not in vars(pipe.transformer)


def test_cache_dit_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cache_dit", None)
    with pytest.raises(ValueError, match=r"method 'cache-dit': pip install cache-dit"):
        parse_method("cache-dit", STEPS)


def test_cache_dit_on_latte() -> None:
    pytest.importorskip("cache_dit")
    pipe = latte()
    plain, _, all_work = ran(pipe, run_latte, "steps:8")
    name = "cache-dit:Fn_compute_blocks=1:max_warmup_steps=2:residual_diff_threshold=0.9"
    _, method, work = ran(pipe, run_latte, name)
    assert work < 0.9 * all_work and method.notes == [external_caches.PAIRS_NOTE]
    assert torch.equal(ran(pipe, run_latte, "steps:8")[0], plain)
    with pytest.raises(ValueError, match="LattePipeline is not officially supported"):
        ran(pipe, run_latte, f"{name}:help=False")


class Reader(torch.nn.Module):
    """A module whose forward call reads two numbers and stores one more tensor of 400 bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.stored: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0 and x.max().item() > 0:
            self.stored.append(torch.ones(100))
        return x


def test_reads_and_held_bytes_of_a_known_module() -> None:
    reader, x = Reader(), torch.ones(1000)
    reader(x)
    with costs.held_tensors(reader) as held, costs.counted_work(reader) as work:
        for _ in range(3):
            reader(x)
            x.sum().item()
    assert work.reads == 3 * 2
    # The tensors of two forward calls, when the third begins; earlier ones do not count.
    assert held.bytes == 2 * 400


@pytest.mark.parametrize("name", ["taylorseer:interval=2:order=2", "fast", "pab:cross=3"])
def test_held_bytes_are_the_cache_bytes_that_our_methods_report(name: str) -> None:
    pipe = latte()

    def held_by(method: Method) -> tuple[int, Any]:
        with costs.held_tensors(pipe.transformer) as held, method.applied(pipe) as last_summary:
            run_latte(pipe, STEPS)
            return held.bytes, last_summary()

    full, _ = held_by(full_method(STEPS))
    bytes_held, summary = held_by(parse_method(name, STEPS))
    # The decision state adds 16 KiB, with that of the measuring kernels.
    assert 0 <= bytes_held - full - summary.cache_bytes <= 20 * 2**10


NAMES = ("FirstBlockCache:help=False", "even:4", "TaylorSeerCache:help=False")


def test_a_method_that_raises_is_a_row_and_the_others_continue(tmp_path: Path) -> None:
    study = Study(subject(), [parse_method(name, STEPS) for name in NAMES], STEPS)
    rows = study.run([Case("a", 0), Case("bc", 0)], tmp_path)
    assert [row.method for row in rows] == ["full", *NAMES[1:]] * 2
    (failure,) = study.failures
    assert failure.method == NAMES[0] and failure.videos == 0
    assert failure.error.startswith("ValueError: No cache context is set.")
    table = table_lines(rows)
    assert [line.notes for line in table] == [(), (), (IDLE,)]
    assert table[2].work == 1.0 and table[1].work and table[1].work < 1
    assert table[2].computed is None and table[2].reads == 0 and table[2].held_mib == 0
    text = list(markdown(table, study.failures))
    assert text[-1].startswith("| FirstBlockCache:help=False | ValueError: No cache context")
    assert text[-1].count("|") == text[0].count("|")
    assert "| 1.000 | equal |" in text[4]
    # A resumed run tries it again.
    study.run([Case("a", 0)], tmp_path)
    assert len(study.failures) == 1


def test_a_full_run_that_raises_stops_the_study(tmp_path: Path) -> None:
    own = subject()
    own.pipe.transformer.forward = None
    with pytest.raises(TypeError):
        Study(own, [parse_method("fast", STEPS)], STEPS).run([Case("a", 0)], tmp_path)


def test_a_full_run_that_cannot_be_counted_stops_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no counter")

    monkeypatch.setattr(Study, "_count", fail)
    with pytest.raises(RuntimeError, match="no counter"):
        Study(subject(), [parse_method("even:4", STEPS)], STEPS).run([Case("a", 0)], tmp_path)


def test_tables_and_exit_codes_of_methods_that_raise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipelines, "load", lambda *args, **kwargs: subject())

    def command(out: Path, *names: str) -> int:
        given = ["--prompts", "a", "--steps", str(STEPS), "--out", str(out), "--methods", *names]
        return cli.main(["bench", "quality", *given])

    some, none = tmp_path / "some", tmp_path / "none"
    assert command(some, *NAMES) == 0
    text = (some / "table.md").read_text()
    assert f"[1] {IDLE}" in text and "TaylorSeerCache:help=False [1]" in text
    assert "Held: bytes of tensors" in text
    with (some / "table.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [row["method"] for row in read] == ["full", *NAMES[1:], NAMES[0]]
    assert read[-1]["error"].startswith("ValueError") and read[0]["error"] == ""
    assert json.loads((some / "table.json").read_text())[-1]["error"].startswith("ValueError")
    assert command(none, NAMES[0]) == 2
    assert "every method failed, the first with ValueError" in capsys.readouterr().err
    assert (none / "table.md").exists()
    assert command(tmp_path / "typo", "FirstBlokCache") == 2
    assert not (tmp_path / "typo").exists()


def test_notes_are_numbered_once() -> None:
    rows = [
        fixed_row("full", None, 10, 8.0, flops=10, reads=0, held_bytes=0),
        fixed_row("a", 20.0, 5, 4.0, flops=5, reads=20, held_bytes=2**21, notes=("x", "y")),
        fixed_row("b", 20.0, 5, 4.0, flops=5, reads=20, held_bytes=2**20, notes=("y",)),
    ]
    table = list(markdown(table_lines(rows)))
    assert "| a [1] [2] |" in table[3] and "| b [2] |" in table[4]
    assert "| 0.500 |" in table[3] and "| 2.00 |" in table[3]
    assert table_lines(rows)[1].reads == 2


def test_rows_without_counts_can_be_read(tmp_path: Path) -> None:
    from dataclasses import asdict

    values = asdict(fixed_row("m", 20.0, 4, 2.0))
    for name in ("reads", "held_bytes", "notes"):
        del values[name]
    (tmp_path / "rows.jsonl").write_text(json.dumps(values) + "\n")
    (row,) = read_rows(tmp_path / "rows.jsonl")
    assert (row.reads, row.held_bytes, row.notes) == (None, None, ())


def test_the_methods_of_the_table_of_peers_are_known(tmp_path: Path) -> None:
    from bench.quality import peers_table

    ratios = tmp_path / "ratios.json"
    ratios.write_text(json.dumps([1.0] * 50))
    demo = peers_table.demo_methods(ratios)
    assert len(set(demo)) == len(demo) >= 25
    curves = {parse_method(name, peers_table.STEPS).curve for name in demo}
    assert {"taylorseer", "FirstBlockCache", "profile", "fewer steps"} <= {
        curve.split(" forecast")[0] for curve in curves
    }
    for name in peers_table.wan_methods(ratios):
        parse_method(name, peers_table.WAN_STEPS)


def test_the_wan_pipeline_with_random_weights_runs() -> None:
    from bench.runtime import random_wan

    pipe, generate = random_wan.build("cpu", layers=2, heads=2, head_dim=16)
    video = generate("a", 2, 0)
    assert video.shape == (3, 16, 16, 3) and 0 <= video.min() < video.max() <= 1
    assert (video == generate("a", 2, 0)).all() and (video != generate("b", 2, 0)).any()
    ak.patch(pipe, "fast")
    generate("a", 2, 0)
    assert ak.summary(pipe).num_steps == 2
