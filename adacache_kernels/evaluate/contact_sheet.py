"""Images of videos: a strip of frames for each, and a sheet of the first videos by every method."""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..measure.psnr_ssim import Video
from .results import Row

STRIP_FRAMES, STRIP_HEIGHT = 8, 96
"""Frames of a strip, and its largest height in pixels."""

SHEET_VIDEOS = 8
LABEL_WIDTH, LABEL_LETTERS, FONT_SIZE, GAP = 300, 50, 11, 3
"""Width of a label in pixels and in characters, its font size, and the gap between two strips."""


def strip_path(folder: Path, row: Row) -> Path:
    """Return the path of the strip of a row's video."""
    digest = hashlib.sha256(json.dumps(row.key).encode()).hexdigest()[:16]
    return folder / "strips" / f"{digest}.png"


def save_strip(video: Video, path: Path) -> None:
    """Save up to `STRIP_FRAMES` frames of a video, evenly spread, side by side as a PNG.

    Args:
        video: `[frames, height, width, 3]` in 0 to 1.
        path: of the PNG.
    """
    from PIL import Image

    chosen = np.unique(np.linspace(0, len(video) - 1, STRIP_FRAMES).round().astype(int))
    pixels = np.concatenate([video[index] for index in chosen], axis=1)
    image = Image.fromarray((255 * pixels).round().astype(np.uint8))
    if image.height > STRIP_HEIGHT:
        image = image.resize((round(image.width * STRIP_HEIGHT / image.height), STRIP_HEIGHT))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def save_contact_sheet(rows: Sequence[Row], folder: Path) -> None:
    """Save `contact_sheet.png` in `folder`: the strips of the first videos by every method.

    Strips of one video follow each other. Without any strip, no file is written.
    """
    from PIL import Image, ImageDraw, ImageFont

    cases = list(dict.fromkeys((row.prompt, row.seed) for row in rows))[:SHEET_VIDEOS]
    shown = [row for row in rows if (row.prompt, row.seed) in cases]
    shown.sort(key=lambda row: cases.index((row.prompt, row.seed)))
    strips = [(row, strip_path(folder, row)) for row in shown]
    images = [(row, Image.open(path)) for row, path in strips if path.exists()]
    if not images:
        return
    least = 3 * (FONT_SIZE + 2)
    heights = [GAP + max(image.height, least) for _, image in images]
    width = LABEL_WIDTH + max(image.width for _, image in images)
    sheet = Image.new("RGB", (width, sum(heights)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    top = 0
    for (row, image), height in zip(images, heights, strict=True):
        draw.text((4, top), "\n".join(_label(row)), fill="black", font=font, spacing=1)
        sheet.paste(image, (LABEL_WIDTH, top))
        top += height
    sheet.save(folder / "contact_sheet.png")


def _label(row: Row) -> list[str]:
    """Return three lines."""
    lines = (f"{row.prompt}, {row.seed}", row.method)
    quality = "equal" if row.psnr is None else f"{row.psnr:.1f} dB"
    return [
        *(textwrap.shorten(line, LABEL_LETTERS, placeholder="...") for line in lines),
        quality,
    ]
