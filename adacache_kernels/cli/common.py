"""Arguments and checks that several commands share."""

from __future__ import annotations

import argparse
import importlib.util
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from .. import _native
from ..evaluate import pipelines
from ..evaluate.option_values import literal, split_outside_brackets
from ..measure.shared_work import LIMIT, SharedWork, launched_place
from ..models.other_libraries.find_groups import find_rank_groups
from ..options import AdaCacheWarning
from ..schedule.files import is_file, may_be_path
from .checks import check_device

EXTRAS = ("diffusers", "matplotlib", "PIL", "skimage", "tqdm")


def add_pipeline_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the pipeline and of its generations."""
    parser.add_argument(
        "--pipeline",
        default="demo",
        help='"demo", a folder or hub name for diffusers, or FILE.py:FUNCTION (default demo)',
    )
    parser.add_argument("--steps", type=int, default=50, help="scheduler steps (default 50)")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of each prompt (default 1)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument(
        "--device",
        help="such as cpu or cuda (default: cuda if there is a GPU, the GPU of its local rank "
        "under torchrun)",
    )
    parser.add_argument(
        "--rank-timeout",
        type=float,
        default=LIMIT,
        metavar="SECONDS",
        help="under torchrun, seconds without a sign of life after which a rank counts as dead "
        f"(default {LIMIT:g})",
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument(
        "--call", nargs="*", default=[], metavar="KEY=VALUE", help="arguments of the pipeline"
    )


def shared_work(arguments: argparse.Namespace, folder: Path) -> SharedWork:
    """Return the ranks of torchrun or accelerate, which share out the videos; else this one alone.

    Only rank 0 warns from now on: the others would repeat it.

    Args:
        arguments: of the command.
        folder: for the files of the ranks.

    Raises:
        ValueError: the environment describes no rank.
    """
    place = launched_place()
    if place.rank > 0:
        warnings.simplefilter("ignore", AdaCacheWarning)
    return SharedWork(place, folder, arguments.rank_timeout)


def load_subject(arguments: argparse.Namespace, prompts: Sequence[str]) -> pipelines.Subject:
    """Load the pipeline, and check that it knows the prompts.

    Raises:
        ValueError: it does not; there is no such pipeline; an option is wrong; or several ranks
            hold one model.
        OSError: diffusers cannot load the pipeline.
    """
    call = call_arguments(arguments.call)
    device = check_device(arguments.device)
    torch.set_num_threads(arguments.threads)
    subject = pipelines.load(arguments.pipeline, device=device, arguments=call)
    subject.check(prompts)
    if launched_place().size > 1:
        _check_own_model(arguments.pipeline, subject)
    return subject


def _check_own_model(name: str, subject: pipelines.Subject) -> None:
    """Check that each rank has a whole model, which generates videos of its own."""
    groups = find_rank_groups(subject.pipe.transformer, {})
    if groups:
        raise ValueError(
            f"--pipeline {name}: {groups[0].origin} spreads its model over ranks "
            f"{', '.join(map(str, groups[0].ranks))}, and this command gives each rank other "
            "videos; build the whole model on every rank"
        )


def seeds_of(arguments: argparse.Namespace) -> range:
    """Return the seeds of each prompt."""
    return range(arguments.first_seed, arguments.first_seed + arguments.seeds)


@contextmanager
def progress_bar(work: SharedWork | None = None) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function that shows a description, the number of videos so far, and their total.

    Every new count gets its own bar. Only rank 0 of several shows anything.
    """
    if work is not None and work.rank > 0:
        yield lambda doing, done, total: None
        return
    from tqdm import tqdm

    bars: list[Any] = []
    last = time.time()

    def show(doing: str, done: int, total: int) -> None:
        nonlocal last
        if not bars or total != bars[-1].total or done <= bars[-1].n:
            close()
            bars.append(tqdm(total=total, initial=done - 1, desc=doing, unit="video"))
            # The first video of this bar started when the last one of the previous bar ended.
            bars[-1].start_t = last
        bars[-1].set_description(doing, refresh=False)
        bars[-1].n = done
        bars[-1].refresh()
        last = time.time()

    def close() -> None:
        if bars:
            bars[-1].close()

    try:
        yield show
    finally:
        close()


def read_prompts(given: Sequence[str], option: str = "--prompts") -> list[str]:
    """Return the prompts, or the lines of the file that is given instead.

    Raises:
        ValueError: there is no prompt, an empty one, or no such file.
    """
    if len(given) == 1 and is_file(given[0]):
        given = _lines_of(given[0], option)
    elif len(given) == 1 and given[0].endswith(".txt") and may_be_path(given[0]):
        raise ValueError(f"{option} is {given[0]}, and there is no such file")
    if not given or not all(prompt.strip() for prompt in given):
        raise ValueError(f"a prompt of {option} is empty")
    return list(given)


def _lines_of(path: str, option: str) -> list[str]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{option} is {path}, which is no text in UTF-8 ({error})") from error
    prompts = [line for line in lines if line.strip()]
    if not prompts:
        raise ValueError(f"the file of {option} has no prompt; write one a line")
    return prompts


def split_methods(text: str) -> list[str]:
    """Split a list of methods at the commas outside of brackets."""
    return [part.strip() for part in split_outside_brackets(text, ",") if part.strip()]


def call_arguments(given: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of --call.

    Raises:
        ValueError: one is not KEY=VALUE, or is given twice.
    """
    pairs = [text.partition("=") for text in given]
    wrong = [text for text, (_, equals, _) in zip(given, pairs, strict=True) if not equals]
    if wrong:
        raise ValueError(f"--call {wrong[0]}: write KEY=VALUE")
    keys = [key for key, _, _ in pairs]
    for text, key in zip(given, keys, strict=True):
        if not key.isidentifier():
            raise ValueError(f"--call {text}: {key!r} is no name of an argument; write KEY=VALUE")
        if keys.count(key) > 1:
            raise ValueError(f"--call gives {key} twice")
    return {key: literal(value) for key, _, value in pairs}


def check_extras(names: Sequence[str] = EXTRAS) -> None:
    """Check that the compiled part loads, and that the modules of the `demo` extra are installed.

    Raises:
        ImportError: they are not.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f'{", ".join(missing)} not installed; pip install "adacache_kernels[demo]"'
        )
    _native.module()
