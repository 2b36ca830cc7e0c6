"""All pipelines that are tested, and the table of docs/pipelines.md."""

from __future__ import annotations

from tests.support.tiny_pipelines.conditioned_pipelines import FROM_VIDEO
from tests.support.tiny_pipelines.image_pipelines import IMAGES
from tests.support.tiny_pipelines.pipeline import TinyPipeline
from tests.support.tiny_pipelines.video_pipelines import VIDEOS

PIPELINES: dict[str, TinyPipeline] = {**VIDEOS, **FROM_VIDEO, **IMAGES}


def table() -> str:
    """Return a Markdown table of the calls of a step, the guidance branches and the pipelines."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for name, tiny in PIPELINES.items():
        guided, unguided = (", ".join(f"`{branch}`" for branch in way) for way in tiny.branches)
        key = str(len(tiny.branches[0])), guided, "the same" if guided == unguided else unguided
        of_class = tiny.cls.rpartition(":")[2].removesuffix("Pipeline")
        note = f" ({name.partition(', ')[2]})" if ", " in name else ""
        rows.setdefault(key, []).append(of_class + note)
    lines = [
        "| calls a step | branches with guidance | without | pipelines |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| {' | '.join(key)} | {', '.join(dict.fromkeys(names))} |" for key, names in rows.items()
    ]
    return "\n".join(lines)
