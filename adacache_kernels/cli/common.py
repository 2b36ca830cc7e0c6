"""Arguments and checks that several commands share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .. import _native

EXTRAS = ("diffusers", "matplotlib", "PIL", "skimage", "tqdm")


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """What shows what is being done, how many videos have been made, and of how many.

    A bar of its own for everything that counts anew.
    """
    from tqdm import tqdm

    bars: list[Any] = []
    last = time.time()

    def show(doing: str, done: int, total: int) -> None:
        nonlocal last
        if not bars or total != bars[-1].total or done <= bars[-1].n:
            close()
            bars.append(tqdm(total=total, initial=done - 1, desc=doing, unit="video"))
            # Its first video was begun when what was before it ended.
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
    """Prompts, or the lines of one file.

    Raises:
        ValueError: there is none, or an empty one, or no such file.
    """
    if len(given) == 1 and given[0].endswith(".txt") and not Path(given[0]).is_file():
        raise ValueError(f"{option} is {given[0]}, and there is no such file")
    if len(given) == 1 and Path(given[0]).is_file():
        lines = Path(given[0]).read_text().splitlines()
        given = [line for line in lines if line.strip()]
        if not given:
            raise ValueError(f"the file of {option} has no prompt; write one a line")
    if not given or not all(prompt.strip() for prompt in given):
        raise ValueError(f"a prompt of {option} is empty")
    return list(given)


def split_methods(text: str) -> list[str]:
    """At the commas outside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def call_arguments(given: Sequence[str]) -> dict[str, Any]:
    """The arguments of --call.

    Raises:
        ValueError: one is not KEY=VALUE.
    """
    from ..evaluate.method_spec import literal

    pairs = [text.partition("=") for text in given]
    wrong = [text for text, (_, equals, _) in zip(given, pairs, strict=True) if not equals]
    if wrong:
        raise ValueError(f"--call {wrong[0]}: write KEY=VALUE")
    return {key: literal(value) for key, _, value in pairs}


def check_extras() -> None:
    """Raises `ImportError` where something that the commands use is not installed."""
    missing = [name for name in EXTRAS if find_spec(name) is None]
    if missing:
        raise ImportError(
            f'{", ".join(missing)} not installed; pip install "adacache_kernels[demo]"'
        )
    _native.module()
