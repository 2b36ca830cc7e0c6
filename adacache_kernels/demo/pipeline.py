"""Load the demo's pipeline: a diffusers `LattePipeline` with 2.2 million parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DEFAULT_WEIGHTS = Path(__file__).parent / "weights"

CONFIGS = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "transformer/config.json",
    "vae/config.json",
)
WEIGHTS = (
    "text_encoder/model.safetensors",
    "transformer/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
)
REMEDY = "install the package again, or name another folder with --weights"


def load_pipeline(folder: Path = DEFAULT_WEIGHTS, device: str = "cpu") -> Any:
    """Load the pipeline in a folder, in float32, without a progress bar.

    Args:
        folder: of a saved `LattePipeline`.
        device: such as "cpu" or "cuda".

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a weights file cannot be read or holds wrong tensors, or the folder holds no
            `LattePipeline`.
    """
    _check_files(folder)
    import torch
    from diffusers import LattePipeline

    with _quiet_loading():
        try:
            pipe = LattePipeline.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            )
        except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{folder} holds no LattePipeline ({error}); {REMEDY}") from error
        _check_names(folder, pipe)
        pipe.set_progress_bar_config(disable=True)
        # The weights are stored in float16.
        return pipe.to(device, torch.float32)


def known_words(pipe: Any) -> list[str]:
    """Return the words that the demo model was trained with, in the vocabulary's order."""
    vocabulary = pipe.tokenizer.get_vocab()
    words = sorted(vocabulary, key=vocabulary.__getitem__)
    return [word for word in words if not word.startswith("<")]


def check_prompts(pipe: Any, prompts: Sequence[str]) -> None:
    """Check that the demo model knows all words of the prompts.

    Raises:
        ValueError: there is no prompt, a prompt is empty, or a word is not in the vocabulary.
    """
    if not prompts:
        raise ValueError('there is no prompt; give for example "a white six moving fast"')
    known = known_words(pipe)
    for prompt in prompts:
        words = prompt.lower().split()
        if not words:
            raise ValueError("a prompt is empty; the demo model knows: " + ", ".join(known))
        unknown = [word for word in words if word not in known]
        if unknown:
            raise ValueError(
                f'the demo model does not know {", ".join(map(repr, unknown))} in "{prompt}"; '
                f"it knows: {', '.join(known)}"
            )


@contextmanager
def _quiet_loading() -> Iterator[None]:
    import diffusers
    import transformers

    libraries = (diffusers.utils.logging, transformers.utils.logging)
    before = [logging.get_verbosity() for logging in libraries]
    for logging in libraries:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    try:
        yield
    finally:
        for logging, verbosity in zip(libraries, before, strict=True):
            logging.set_verbosity(verbosity)
            logging.enable_progress_bar()


def _check_files(folder: Path) -> None:
    from safetensors import SafetensorError, safe_open

    for name in (*CONFIGS, *WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{name} is missing in {folder}; {REMEDY}")
    for name in WEIGHTS:
        try:
            with safe_open(folder / name, framework="pt") as weights:
                keys = list(weights.keys())
                broken = [key for key in keys if not weights.get_tensor(key).isfinite().all()]
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{folder / name} cannot be read ({error}); {REMEDY}") from error
        if broken:
            raise ValueError(f"{folder / name} holds numbers that are not finite; {REMEDY}")


def _check_names(folder: Path, pipe: Any) -> None:
    """Check the names of all tensors: transformers initializes missing ones at random, silently."""
    from safetensors import safe_open

    for name in WEIGHTS:
        model = getattr(pipe, name.split("/")[0])
        with safe_open(folder / name, framework="pt") as weights:
            differing = {name for name, _ in model.named_parameters()} ^ set(weights.keys())
        if differing:
            raise ValueError(
                f"{folder / name} does not fit its config.json ({min(differing)} is in only one of "
                f"them); {REMEDY}"
            )
