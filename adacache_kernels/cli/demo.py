"""`adacache demo`: checks what it was given, runs the demo, writes its files."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from .. import _native
from ..demo.presets import demo_presets

PROMPTS = (
    "a white six standing still",
    "a white two standing still",
    "a white nine moving slowly",
    "a white four moving slowly",
    "a white seven moving fast",
    "a white six moving fast",
)
EXTRAS = ("accelerate", "diffusers", "matplotlib", "PIL", "safetensors", "skimage", "tqdm",
          "transformers")  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `adacache demo`."""
    parser.add_argument(
        "--prompt",
        action="append",
        help='such as "a white six moving fast"; may be given several times',
    )
    parser.add_argument("--steps", type=int, default=50, help="scheduler steps (default 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the initial noise (default 0)")
    parser.add_argument("--guidance", type=float, default=4.0, help="guidance scale (default 4)")
    parser.add_argument(
        "--config",
        action="append",
        help="a preset, demo-slow, demo-fast or profile (50 or 100 steps, the demo's own weights); "
        "may be given several times (default: all of them)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo_out"), help="folder to write to (default demo_out)"
    )
    parser.add_argument("--weights", type=Path, help="folder of another LattePipeline")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--device", help="such as cpu or cuda (default: cuda where there is one)")


def run(arguments: argparse.Namespace) -> None:
    """Run the demo.

    Raises:
        ValueError, OSError, ImportError: with a message for the user.
    """
    _check_extras()
    if arguments.steps < 1:
        raise ValueError(f"--steps is {arguments.steps}; a generation has at least one step")
    if arguments.threads < 1:
        raise ValueError(f"--threads is {arguments.threads}; it must be at least 1")
    if not 0 <= arguments.seed < 2**63:
        raise ValueError(f"--seed is {arguments.seed}; it must be from 0 to 2**63 - 1")
    if not math.isfinite(arguments.guidance):
        raise ValueError(f"--guidance is {arguments.guidance}; it must be finite")
    configs = _configs(arguments)
    _check_writable(arguments.out)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")

    import torch

    from ..demo import draw, report
    from ..demo.pipeline import DEFAULT_WEIGHTS, load_pipeline
    from ..demo.run import run_demo

    # On a model this small a second thread costs more than it gains.
    torch.set_num_threads(arguments.threads)
    pipe = load_pipeline(arguments.weights or DEFAULT_WEIGHTS, _device(arguments.device))
    prompts = arguments.prompt if arguments.prompt is not None else PROMPTS
    result = run_demo(
        pipe,
        prompts,
        configs,
        steps=arguments.steps,
        guidance=arguments.guidance,
        seed=arguments.seed,
    )
    for index, prompt in enumerate(result.prompts):
        shown = [m for m in result.of_prompt(index) if "fewer" not in m.run.name]
        draw.save_gif(arguments.out / f"{index + 1:02d}-{_slug(prompt)}.gif", shown)
    draw.save_contact_sheet(arguments.out / "contact_sheet.png", result)
    draw.save_plot(arguments.out / "distances.png", result)
    text = json.dumps(report.to_json(result), indent=1, allow_nan=False)
    (arguments.out / "demo.json").write_text(text)
    print(report.table(result))
    print("\n".join(["", *report.notes(result), f"Written to {arguments.out}/"]))


def _configs(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    known = demo_presets(arguments.steps)
    if arguments.weights is not None:
        # A profile knows a model by its config, and other weights have the same.
        known = {name: settings for name, settings in known.items() if name != "profile"}
    names = arguments.config or list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"--config {unknown[0]}: with these --steps and --weights there are {', '.join(known)}"
        )
    return {name: known[name] for name in names}


def _device(name: str | None) -> str:
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (AssertionError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {name} cannot be used: {reason}") from error
    return name


def _check_extras() -> None:
    from importlib.util import find_spec

    missing = [name for name in EXTRAS if find_spec(name) is None]
    if missing:
        raise ImportError(
            f'{", ".join(missing)} not installed; pip install "adacache_kernels[demo]"'
        )
    _native.module()


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"cannot write to {folder}: {error.strerror or error}") from error


def _slug(prompt: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")
