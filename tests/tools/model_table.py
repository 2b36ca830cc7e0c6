"""Write the tables of docs/models.md and docs/pipelines.md from the tests' tiny models.

python -m tests.tools.model_table
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import nn

from adacache_kernels.models import Adapter, adapter_for
from adacache_kernels.models.adapters.unsupported import UNSUPPORTED
from tests import ROOT
from tests.support.tiny_models.chained_models import IMAGES, VIDEOS
from tests.support.tiny_models.common_models import TINY
from tests.support.tiny_models.originals import ORIGINALS
from tests.support.tiny_models.special_models import OTHER_IMAGES, OTHER_VIDEOS
from tests.support.tiny_pipelines import all_pipelines

PAGES = {"models": ROOT / "docs" / "models.md", "pipelines": ROOT / "docs" / "pipelines.md"}
HEAD = "| model | hidden streams | residuals | distances of | motion | guidance | status |"


def tables() -> dict[str, str]:
    """Return the Markdown table of each page, with the marks around it."""
    models = "\n".join([HEAD, "|---|---|---|---|---|---|---|", *rows()])
    texts = {"models": models, "pipelines": all_pipelines.table()}
    return {name: f"{_begin(name)}{text}\n{_end(name)}" for name, text in texts.items()}


def write(page: Path, name: str, table: str) -> None:
    """Replace the table of that name in a page."""
    before, _, rest = page.read_text().partition(_begin(name))
    _, _, after = rest.partition(_end(name))
    page.write_text(before + table + after)


def _begin(name: str) -> str:
    return f"<!-- {name}: tests/tools/model_table.py -->\n"


def _end(name: str) -> str:
    return f"<!-- end of {name} -->\n"


def rows() -> Iterator[str]:
    """Yield one row a class, in the order of the tests."""
    seen: dict[str, str] = {}
    for tiny in (*TINY.values(), *VIDEOS.values(), *OTHER_VIDEOS.values()):
        _add(seen, tiny.build())
    yield from seen.values()
    yield from (_original(name, double.build()) for name, double in ORIGINALS.items())
    images: dict[str, str] = {}
    for tiny in (*IMAGES.values(), *OTHER_IMAGES.values()):
        _add(images, tiny.build())
    yield from images.values()
    for name, reason in UNSUPPORTED.items():
        yield f"| `{name}` | | | | | | unsupported: {reason} |"


def _add(seen: dict[str, str], model: nn.Module) -> None:
    name = type(model).__name__
    row = f"| `{name}` | {_cells(_adapter(model))}"
    # If a class has several tiny models, the one with most parts has the longest row.
    if name not in seen or len(row) > len(seen[name]):
        seen[name] = row


def _original(name: str, model: nn.Module) -> str:
    return f"| {name} (original repository) | {_cells(_adapter(model))}"


def _adapter(model: nn.Module) -> Adapter:
    adapter = adapter_for(model)
    assert adapter is not None
    return adapter


def _cells(adapter: Adapter) -> str:
    streams = dict.fromkeys(s.parameter for blocks in adapter.lists for s in blocks.streams)
    calls = "in one batch" if adapter.guidance_calls == 1 else "in two calls"
    cells = [", ".join(streams), _residuals(adapter), ", ".join(adapter.residuals)]
    return " | ".join([*cells, _motion(adapter), calls, "cached"]) + " |"


def _residuals(adapter: Adapter) -> str:
    lists = adapter.residual_lists
    count = sum(len(blocks.streams) for blocks in lists)
    in_parts = len({blocks.attribute for blocks in lists}) < len(lists)
    return f"{count // len(lists)} for each part of the list" if in_parts else str(count)


def _motion(adapter: Adapter) -> str:
    return "" if adapter.frames.unknown else "yes"


def main() -> None:
    for name, table in tables().items():
        write(PAGES[name], name, table)


if __name__ == "__main__":
    main()
