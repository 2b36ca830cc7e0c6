"""`adacache bench quality`: compare methods, and write tables and plots."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..evaluate.method_spec import parse_methods
from ..evaluate.plots import save_plots
from ..evaluate.results import Case, Row, check_same_study
from ..evaluate.runner import Study
from ..evaluate.table_lines import table_lines
from ..evaluate.tables import write_tables
from ..measure.lpips_vbench import check_installed
from .checks import check_folder, check_numbers
from .common import (
    add_pipeline_arguments,
    call_arguments,
    check_extras,
    load_subject,
    progress_bar,
    read_prompts,
    seeds_of,
    shared_work,
    split_methods,
)

DEFAULT_METHODS = "slow,fast,forecast,steps:25,steps:17"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `adacache bench`."""
    kinds = parser.add_subparsers(dest="bench", required=True)
    quality = kinds.add_parser("quality", help="quality, work, time and memory of methods")
    add_pipeline_arguments(quality)
    quality.add_argument(
        "--prompts",
        nargs="+",
        required=True,
        help="prompts, or one file with a prompt a line",
    )
    quality.add_argument(
        "--methods",
        nargs="+",
        default=[DEFAULT_METHODS],
        help="methods, separated by commas or spaces; docs/cli.md explains their names "
        f"(default {DEFAULT_METHODS})",
    )
    quality.add_argument(
        "--against", help="one of --methods: adds a column with the gain over it, video by video"
    )
    quality.add_argument("--lpips", action="store_true", help="measure LPIPS (package lpips)")
    quality.add_argument("--vbench", action="store_true", help="measure VBench (package vbench)")
    quality.add_argument(
        "--no-flops", action="store_true", help="do not count operations, reads and held bytes"
    )
    quality.add_argument(
        "--out", type=Path, default=Path("quality_out"), help="folder (default quality_out)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Compare the methods; a folder that has rows already is resumed.

    Ranks of torchrun or accelerate share out the videos. Only rank 0 prints.

    Raises:
        ValueError, OSError, ImportError, MissingRankError: with a message for the user.
    """
    check_extras()
    prompts = read_prompts(arguments.prompts)
    check_numbers(arguments)
    names = [name for text in arguments.methods for name in split_methods(text)]
    methods = parse_methods(names, arguments.steps)
    if arguments.against is not None and arguments.against not in names:
        raise ValueError(f"--against is {arguments.against!r}, which is none of --methods")
    check_installed([name for name in ("lpips", "vbench") if getattr(arguments, name)])

    check_folder(arguments.out)
    with shared_work(arguments, arguments.out) as work:
        check_same_study(arguments.out, _identity(arguments))
        subject = load_subject(arguments, prompts)
        cases = [Case(prompt, seed) for seed in seeds_of(arguments) for prompt in prompts]
        study = Study(
            subject, methods, arguments.steps, lpips=arguments.lpips, flops=not arguments.no_flops
        )
        with progress_bar(work) as show:
            rows = study.run(cases, arguments.out, show, work)
    if work.rank == 0:
        _report(arguments, study, cases, rows)


def _report(
    arguments: argparse.Namespace, study: Study, cases: Sequence[Case], rows: Sequence[Row]
) -> None:
    """Write the tables and plots, and print the table."""
    scores = study.vbench_means(cases) if arguments.vbench else None
    lines = table_lines(rows, scores, arguments.against)
    write_tables(lines, arguments.out, study.failures)
    save_plots(rows, lines, arguments.out)
    print((arguments.out / "table.md").read_text())
    print(f"Written to {arguments.out}/")
    compared = study.methods[1:]
    if compared and len(study.failures) == len(compared):
        raise ValueError(f"every method failed, the first with {study.failures[0].error}")


def _identity(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the properties that all rows of one table share."""
    return {
        "pipeline": arguments.pipeline,
        "steps": arguments.steps,
        "call": {key: repr(value) for key, value in call_arguments(arguments.call).items()},
        "lpips": arguments.lpips,
    }
