"""Warnings point at the line of the user's code, whichever libraries are in between."""

from __future__ import annotations

import inspect
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import adacache_kernels as ak
from adacache_kernels.messages import warn_user
from tests.support.tiny_models.common_models import TINY
from tests.support.tiny_pipelines.latte_and_wan import wan
from tests.support.tiny_pipelines.video_pipelines import WAN

TINY_WAN = TINY["wan"]


def line() -> int:
    """Return the line of the caller."""
    frame = inspect.currentframe()
    assert frame is not None and frame.f_back is not None
    return frame.f_back.f_lineno


def nothing(_pipe: Any) -> None:
    pass


def hook(pipe: Any) -> None:
    from accelerate.hooks import ModelHook, add_hook_to_module

    add_hook_to_module(pipe.transformer, ModelHook())


def compile_blocks(pipe: Any) -> None:
    for block in pipe.transformer.blocks:
        block.compile(backend="eager")


@pytest.mark.parametrize("change", [nothing, hook, compile_blocks])
def test_a_warning_of_the_first_forward_points_at_the_call_of_the_pipeline(
    change: Callable[[Any], None],
) -> None:
    pipe = ak.patch(wan(), "fast")
    change(pipe)
    arguments = {**WAN.arguments(), "num_inference_steps": 4, "output_type": "latent"}
    with pytest.warns(ak.AdaCacheWarning, match="no step of 4") as warned:
        expected, _ = line(), pipe(**arguments)
    found = next(w for w in warned if "no step of 4" in str(w.message))
    assert (found.filename, found.lineno) == (__file__, expected)


def test_a_warning_of_a_bare_model_points_at_its_call() -> None:
    model = ak.patch(TINY_WAN.build(), num_inference_steps=9).train()
    latents, text = TINY_WAN.noise(), TINY_WAN.text()
    with torch.no_grad(), pytest.warns(ak.AdaCacheWarning, match="training mode") as warned:
        expected, _ = line(), model(latents, torch.tensor([900]), text)
    assert {(w.filename, w.lineno) for w in warned} == {(__file__, expected)}


def test_a_warning_about_a_bypassed_model_points_at_the_call_of_summary() -> None:
    model = TINY_WAN.build()
    theirs = model.forward
    ak.patch(model, num_inference_steps=9)
    model.forward = theirs
    with pytest.warns(ak.AdaCacheWarning, match="set this model's forward") as warned:
        expected, _ = line(), ak.summary(model)
    assert (warned[0].filename, warned[0].lineno) == (__file__, expected)


def test_a_warning_of_the_scheduler_points_at_its_step() -> None:
    pipe = ak.patch(wan(), codebook={1e9: 3})
    pipe.scheduler.set_timesteps(12)
    sample, step = torch.zeros(1, 4, 3, 8, 8), pipe.scheduler.step
    with pytest.warns(ak.AdaCacheWarning, match="without a call of the patched") as warned:
        for timestep in pipe.scheduler.timesteps:
            expected, _ = line(), step(sample, timestep, sample)
    assert (warned[0].filename, warned[0].lineno) == (__file__, expected)


def test_without_a_frame_of_the_user_the_warning_points_at_the_outermost_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames = inspect.stack()
    packages = {str(f.frame.f_globals.get("__name__")).split(".")[0] for f in frames}
    monkeypatch.setattr("adacache_kernels.messages.LIBRARIES", {"adacache_kernels", *packages})
    with pytest.warns(ak.AdaCacheWarning, match="a text") as warned:
        warn_user("a text")
    assert warned[0].filename == frames[-1].filename


def test_a_script_is_shown_with_its_line(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("from adacache_kernels.messages import warn_user\n\nwarn_user('a text')\n")
    with pytest.warns(ak.AdaCacheWarning, match="a text") as warned:
        runpy.run_path(str(script), run_name="__main__")
    assert (warned[0].filename, warned[0].lineno) == (str(script), 3)
