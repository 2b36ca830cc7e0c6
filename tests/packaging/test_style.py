"""Limits that keep the source readable: sizes of files, functions and folders, docstrings."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import ROOT

FOLDERS = ("adacache_kernels", "tests", "bench", "csrc", "python")
SUFFIXES = {".py", ".pyi", ".cpp", ".hpp"}
MOST_LINES = 400
MOST_LINES_OF_A_FUNCTION = 50
MOST_FILES = 20
# These Triton kernels carry a dozen values through one loop. Triton functions can return only
# tuples of them, so that more parts would be longer and harder to read.
LONG_KERNELS = {"decide_kernel", "distance_update_kernel", "quantized_update_kernel"}
QUESTION = re.compile(r"(What|Whether|Of|How|Where|Which|Who|As)\b")

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def sources(root: Path) -> list[Path]:
    """Return the source files in the folders of the repository."""
    if not (root / "csrc").exists():
        pytest.skip("the source tree is missing")
    found = (path for folder in FOLDERS for path in sorted((root / folder).rglob("*")))
    return [path for path in found if path.suffix in SUFFIXES and path.is_file()]


def long_files(root: Path) -> list[str]:
    """Return the files with too many lines."""
    counts = {path: len(path.read_text().splitlines()) for path in sources(root)}
    return [
        f"{path.relative_to(root)} has {count} lines, at most {MOST_LINES}; split it by topic"
        for path, count in counts.items()
        if count > MOST_LINES
    ]


def full_folders(root: Path) -> list[str]:
    """Return the folders with too many source files, without `__init__.py`."""
    counts = Counter(path.parent for path in sources(root) if path.name != "__init__.py")
    return [
        f"{folder.relative_to(root)} has {count} source files, at most {MOST_FILES}; divide it"
        for folder, count in counts.items()
        if count > MOST_FILES
    ]


def long_functions(root: Path) -> list[str]:
    """Return the functions of the package with too many lines, docstrings left out."""
    found = []
    for path, node in documented(root):
        if isinstance(node, ast.Module | ast.ClassDef) or node.name in LONG_KERNELS:
            continue
        if path.relative_to(root).parts[0] != "adacache_kernels":
            continue
        count = lines_of(node)
        if node.body and ast.get_docstring(node) is not None:
            count -= lines_of(node.body[0])
        if count > MOST_LINES_OF_A_FUNCTION:
            found.append(f"{path.relative_to(root)}: {node.name} has {count} lines; split it")
    return found


def summaries_like_questions(root: Path) -> list[str]:
    """Return the docstrings that begin with a question word instead of a verb or a noun."""
    return [
        f"{path.relative_to(root)}: {summary!r}; begin with a verb or a noun"
        for path, summary in summaries(root)
        if QUESTION.match(summary)
    ]


def summaries(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield the first line of every docstring, those of attributes included, with its file."""
    for path in sources(root):
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                text = node.value.value
                if isinstance(text, str) and text.strip():
                    yield path, text.strip().split("\n")[0]


def documented(root: Path) -> Iterator[tuple[Path, Documented]]:
    """Yield every module, class and function of the Python files, with its file."""
    for path in sources(root):
        if path.suffix == ".py":
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, Documented):
                    yield path, node


def lines_of(node: ast.stmt) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


CHECKS = [long_files, full_folders, long_functions, summaries_like_questions]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_repository_keeps_the_limits(check: Callable[[Path], list[str]]) -> None:
    assert check(ROOT) == []


def test_every_limit_can_fail(tmp_path: Path) -> None:
    package = tmp_path / "adacache_kernels"
    for folder in (tmp_path / "csrc", package):
        folder.mkdir()
    (tmp_path / "csrc" / "long.cpp").write_text("\n" * (MOST_LINES + 1))
    for index in range(MOST_FILES):
        (package / f"module_{index}.py").write_text('"""Whether it works."""\n' if index else "")
    assert full_folders(tmp_path) == []
    body = "    pass\n" * MOST_LINES_OF_A_FUNCTION
    (package / "long.py").write_text(f'def planted():\n    """Return\n\n    None."""\n{body}')
    assert [message.split()[0] for message in long_files(tmp_path)] == ["csrc/long.cpp"]
    assert len(full_folders(tmp_path)) == 1
    (message,) = long_functions(tmp_path)
    assert message == "adacache_kernels/long.py: planted has 51 lines; split it"
    assert len(summaries_like_questions(tmp_path)) == MOST_FILES - 1
