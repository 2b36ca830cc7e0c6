"""The documentation names only files, links, public names and fields that exist."""

from __future__ import annotations

import ast
import dataclasses
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import adacache_kernels as ak
from tests import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
SUPPORT = [
    ROOT / "tests/support/ptx_emulator/README.md",
    ROOT / "tests/support/cuda_driver_stub/README.md",
    ROOT / "bench/demo_model/README.md",
]
MOST_LINES = 200

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
# A path has a folder, and ends with a known suffix or a slash.
PATH = re.compile(
    r"(?<![\w/.<:~$-])((?:\.?[\w-]+/)+(?:[\w.-]*\.(?:py|md|sh|cpp|hpp|json|txt|png|csv|toml|npz))?)"
    r"(?![\w/<*:])"
)
ROOTS = (ROOT, ROOT / "adacache_kernels")
ATTRIBUTE = re.compile(r"\bak\.((?:\w+\.)*\w+)")
FIELD = re.compile(r"\bsummary\((?:pipe|model)?\)\.(\w+)")

every_page = pytest.mark.parametrize(
    "page", [*PAGES, *SUPPORT], ids=lambda page: str(page.relative_to(ROOT))
)

# A source distribution has no benchmarks, to which the documentation links.
if not (ROOT / "bench").is_dir():
    pytest.skip("the whole repository is not here", allow_module_level=True)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_LINES


@every_page
def test_links_lead_to_files_and_headings(page: Path) -> None:
    broken = [link for link in _links(page) if not _leads_somewhere(page, link)]
    assert not broken


@every_page
def test_paths_exist(page: Path) -> None:
    missing = [path for path in _paths(page) if not any((root / path).exists() for root in ROOTS)]
    assert not missing


@every_page
def test_public_names_exist(page: Path) -> None:
    unknown = [name for name in ATTRIBUTE.findall(page.read_text()) if not _is_public(name)]
    assert not unknown


@every_page
def test_fields_of_the_summary_exist(page: Path) -> None:
    unknown = [name for name in FIELD.findall(page.read_text()) if not _is_field(name)]
    assert not unknown


@every_page
def test_python_snippets_parse(page: Path) -> None:
    for snippet in _snippets(page):
        ast.parse(snippet)


def test_every_setting_is_documented() -> None:
    page = (ROOT / "docs/configuration.md").read_text()
    settings = [f.name for f in dataclasses.fields(ak.AdaCacheConfig) if f.init]
    assert [name for name in settings if f"`{name}`" not in page] == []


def test_every_page_is_linked_from_the_readme() -> None:
    linked = {(ROOT / link).resolve() for link in _links(ROOT / "README.md")}
    assert [
        page for page in PAGES if page.is_relative_to(ROOT / "docs") and page not in linked
    ] == []


@pytest.mark.parametrize("name", ["adding_a_model", "adding_an_op", "style"])
def test_snippets_of_contributors_run(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from adacache_kernels.models import ADAPTERS

    monkeypatch.setitem(ADAPTERS, "ExampleTransformer3DModel", ADAPTERS["WanTransformer3DModel"])
    for snippet in _snippets(ROOT / "docs/development" / f"{name}.md"):
        exec(compile(snippet, name, "exec"), {"__name__": name})
    if name == "adding_a_model":
        assert "3 reused" in capsys.readouterr().out


def _links(page: Path) -> list[str]:
    """Return the targets of a page's links, those to the web left out."""
    links = LINK.findall(_prose(page))
    return [link for link in links if not link.startswith(("http://", "https://", "mailto:"))]


def _leads_somewhere(page: Path, link: str) -> bool:
    target, _, heading = link.partition("#")
    file = (page.parent / target).resolve() if target else page
    if not file.exists():
        return False
    return not heading or heading in [_anchor(h) for h in HEADING.findall(_prose(file))]


def _anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _paths(page: Path) -> Iterator[str]:
    """Yield the paths that begin with a folder of the repository or of the package."""
    for path in PATH.findall(page.read_text()):
        folder = path.split("/")[0]
        if any((root / folder).is_dir() for root in ROOTS):
            yield path


def _prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return FENCE.sub("", page.read_text())


def _snippets(page: Path) -> list[str]:
    blocks = FENCE.findall(page.read_text())
    return [textwrap.dedent(text) for _, language, text in blocks if language == "python"]


def _is_public(name: str) -> bool:
    """Return whether `ak.NAME` exists and begins with a public name."""
    value: object = ak
    if name.split(".")[0] not in ak.__all__:
        return False
    for part in name.split("."):
        if not hasattr(value, part):
            return False
        value = getattr(value, part)
    return True


def _is_field(name: str) -> bool:
    return hasattr(ak.Summary, name) or name in {f.name for f in dataclasses.fields(ak.Summary)}
