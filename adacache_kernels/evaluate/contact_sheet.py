"""Frames of videos to look at: a strip of each, and a sheet of the first videos by every method."""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..measure.psnr_ssim import Video

if TYPE_CHECKING:
    from .results import Row

FRAMES, HEIGHT = 8, 96
"""Frames of a strip, and the height that larger ones are made smaller to, in pixels."""
VIDEOS = 8
"""On the contact sheet."""
LABEL, LETTERS, FONT, GAP = 300, 50, 11, 3
"""Width of the words beside a strip, letters a line, their size, and the room between strips."""


def strip_path(folder: Path, row: Row) -> Path:
    """Where frames of a row's video lie."""
    digest = hashlib.sha256(json.dumps(row.key).encode()).hexdigest()[:16]
    return folder / "strips" / f"{digest}.png"


def save_strip(video: Video, path: Path) -> None:
    """Up to `FRAMES` frames of the video, spread evenly, side by side."""
    from PIL import Image

    chosen = np.unique(np.linspace(0, len(video) - 1, FRAMES).round().astype(int))
    pixels = np.concatenate([video[index] for index in chosen], axis=1)
    image = Image.fromarray((255 * pixels).round().astype(np.uint8))
    if image.height > HEIGHT:
        image = image.resize((round(image.width * HEIGHT / image.height), HEIGHT))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def contact_sheet(rows: Sequence[Row], folder: Path) -> None:
    """`contact_sheet.png`: the strips of the first videos by every method, video by video."""
    from PIL import Image, ImageDraw, ImageFont

    cases = list(dict.fromkeys((row.prompt, row.seed) for row in rows))[:VIDEOS]
    shown = [row for row in rows if (row.prompt, row.seed) in cases]
    shown.sort(key=lambda row: cases.index((row.prompt, row.seed)))
    strips = [(row, strip_path(folder, row)) for row in shown]
    images = [(row, Image.open(path)) for row, path in strips if path.exists()]
    if not images:
        return
    least = 3 * (FONT + 2)
    heights = [GAP + max(image.height, least) for _, image in images]
    width = LABEL + max(image.width for _, image in images)
    sheet = Image.new("RGB", (width, sum(heights)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT)
    top = 0
    for (row, image), height in zip(images, heights, strict=True):
        draw.text((4, top), "\n".join(_words(row)), fill="black", font=font, spacing=1)
        sheet.paste(image, (LABEL, top))
        top += height
    sheet.save(folder / "contact_sheet.png")


def _words(row: Row) -> list[str]:
    """Three lines."""
    lines = (f"{row.prompt}, {row.seed}", row.method)
    quality = "equal" if row.psnr is None else f"{row.psnr:.1f} dB"
    return [*(textwrap.shorten(line, LETTERS, placeholder="...") for line in lines), quality]
