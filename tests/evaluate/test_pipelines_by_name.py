"""Pipelines of `adacache bench quality`: by name, from a file, and their output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adacache_kernels.evaluate import pipelines


@pytest.mark.parametrize(
    "name, call, message",
    [
        ("demo", {"height": 3}, r"the demo takes guidance=, not height"),
        ("nothing.py:build", {}, r"nothing.py is no file"),
    ],
)
def test_wrong_pipelines(name: str, call: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipelines.load(name, arguments=call)


def test_a_pipeline_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text("def build(device, scale):\n    return device, lambda *a: scale\n")
    own = pipelines.load(f"{path}:build", device="cpu", arguments={"scale": 3})
    assert (own.pipe, own.generate("a", 1, 0)) == ("cpu", 3)
    with pytest.raises(ValueError, match=r"has no function nothing; it has to return \(pipe"):
        pipelines.load(f"{path}:nothing")


def test_the_output_of_a_pipeline() -> None:
    from types import SimpleNamespace

    video = np.ones((1, 4, 8, 8, 3)) * 2
    assert pipelines.as_video(SimpleNamespace(frames=video)).shape == (4, 8, 8, 3)
    image = pipelines.as_video(SimpleNamespace(images=np.zeros((1, 8, 8, 3))))
    assert image.shape == (1, 8, 8, 3)
    with pytest.raises(ValueError, match=r"shape \(1, 8, 8, 5\); expected frames"):
        pipelines.as_video(SimpleNamespace(images=np.zeros((1, 8, 8, 5))))
