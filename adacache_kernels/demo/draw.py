"""The demo's pictures: a GIF for each prompt, a contact sheet, a plot of the distances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..measure.psnr_ssim import Video
from .run import DemoResult, MeasuredRun

Picture = NDArray[np.uint8]

GIF_ZOOM, SHEET_ZOOM = 5, 2
GAP, LINE = 6, 16
FRAME_MS = 125
INK, PAPER = (32, 32, 32), (255, 255, 255)


def save_gif(path: Path, runs: Sequence[MeasuredRun]) -> None:
    """Save an endless GIF at 8 frames a second, with the runs side by side under their labels."""
    videos = [_enlarged(measured.run.video, GIF_ZOOM) for measured in runs]
    labels = [_label(measured) for measured in runs]
    frames = [
        _side_by_side([video[index] for video in videos], labels) for index in range(len(videos[0]))
    ]
    first, *others = [frame.quantize(colors=64, dither=Image.Dither.NONE) for frame in frames]
    first.save(path, save_all=True, append_images=others, duration=FRAME_MS, loop=0)


def save_contact_sheet(path: Path, result: DemoResult) -> None:
    """Save a PNG with a row of frames for each prompt and run."""
    rows: list[Image.Image] = []
    for index, prompt in enumerate(result.prompts):
        rows.append(_heading(prompt))
        rows += [_strip(measured) for measured in result.of_prompt(index)]
    width = max(row.width for row in rows)
    sheet = Image.new("RGB", (width + 2 * GAP, sum(row.height + GAP for row in rows) + GAP), PAPER)
    top = GAP
    for row in rows:
        sheet.paste(row, (GAP, top))
        top += row.height + GAP
    sheet.save(path)


def save_plot(path: Path, result: DemoResult) -> None:
    """Save the figure of `plot` as a PNG."""
    plot(result).savefig(path, dpi=110)


def plot(result: DemoResult) -> Any:
    """Return a matplotlib figure of distance against step.

    It has a panel for each config, all with the same axes, and a curve for each video with dots at
    its computed steps.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(2, len(result.configs))
    rows = math.ceil(len(result.configs) / columns)
    figure = Figure(figsize=(6.4 * columns, 3.6 * rows + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat
    for panel, name in zip(panels, result.configs, strict=False):
        _draw_panel(panel, name, result)
    for panel in list(panels)[len(result.configs) :]:
        panel.set_visible(False)
    # After all panels are drawn: a fixed limit stops the automatic scaling of their shared axis.
    figure.axes[0].set_ylim(bottom=0)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _draw_panel(panel: Any, name: str, result: DemoResult) -> None:
    for measured in result.named(name):
        summary = measured.run.summary
        assert summary is not None
        pairs = zip(summary.computed_steps, summary.distances, strict=True)
        points = [(step, distance) for step, distance in pairs if distance is not None]
        if points:
            steps, distances = zip(*points, strict=True)
            panel.plot(steps, distances, marker="o", markersize=3.5, linewidth=1.2,
                       label=measured.run.prompt)  # fmt: skip
    thresholds = _finite_thresholds(name, result)
    for threshold, rate in thresholds:
        panel.axhline(threshold, color="0.8", linewidth=0.8, zorder=0)
        panel.text(
            result.steps + 0.6, threshold, f"{rate}", color="0.5", fontsize=7, va="top", ha="left"
        )
    legend = " (grey: thresholds, each with the rate below it)" if thresholds else ""
    panel.set_title(name + legend, fontsize=9)
    panel.set_xlabel("step (dots: computed)")
    panel.set_ylabel(_distance_label(name, result))
    panel.set_xlim(0, result.steps + 2.5)
    panel.xaxis.get_major_locator().set_params(integer=True)


def _distance_label(name: str, result: DemoResult) -> str:
    summaries = [m.run.summary for m in result.named(name) if m.run.summary is not None]
    errors = any(summary.config["measure"] == "forecast-error" for summary in summaries)
    return "forecast's relative error a step" if errors else "relative L1 distance a step"


def _finite_thresholds(name: str, result: DemoResult) -> list[tuple[float, int]]:
    """Return the thresholds within the range of the measured distances, with their rates."""
    summaries = [m.run.summary for m in result.named(name) if m.run.summary]
    measured = [d for summary in summaries for d in summary.distances if d is not None]
    if not measured:
        return []
    return [(t, rate) for t, rate in summaries[0].codebook if t <= 1.1 * max(measured)]


def _label(measured: MeasuredRun) -> str:
    run = measured.run
    if run.summary is None:
        return f"{run.name}, {run.steps} steps"
    return f"{run.name}, {run.computed} computed, {measured.speedup:.1f}x"


def _enlarged(video: Video, zoom: int) -> Picture:
    pixels = (np.clip(video, 0, 1) * 255).round().astype(np.uint8)
    enlarged: Picture = pixels.repeat(zoom, axis=1).repeat(zoom, axis=2)
    return enlarged


def _side_by_side(pictures: Sequence[Picture], labels: Sequence[str]) -> Image.Image:
    font = _font(11)
    height, picture_width = pictures[0].shape[:2]
    width = max(picture_width, *(math.ceil(font.getlength(label)) for label in labels)) + GAP
    frame = Image.new("RGB", (GAP + width * len(pictures), height + LINE + 2 * GAP), PAPER)
    draw = ImageDraw.Draw(frame)
    for index, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        left = GAP + index * width
        draw.text((left, GAP // 2), label, fill=INK, font=font)
        frame.paste(Image.fromarray(picture), (left, LINE + GAP))
    return frame


def _heading(text: str) -> Image.Image:
    font = _font(14)
    heading = Image.new("RGB", (math.ceil(font.getlength(text)), 20), PAPER)
    ImageDraw.Draw(heading).text((0, 2), text, fill=INK, font=font)
    return heading


def _strip(measured: MeasuredRun) -> Image.Image:
    """Return an image of a label and all frames of a run."""
    frames = np.concatenate(list(_enlarged(measured.run.video, SHEET_ZOOM)), axis=1)
    label_width = 190
    strip = Image.new("RGB", (label_width + frames.shape[1], frames.shape[0]), PAPER)
    draw = ImageDraw.Draw(strip)
    lines = [measured.run.name, f"{measured.run.computed} computed, {measured.speedup:.1f}x"]
    if math.isfinite(measured.psnr):
        lines.append(f"{measured.psnr:.1f} dB")
    for index, line in enumerate(lines):
        draw.text((0, 4 + index * LINE), line, fill=INK, font=_font(12))
    strip.paste(Image.fromarray(frames), (label_width, 0))
    return strip


def _font(size: int) -> Any:
    return ImageFont.load_default(size=size)
