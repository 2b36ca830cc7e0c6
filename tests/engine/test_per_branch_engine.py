"""Decisions for guidance branches: one for all, by the leading branch, or one for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from adacache_kernels.engine.cache_context import leads_before
from tests.support.oracles.two_residuals_per_block import relative
from tests.support.tiny_models.common_models import TINY
from tests.support.tiny_models.description import noise

STEPS = 16
CODEBOOK = {0.08: 5, 0.13: 4, 0.15: 3, 0.21: 2, 9.0: 1}


def wan() -> nn.Module:
    return TINY["wan"].build()


def call(model: nn.Module, x: Tensor, step: int, text: int) -> Tensor:
    return model(
        hidden_states=x,
        timestep=torch.full((1,), 930 - 30 * step),
        encoder_hidden_states=noise(1, 6, 16, seed=text),
        return_dict=False,
    )[0]


# The second branch has larger steps, so its residuals change more.
SIZES = {"cond": 0.02, "uncond": 0.3}


def denoise(model: nn.Module, names: list[str]) -> dict[str, list[Tensor]]:
    """Run a generation in which every branch has its own latents, and return all of them."""
    latents = {name: noise(1, 4, 3, 8, 8, seed=index) for index, name in enumerate(names)}
    trajectory: dict[str, list[Tensor]] = {name: [] for name in names}
    with torch.no_grad():
        for step in range(1, STEPS + 1):
            for index, name in enumerate(names):
                with ak.cache_context(name):
                    change = call(model, latents[name], step, 100 + index)
                latents[name] = latents[name] - SIZES.get(name, 0.1) * change
                trajectory[name].append(latents[name])
    return trajectory


def patched(**settings: Any) -> nn.Module:
    return ak.patch(wan(), codebook=CODEBOOK, num_inference_steps=STEPS, **settings)


def alone(name: str, index: int) -> tuple[list[int], Tensor]:
    """Return schedule and last latents of a model that runs only this branch."""
    model = patched()
    latents = noise(1, 4, 3, 8, 8, seed=index)
    with torch.no_grad():
        for step in range(1, STEPS + 1):
            latents = latents - SIZES[name] * call(model, latents, step, 100 + index)
    return ak.summary(model).computed_steps, latents


def test_each_branch_has_the_schedule_that_it_has_alone() -> None:
    model = patched(decide_for="branch")
    found = denoise(model, ["cond", "uncond"])
    summary = ak.summary(model)
    schedules = {name: branch.computed_steps for name, branch in summary.by_branch.items()}
    for index, name in enumerate(("cond", "uncond")):
        steps, latents = alone(name, index)
        assert schedules[name] == steps
        assert relative(found[name][-1], latents) < 1e-6
    assert schedules["cond"] != schedules["uncond"]
    union = sorted({*schedules["cond"], *schedules["uncond"]})
    assert summary.computed_steps == union and summary.branches == ["cond", "uncond"]
    assert summary.to_dict()["by_branch"]["cond"]["computed_steps"] == schedules["cond"]
    assert "branch 'uncond'  1 2" in str(summary)


def test_together_the_first_decides() -> None:
    model = patched()
    denoise(model, ["cond", "uncond"])
    assert ak.summary(model).computed_steps == alone("cond", 0)[0]
    assert ak.summary(model).by_branch == {}


def test_together_a_conditional_branch_decides_in_any_order() -> None:
    model = patched()
    denoise(model, ["uncond", "cond"])
    assert ak.summary(model).computed_steps == alone("cond", 1)[0]


def test_names_of_branches() -> None:
    assert leads_before("cond", "uncond") and leads_before("pred_cond", "negative")
    assert not leads_before("uncond", "cond") and not leads_before("cond", "0")
    assert not leads_before("uncond_stg", "uncond")


def test_a_second_generation_and_one_without_guidance() -> None:
    model = patched(decide_for="branch")
    first = denoise(model, ["cond", "uncond"])
    again = denoise(model, ["cond", "uncond"])
    assert all(map(torch.equal, first["uncond"], again["uncond"]))
    only = denoise(model, ["cond"])
    assert all(map(torch.equal, first["cond"], only["cond"]))
    assert ak.summary(model).branches == ["cond"]
    ak.unpatch(model)


def test_an_error_in_one_branch_begins_again() -> None:
    model = patched(decide_for="branch")
    expected = denoise(model, ["cond", "uncond"])
    ak.reset(model)
    with pytest.raises(RuntimeError), torch.no_grad():
        for step in range(1, 6):
            for name in ("cond", "uncond"):
                with ak.cache_context(name):
                    text = 7 if step == 5 else 16
                    model(
                        hidden_states=noise(1, 4, 3, 8, 8),
                        timestep=torch.ones(1),
                        encoder_hidden_states=noise(1, 6, text),
                    )
    found = denoise(model, ["cond", "uncond"])
    assert all(map(torch.equal, expected["cond"], found["cond"]))


def test_memory_of_each_branch_is_counted() -> None:
    together, each = patched(), patched(decide_for="branch")
    for model in (together, each):
        denoise(model, ["cond", "uncond"])
    # A residual for each branch, and the slot of the metric block: one, or one for each branch.
    assert ak.summary(together).cache_tensors == 3
    assert ak.summary(each).cache_tensors == 4


def test_other_values_of_decide_for_are_refused() -> None:
    with pytest.raises(ValueError, match=r"decide_for.*'step', 'branch'"):
        patched(decide_for="both")


def test_videos_of_each_branch() -> None:
    """With batch="each", every video has a summary, with that of each of its branches."""
    scales = (0.02, 0.3)

    def run(model: nn.Module, videos: Sequence[int]) -> None:
        latents = torch.cat([noise(1, 4, 3, 8, 8, seed=video) for video in videos])
        speed = torch.tensor([scales[video] for video in videos]).view(-1, 1, 1, 1, 1)
        with torch.no_grad():
            for step in range(1, STEPS + 1):
                for name, text in (("cond", 100), ("uncond", 101)):
                    with ak.cache_context(name):
                        change = model(
                            hidden_states=latents,
                            timestep=torch.full((len(videos),), 930 - 30 * step),
                            encoder_hidden_states=noise(1, 6, 16, seed=text).repeat(
                                len(videos), 1, 1
                            ),
                            return_dict=False,
                        )[0]
                latents = latents - speed * change

    model = patched(decide_for="branch", batch="each")
    run(model, (0, 1))
    summary = ak.summary(model)
    assert len(summary.videos) == 2 and list(summary.by_branch) == ["cond", "uncond"]
    schedules = set()
    for index, video in enumerate(summary.videos):
        assert video.branches == ["cond", "uncond"] and video.videos == []
        for name, branch in video.by_branch.items():
            own = summary.by_branch[name].videos[index]
            assert branch.computed_steps == own.computed_steps
            schedules.add(tuple(branch.computed_steps))
        both = [branch.computed_steps for branch in video.by_branch.values()]
        assert video.computed_steps == sorted({*both[0], *both[1]})
    assert len(schedules) > 1
    assert len(summary.to_dict()["videos"]) == 2 and str(summary)
    # A single video has no list of videos.
    alone = patched(decide_for="branch", batch="each")
    run(alone, (1,))
    assert ak.summary(alone).videos == []
    assert ak.summary(alone).computed_steps == summary.videos[1].computed_steps
