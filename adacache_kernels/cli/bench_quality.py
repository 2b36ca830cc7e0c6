"""`adacache bench quality`: checks what it was given, runs the study, writes tables and plots."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..evaluate.method_spec import Method, parse
from ..evaluate.results import Case
from ..evaluate.runner import Study
from ..measure.lpips_vbench import check_installed, vbench_scores
from .common import call_arguments, check_extras, progress_bar, read_prompts, split_methods

DEFAULT = "slow,fast,forecast,steps:25,steps:17"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `adacache bench`."""
    kinds = parser.add_subparsers(dest="bench", required=True)
    quality = kinds.add_parser("quality", help="quality, work, time and memory of methods")
    quality.add_argument(
        "--pipeline",
        default="demo",
        help='"demo", a folder or hub name for diffusers, or FILE.py:FUNCTION (default demo)',
    )
    quality.add_argument(
        "--prompts",
        nargs="+",
        required=True,
        help="prompts, or one file with a prompt a line",
    )
    quality.add_argument(
        "--methods",
        nargs="+",
        default=[DEFAULT],
        help=f"with commas or spaces between, see the README (default {DEFAULT})",
    )
    quality.add_argument("--steps", type=int, default=50, help="scheduler steps (default 50)")
    quality.add_argument("--seeds", type=int, default=1, help="of each prompt (default 1)")
    quality.add_argument("--first-seed", type=int, default=0, help="default 0")
    quality.add_argument(
        "--against", help="one of --methods: a column tells what each gains over it, by video"
    )
    quality.add_argument("--lpips", action="store_true", help="measure LPIPS (package lpips)")
    quality.add_argument("--vbench", action="store_true", help="judge by VBench (package vbench)")
    quality.add_argument(
        "--no-flops", action="store_true", help="count no operations, reads, bytes held"
    )
    quality.add_argument("--device", help="such as cpu or cuda")
    quality.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    quality.add_argument(
        "--call", nargs="*", default=[], metavar="KEY=VALUE", help="arguments of the pipeline"
    )
    quality.add_argument("--out", type=Path, default=Path("quality_out"))


def run(arguments: argparse.Namespace) -> None:
    """Run the study; a folder that has rows already is gone on with.

    Raises:
        ValueError, OSError, ImportError: with a message for the user.
    """
    check_extras()
    prompts = read_prompts(arguments.prompts)
    if arguments.steps < 1 or arguments.seeds < 1:
        raise ValueError(
            f"--steps is {arguments.steps} and --seeds {arguments.seeds}; both are at least 1"
        )
    names = [name for text in arguments.methods for name in split_methods(text)]
    methods = [parse(name, arguments.steps) for name in names]
    _check_distinct(methods)
    if arguments.against is not None and arguments.against not in names:
        raise ValueError(f"--against is {arguments.against!r}, which is none of --methods")
    wanted = [name for name in ("lpips", "vbench") if getattr(arguments, name)]
    check_installed(wanted)

    import torch

    from ..evaluate import pipelines, plots, tables

    torch.set_num_threads(arguments.threads)
    call = call_arguments(arguments.call)
    _check_same_study(arguments.out, _identity(arguments, call))
    subject = pipelines.load(arguments.pipeline, device=arguments.device, arguments=call)
    subject.check(prompts)
    first = arguments.first_seed
    cases = [Case(p, seed) for seed in range(first, first + arguments.seeds) for p in prompts]
    study = Study(
        subject, methods, arguments.steps, lpips=arguments.lpips, flops=not arguments.no_flops
    )
    with progress_bar() as show:
        rows = study.run(cases, arguments.out, show)
    scores = _scores(study, cases) if arguments.vbench else None
    found = tables.lines(rows, scores, arguments.against)
    tables.write(found, arguments.out, study.failures)
    plots.write(rows, found, arguments.out)
    print((arguments.out / "table.md").read_text())
    print(f"Written to {arguments.out}/")
    if methods and len(study.failures) == len(methods):
        raise ValueError(f"every method failed, the first with {study.failures[0].error}")


def _scores(study: Study, cases: Sequence[Case]) -> dict[str, float]:
    """VBench's mean over its dimensions, by method. The videos are made once more for it."""
    prompts = [case.prompt for case in cases]
    found = {}
    failed = {failure.method for failure in study.failures}
    for method in (m for m in study.methods if m.name not in failed):
        videos = [study.video(method, case) for case in cases]
        scores = vbench_scores(videos, prompts)
        found[method.name] = sum(scores.values()) / len(scores)
    return found


def _identity(arguments: argparse.Namespace, call: dict[str, Any]) -> dict[str, Any]:
    """What rows must share to stand in one table."""
    return {
        "pipeline": arguments.pipeline,
        "steps": arguments.steps,
        "call": {key: repr(value) for key, value in call.items()},
        "lpips": arguments.lpips,
    }


def _check_same_study(folder: Path, identity: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "study.json"
    if path.exists():
        before = json.loads(path.read_text())
        differing = [key for key in identity if before.get(key) != identity[key]]
        if differing:
            raise ValueError(
                f"{folder} holds a study with other {', '.join(differing)}; give another --out"
            )
        return
    # At once, for another process may read it to make other seeds of the same study.
    written = path.with_suffix(f".{os.getpid()}")
    written.write_text(json.dumps(identity, indent=1))
    written.rename(path)


def _check_distinct(methods: Sequence[Method]) -> None:
    names = [method.name for method in methods]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"--methods has {twice[0]} twice")
