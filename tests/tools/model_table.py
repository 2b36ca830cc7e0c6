"""The README's table of models, from the adapters of the tests' tiny models.

python -m tests.tools.model_table        # writes it into the README
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from adacache_kernels.models import Adapter, adapter_for
from adacache_kernels.models.adapters.unsupported import REFUSED
from tests import ROOT
from tests.support.tiny_models.chained_models import IMAGES, VIDEOS
from tests.support.tiny_models.common_models import TINY
from tests.support.tiny_models.originals import ORIGINALS
from tests.support.tiny_models.special_models import OTHER_IMAGES, OTHER_VIDEOS

README = ROOT / "README.md"
BEGIN, END = "<!-- models: tests/tools/model_table.py -->\n", "<!-- end of models -->\n"
HEAD = "| model | hidden streams | residuals | distances of | motion | guidance | status |"


def table() -> str:
    """One row a class, in the order of the tests."""
    return "\n".join([HEAD, "|---|---|---|---|---|---|---|", *rows()]) + "\n"


def rows() -> Iterator[str]:
    seen: dict[str, str] = {}
    for tiny in (*TINY.values(), *VIDEOS.values(), *OTHER_VIDEOS.values()):
        _add(seen, tiny.build())
    yield from seen.values()
    yield from (_original(name, double.build()) for name, double in ORIGINALS.items())
    images: dict[str, str] = {}
    for tiny in (*IMAGES.values(), *OTHER_IMAGES.values()):
        _add(images, tiny.build())
    yield from images.values()
    for name, reason in REFUSED.items():
        yield f"| `{name}` | | | | | | refused: {reason} |"


def _add(seen: dict[str, str], model: nn.Module) -> None:
    name = type(model).__name__
    row = f"| `{name}` | {_cells(_adapter(model))}"
    # Of several tiny models of a class, the one with most parts.
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
    kept = adapter.residual_lists
    count = sum(len(blocks.streams) for blocks in kept)
    in_parts = len({blocks.attribute for blocks in kept}) < len(kept)
    return f"{count // len(kept)} for each part of the list" if in_parts else str(count)


def _motion(adapter: Adapter) -> str:
    return "" if adapter.frames.__name__ in WITHOUT_FRAMES else "yes"


WITHOUT_FRAMES = ("no_frames", "one_sequence", "images_in_a_list", "packed_video")


def main() -> None:
    text = README.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(before + BEGIN + table() + END + after)


if __name__ == "__main__":
    main()
