"""`adacache demo`: check the arguments, run the demo, write its files."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import Any

from ..demo.presets import demo_presets
from .checks import check_device, check_folder, check_numbers
from .common import check_extras

PROMPTS = (
    "a white six standing still",
    "a white two standing still",
    "a white nine moving slowly",
    "a white four moving slowly",
    "a white seven moving fast",
    "a white six moving fast",
)
EXTRAS = (
    "accelerate",
    "diffusers",
    "matplotlib",
    "PIL",
    "safetensors",
    "skimage",
    "tqdm",
    "transformers",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `adacache demo`."""
    parser.add_argument(
        "--prompt",
        action="append",
        help='such as "a white six moving fast"; repeat it for several prompts',
    )
    parser.add_argument("--steps", type=int, default=50, help="scheduler steps (default 50)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the initial noise (default 0)")
    parser.add_argument("--guidance", type=float, default=4.0, help="guidance scale (default 4)")
    parser.add_argument(
        "--config",
        action="append",
        help="a preset, demo-slow, demo-fast or profile (50 or 100 steps, the demo's own weights); "
        "repeat it for several configs (default: all of them)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo_out"), help="folder to write to (default demo_out)"
    )
    parser.add_argument("--weights", type=Path, help="folder of another LattePipeline")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--device", help="such as cpu or cuda (default: cuda if there is a GPU)")


def run(arguments: argparse.Namespace) -> None:
    """Run the demo.

    Raises:
        ValueError, OSError, ImportError: with a message for the user.
    """
    check_extras(EXTRAS)
    check_numbers(arguments)
    if not math.isfinite(arguments.guidance):
        raise ValueError(f"--guidance is {arguments.guidance}; it must be finite")
    configs = _configs(arguments)
    device = check_device(arguments.device)
    check_folder(arguments.out)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")

    import torch

    from ..demo.pipeline import DEFAULT_WEIGHTS, load_pipeline
    from ..demo.report import notes, table
    from ..demo.run import run_demo
    from ..demo.write_files import write_files

    # The default is one thread: for a model this small, a second one costs more than it gains.
    torch.set_num_threads(arguments.threads)
    pipe = load_pipeline(arguments.weights or DEFAULT_WEIGHTS, device)
    prompts = arguments.prompt if arguments.prompt is not None else PROMPTS
    result = run_demo(
        pipe,
        prompts,
        configs,
        steps=arguments.steps,
        guidance=arguments.guidance,
        seed=arguments.seed,
    )
    write_files(result, arguments.out)
    print(table(result))
    print("\n".join(["", *notes(result), f"Written to {arguments.out}/"]))


def _configs(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    known = demo_presets(arguments.steps)
    if arguments.weights is not None:
        # Other weights can have the same model config, so the profile's own check is not enough.
        known = {name: settings for name, settings in known.items() if name != "profile"}
    names = arguments.config or list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"--config {unknown[0]}: with these --steps and --weights there are {', '.join(known)}"
        )
    return {name: known[name] for name in names}
