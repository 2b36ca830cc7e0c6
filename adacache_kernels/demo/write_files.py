"""Write the demo's files: GIFs, a contact sheet, a plot and a JSON file."""

from __future__ import annotations

import json
import re
from pathlib import Path

from .draw import save_contact_sheet, save_gif, save_plot
from .report import to_json
from .run import FEWER_STEPS, DemoResult

LONGEST_SLUG = 100
"""Most characters of a prompt in a file name, which can have 255 bytes."""


def write_files(result: DemoResult, folder: Path) -> None:
    """Write a GIF for each prompt, `contact_sheet.png`, `distances.png` and `demo.json`."""
    for index, prompt in enumerate(result.prompts):
        shown = [run for run in result.of_prompt(index) if FEWER_STEPS not in run.run.name]
        save_gif(folder / f"{index + 1:02d}-{_slug(prompt)}.gif", shown)
    save_contact_sheet(folder / "contact_sheet.png", result)
    save_plot(folder / "distances.png", result)
    text = json.dumps(to_json(result), indent=1, allow_nan=False)
    (folder / "demo.json").write_text(text)


def _slug(prompt: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:LONGEST_SLUG]
