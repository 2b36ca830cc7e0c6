"""Two experts that share a generation but belong to no pipeline of diffusers."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from adacache_kernels.engine.evidence import call_evidence
from tests.situations.requests import EVERY_FOURTH, lively, model_alone, pipeline, prompt, video
from tests.support.tiny_models.common_models import TINY
from tests.support.tiny_models.description import noise
from tests.support.tiny_pipelines.latte_and_wan import wan
from tests.support.tiny_pipelines.schedulers import euler

STEPS = 16


class Generator:
    """Wan 2.2's own way: two models as attributes, a scheduler in each call, stacked timesteps."""

    def __init__(self) -> None:
        self.high_noise_model = model_alone()
        self.low_noise_model = lively(TINY["wan"].build(seed=5))

    def generate(self, seed: int, text: Tensor, other: Tensor) -> Tensor:
        scheduler = euler(shift=3.0)
        scheduler.set_timesteps(STEPS)
        latents = noise(1, 4, 3, 8, 8, seed=seed)
        for t in scheduler.timesteps:
            model = self.high_noise_model if t >= 600 else self.low_noise_model
            timestep = torch.stack([t])
            with torch.no_grad():
                cond, uncond = (
                    model(latents, timestep, x, return_dict=False)[0] for x in (text, other)
                )
            velocity = uncond + 5 * (cond - uncond)
            latents = scheduler.step(velocity, t, latents, return_dict=False)[0]
        return latents


AS: dict[str, Callable[[Generator], Any]] = {
    "a list": lambda own: [own.high_noise_model, own.low_noise_model],
    "a tuple": lambda own: (own.high_noise_model, own.low_noise_model),
    "the object": lambda own: own,
    "a namespace": lambda own: SimpleNamespace(
        high_noise_model=own.high_noise_model, low_noise_model=own.low_noise_model
    ),
}


@pytest.mark.parametrize("target_of", AS.values(), ids=AS)
@pytest.mark.parametrize("is_readable", [True, False])
def test_the_experts_count_the_steps_of_the_generation(
    target_of: Callable[[Generator], Any], is_readable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_readable:
        monkeypatch.setattr(call_evidence, "readable_time", lambda timestep: None)
    own = Generator()
    target = target_of(own)
    prompts = [(prompt(seed), prompt(100 + seed)) for seed in range(2)]
    plain = [own.generate(seed, *prompts[seed]) for seed in range(2)]
    assert ak.patch(target, num_inference_steps=STEPS, codebook=EVERY_FOURTH) is target
    assert ak.is_patched(target)
    videos = [own.generate(seed, *prompts[seed]) for seed in range(2)]
    summary = ak.summary(target)
    assert sorted([*summary.computed_steps, *summary.reused_steps]) == list(range(1, STEPS + 1))
    assert {STEPS - 1, STEPS} <= set(summary.computed_steps) and len(summary.reused_steps) >= 6
    ak.unpatch(target)
    ak.patch(target, num_inference_steps=STEPS, codebook=EVERY_FOURTH)
    assert torch.equal(own.generate(1, *prompts[1]), videos[1]), "as if it were the first video"
    ak.unpatch(target)
    assert torch.equal(own.generate(0, *prompts[0]), plain[0])
    assert not torch.equal(videos[0], plain[0])


def test_each_expert_begins_with_nothing() -> None:
    own = Generator()
    ak.patch(own, num_inference_steps=STEPS, codebook=EVERY_FOURTH)
    for seed in range(2):
        own.generate(seed, prompt(seed), prompt(100 + seed))
        low = ak.summary(own.low_noise_model)
        assert low.computed_steps[0] < min(low.reused_steps)


@pytest.mark.parametrize("boundary", [0.3, 0.6])
def test_one_model_as_both_experts_of_a_pipeline(boundary: float) -> None:
    model = model_alone()
    one = wan(transformer=model, scheduler=euler(shift=3.0))
    both = wan(
        transformer=model,
        transformer_2=model,
        boundary_ratio=boundary,
        scheduler=euler(shift=3.0),
    )
    plain = video(both)
    ak.patch(one, codebook=EVERY_FOURTH)
    expected = video(one)
    ak.unpatch(one)
    ak.patch(both, codebook=EVERY_FOURTH)
    assert torch.equal(video(both), expected)
    ak.unpatch(both)
    assert torch.equal(video(both), plain)


def test_one_model_twice_in_a_list() -> None:
    model = model_alone()
    ak.patch([model, model], num_inference_steps=STEPS, codebook=EVERY_FOURTH)
    assert ak.is_patched(model)
    ak.unpatch([model, model])
    assert not ak.is_patched(model)


@pytest.mark.parametrize("wrong", [[], [1], [nn.Linear(2, 2), None], {}, SimpleNamespace()])
def test_what_has_no_models_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="neither a torch module, nor a list of them"):
        ak.patch(wrong)


def test_a_pipeline_is_still_a_pipeline() -> None:
    pipe = ak.patch(pipeline(), codebook=EVERY_FOURTH)
    video(pipe)
    assert ak.summary(pipe).reused_steps
