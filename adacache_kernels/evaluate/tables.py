"""The table of a study as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from ..measure.psnr_ssim import EQUAL_PSNR
from .method_spec import FULL
from .results import Failure
from .table_lines import Line

LEGEND = (
    "Reads: operations in the transformer whose result the host waits for if the tensor is on a "
    "GPU, per step, minus those of the full run; on a CPU, reads of tensors that are always on the "
    "host count as well. Held: bytes of tensors that live when a forward call begins, the most in "
    "a generation, minus those of the full run. Work: operations as a share of the full run's. "
    "These three are counted in an untimed generation of the first video, in the same way for "
    "every method. Each method reports its own cache MiB and waits."
)


def write_tables(lines: Sequence[Line], folder: Path, failures: Sequence[Failure] = ()) -> None:
    """Write `table.csv`, `table.md` and `table.json` in `folder`."""
    failed = [asdict(failure) for failure in failures]
    with (folder / "table.csv").open("w", newline="") as file:
        names = [f.name for f in fields(Line)] + ["error"] * bool(failed)
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(map(_rounded, lines))
        writer.writerows(failed)
    lines_and_failures = [*map(_rounded, lines), *failed]
    (folder / "table.json").write_text(json.dumps(lines_and_failures, indent=1))
    below = list(legend(lines, failures))
    text = [*markdown(lines, failures), *([""] if below else []), *below, ""]
    (folder / "table.md").write_text("\n".join(text))


def markdown(lines: Sequence[Line], failures: Sequence[Failure] = ()) -> Iterator[str]:
    """Yield the lines of a Markdown table without its empty columns, failed methods last."""
    marks = {note: number for number, note in enumerate(_notes(lines, failures), 1)}

    def marked(each: Line | Failure) -> str:
        return " ".join([each.method, *(f"[{marks[note]}]" for note in each.notes)])

    columns: list[tuple[str, Callable[[Line], str]]] = [
        ("method", marked),
        ("computed steps", _computed),
        ("work", lambda line: _number(line.work, ".3f")),
        ("PSNR mean / of MSE / worst", _quality),
        ("gain, dB", _gain),
        ("SSIM", lambda line: f"{line.ssim:.3f}"),
        ("LPIPS", lambda line: _number(line.lpips, ".4f")),
        ("VBench", lambda line: _number(line.scores, ".3f")),
        ("TFLOPs", lambda line: _number(line.teraflops, ".4g")),
        ("transformer s", lambda line: f"{line.seconds:.3g}"),
        ("speedup (quartiles)", _speedup),
        ("pipeline", lambda line: f"{line.pipeline_speedup:.2f}x"),
        ("peak GiB", lambda line: _number(line.peak_gib, ".2f")),
        ("cache MiB", lambda line: _number(line.cache_mib, ".2f")),
        ("held MiB", lambda line: _number(line.held_mib, ".2f")),
        ("waits a step", lambda line: _number(line.waits, ".2g")),
        ("reads a step", lambda line: _number(line.reads, ".2g")),
    ]
    shown = [(name, cell) for name, cell in columns if any(cell(line) for line in lines)]
    yield "| " + " | ".join(name for name, _ in shown) + " |"
    yield "|" + "---|" * len(shown)
    for line in lines:
        yield "| " + " | ".join(cell(line) for _, cell in shown) + " |"
    for failure in failures:
        error = f"{failure.error} (after {failure.videos} videos)".replace("|", "\\|")
        yield f"| {marked(failure)} | {error} |" + " |" * (len(shown) - 2)


def legend(lines: Sequence[Line], failures: Sequence[Failure] = ()) -> Iterator[str]:
    """Yield the lines below the table: the notes, and the definitions of the counts."""
    for number, note in enumerate(_notes(lines, failures), 1):
        yield f"[{number}] {note}  "
    if any(line.held_mib is not None for line in lines):
        yield ""
        yield LEGEND


def _notes(lines: Sequence[Line], failures: Sequence[Failure]) -> list[str]:
    by_method = [each.notes for each in lines] + [each.notes for each in failures]
    return list(dict.fromkeys(note for notes in by_method for note in notes))


def _rounded(line: Line) -> dict[str, object]:
    values = asdict(line)
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}


def _number(value: float | None, spec: str) -> str:
    return "" if value is None else format(value, spec)


def _computed(line: Line) -> str:
    if line.computed is None:
        return ""
    differs = line.computed_least != line.computed_most
    extent = f" ({line.computed_least} to {line.computed_most})" if differs else ""
    return f"{line.computed:.1f}{extent}"


def _quality(line: Line) -> str:
    if line.psnr_worst == EQUAL_PSNR:
        return "equal"
    return f"{line.psnr:.1f} / {line.psnr_of_mse:.1f} / {line.psnr_worst:.1f}"


def _gain(line: Line) -> str:
    if line.gain is None or line.gain_error is None or line.method == FULL:
        return ""
    return f"{line.gain:+.2f} +- {line.gain_error:.2f}"


def _speedup(line: Line) -> str:
    return f"{line.speedup:.2f}x ({line.slowest:.2f} to {line.fastest:.2f})"
