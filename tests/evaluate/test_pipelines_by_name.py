"""Pipelines of `adacache bench quality`: by name, from a file, and their output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adacache_kernels.evaluate import pipelines


@pytest.mark.parametrize(
    "name, call, message",
    [
        ("demo", {"height": 3}, r"the demo takes guidance=, not height"),
        ("demo", {"guidance": "four"}, r"--call guidance='four': it must be a finite number"),
        ("demo", {"guidance": float("nan")}, r"--call guidance=nan: it must"),
        ("demo", {"guidance": True}, r"--call guidance=True: it must"),
    ],
)
def test_wrong_pipelines(name: str, call: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipelines.load(name, arguments=call)


def test_the_output_of_a_pipeline() -> None:
    from types import SimpleNamespace

    video = np.ones((1, 4, 8, 8, 3)) * 2
    assert pipelines.as_video(SimpleNamespace(frames=video)).shape == (4, 8, 8, 3)
    image = pipelines.as_video(SimpleNamespace(images=np.zeros((1, 8, 8, 3))))
    assert image.shape == (1, 8, 8, 3)
    with pytest.raises(ValueError, match=r"shape \(1, 8, 8, 5\); expected frames"):
        pipelines.as_video(SimpleNamespace(images=np.zeros((1, 8, 8, 5))))


def fake_diffusers(monkeypatch: pytest.MonkeyPatch, pipe: Any) -> dict[str, Any]:
    """Let diffusers "load" `pipe`, or raise it, and return the arguments that it gets."""
    import diffusers

    given: dict[str, Any] = {}

    def from_pretrained(name: str, **arguments: Any) -> Any:
        given.update(arguments, name=name)
        if isinstance(pipe, Exception):
            raise pipe
        return pipe

    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", from_pretrained)
    return given


class Pipe:
    """A pipeline with one module."""

    def __init__(self, **parts: Any) -> None:
        vars(self).update(parts)

    def __call__(self, prompt: str, height: int = 8) -> None:
        return None

    def to(self, device: str) -> Pipe:
        return self

    def set_progress_bar_config(self, disable: bool) -> None:
        return None


def test_only_safetensors_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    given = fake_diffusers(monkeypatch, Pipe(transformer=torch.nn.Linear(1, 1)))
    pipelines.load("somebody/model", device="cpu", arguments={"height": 16})
    assert given == {
        "name": "somebody/model",
        "torch_dtype": torch.float32,
        "use_safetensors": True,
    }


def test_the_demo_loads_only_safetensors(monkeypatch: pytest.MonkeyPatch) -> None:
    import diffusers

    from adacache_kernels.demo.pipeline import load_pipeline

    def from_pretrained(folder: Path, **arguments: Any) -> Any:
        assert arguments == {"local_files_only": True, "use_safetensors": True}
        raise OSError("seen")

    monkeypatch.setattr(diffusers.LattePipeline, "from_pretrained", from_pretrained)
    with pytest.raises(ValueError, match="seen"):
        load_pipeline()


def test_weights_in_other_formats_are_refused(tmp_path: Path) -> None:
    """A pickle in the folder of a pipeline is not opened."""
    from tests.support.tiny_pipelines.latte_and_wan import latte

    latte().save_pretrained(tmp_path, safe_serialization=False)
    assert list(tmp_path.rglob("*.bin"))
    with pytest.raises(ValueError, match=r"cannot load it; give demo, a folder .* in safetensors"):
        pipelines.load(str(tmp_path), device="cpu")


@pytest.mark.parametrize("error", [OSError("x"), KeyError("x"), RuntimeError("x"), TypeError("x")])
def test_what_diffusers_cannot_load(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_diffusers(monkeypatch, error)
    with pytest.raises(ValueError, match=f"--pipeline 'name': .* {type(error).__name__}: '?x"):
        pipelines.load("name", device="cpu")


@pytest.mark.parametrize(
    ("pipe", "call", "message"),
    [
        (Pipe(unet=torch.nn.Linear(1, 1)), {}, "--pipeline 'name': Pipe has no transformer"),
        (Pipe(transformer=None), {}, "Pipe has no transformer"),
        (Pipe(transformer=torch.nn.Linear(1, 1)), {"width": 3}, "Pipe takes no width"),
        (Pipe(transformer=torch.nn.Linear(1, 1)), {"prompt": "x"}, "--call prompt=: this argument"),
    ],
)
def test_pipelines_that_do_not_fit(
    pipe: Pipe, call: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_diffusers(monkeypatch, pipe)
    with pytest.raises(ValueError, match=message):
        pipelines.load("name", device="cpu", arguments=call)


def test_a_value_that_the_pipeline_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    class Typed(Pipe):
        """A pipeline that computes with its argument."""

        def __call__(self, height: Any = 8, **others: Any) -> Any:
            return height // 8

    fake_diffusers(monkeypatch, Typed(transformer=torch.nn.Linear(1, 1)))
    wrong = pipelines.load("name", device="cpu", arguments={"height": "tall"})
    with pytest.raises(ValueError, match=r"--call {'height': 'tall'}: Typed raised TypeError"):
        wrong.generate("a", 1, 0)
