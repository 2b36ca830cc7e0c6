"""decision="graph": the device chooses between two graphs, without the host.

Without a GPU, a graph is a closure that runs when it is launched. The flag that `begin_step` writes
decides. test_protocol.py tests the same on the driver stub with compiled kernels.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from adacache_kernels.engine.decision import step_graphs
from tests.support.graph_closures import Closures
from tests.support.rounding import close
from tests.support.tiny_models.common_models import FOUR, TINY, Tiny, denoise

STEPS = 50


def adaptive(name: str, **settings: Any) -> dict[str, Any]:
    """Return settings with which the rates of the tiny model differ from step to step."""
    tiny = TINY[name]
    model = ak.patch(tiny.build(), codebook={1e9: 2}, num_inference_steps=STEPS, **settings)
    denoise(tiny, model, STEPS)
    distances = sorted(d for d in ak.summary(model).distances if d is not None)
    # The threshold is between two distances, so rounding does not move a distance across it.
    middle = sum(distances[len(distances) // 2 :][:2]) / 2
    return {"codebook": {middle: 4, 1e9: 2}, "num_inference_steps": STEPS, **settings}


def runs(
    name: str, model: nn.Module, count: int, **settings: Any
) -> tuple[list[list[Tensor]], list[Any]]:
    """Return trajectory and summary of every generation, and unpatch the model."""
    ak.patch(model, **settings)
    trajectories, summaries = [], []
    for _ in range(count):
        trajectories.append(denoise(TINY[name], model, STEPS))
        summaries.append(ak.summary(model))
    ak.unpatch(model)
    return trajectories, summaries


@pytest.mark.parametrize("moreg", [False, True])
@pytest.mark.parametrize("name", FOUR)
def test_the_device_chooses_as_the_host_would(name: str, moreg: bool, capture: Closures) -> None:
    """Compare three generations of 50 steps; the videos are equal bit for bit."""
    settings, model = adaptive(name, apply_moreg=moreg), TINY[name].build()
    expected, by_host = runs(name, model, 1, **settings, decision="sync")
    found, by_device = runs(name, model, 3, **settings, decision="graph")
    assert 5 < len(by_host[0].reused_steps) < 40
    assert {2, 4} <= set(by_host[0].rates)
    for trajectory, summary in zip(found, by_device, strict=True):
        assert summary.computed_steps == by_host[0].computed_steps
        assert summary.reused_steps == by_host[0].reused_steps
        assert summary.rates == by_host[0].rates
        assert summary.distances == by_host[0].distances
        assert summary.motion_scores == by_host[0].motion_scores
        assert summary.waits == []
        assert all(map(torch.equal, trajectory, expected[0]))
    assert capture.recorded == 2
    eager = step_graphs.EAGER_STEPS
    expected_ways = [
        "taken" if step in by_host[0].computed_steps else "otherwise"
        for step in range(eager + 1, STEPS + 1)
    ]
    assert capture.launched == 3 * expected_ways


@pytest.mark.parametrize("stored", ["int8", "fp8"])
def test_eight_bit_residuals(stored: Any, capture: Closures) -> None:
    settings, model = adaptive("latte", cache_dtype=stored), TINY["latte"].build()
    expected, by_host = runs("latte", model, 1, **settings, decision="sync")
    found, by_device = runs("latte", model, 2, **settings, decision="graph")
    assert [s.computed_steps for s in by_device] == 2 * [by_host[0].computed_steps]
    assert all(all(map(torch.equal, trajectory, expected[0])) for trajectory in found)


def denoise_with_guidance(tiny: Tiny, model: nn.Module) -> list[Tensor]:
    latents, trajectory = tiny.noise(), []
    with torch.no_grad():
        for step in range(1, STEPS + 1):
            with ak.cache_context("cond"):
                cond = tiny.call(model, latents, step)
            with ak.cache_context("uncond"):
                uncond = tiny.call(model, latents, step, text_seed=7)
            latents = latents - 0.05 * (uncond + 2 * (cond - uncond))
            trajectory.append(latents)
    return trajectory


def test_branches_have_graphs_of_their_own_and_one_decision(capture: Closures) -> None:
    settings, tiny = adaptive("wan"), TINY["wan"]
    model, videos, summaries = tiny.build(), [], []
    for decision in ("sync", "graph"):
        ak.patch(model, **settings, decision=decision)
        videos.append(denoise_with_guidance(tiny, model))
        summaries.append(ak.summary(model))
        ak.unpatch(model)
    assert summaries[1].computed_steps == summaries[0].computed_steps
    assert all(map(torch.equal, *videos))
    assert capture.recorded == 4
    assert summaries[1].branches == ["cond", "uncond"]


def test_each_shape_is_captured_once(capture: Closures) -> None:
    settings, tiny = adaptive("latte"), TINY["latte"]
    model = ak.patch(tiny.build(), **settings, decision="graph")
    plain = ak.patch(tiny.build(), **settings, decision="sync")
    for batch, recorded in ((1, 2), (2, 4), (2, 4)):
        found, expected = (denoise(tiny, m, STEPS, batch=batch) for m in (model, plain))
        assert close(found, expected)
        assert ak.summary(model).computed_steps == ak.summary(plain).computed_steps
        assert capture.recorded == recorded


def test_another_shape_in_the_middle_of_a_run_begins_again(capture: Closures) -> None:
    settings, tiny = adaptive("latte"), TINY["latte"]
    videos = []
    for decision in ("sync", "graph"):
        model = ak.patch(tiny.build(), **settings, decision=decision)
        with torch.no_grad():
            videos.append(
                [tiny.call(model, tiny.noise(1 + (step > 20)), step) for step in range(1, 41)]
            )
    assert close(*videos)
    assert {21, 22} <= set(ak.summary(model).computed_steps)


def test_other_weights_are_captured_again(capture: Closures) -> None:
    settings, tiny = adaptive("cogvideox"), TINY["cogvideox"]
    model = ak.patch(tiny.build(), **settings, decision="graph")
    denoise(tiny, model, STEPS)
    model.proj_out = nn.Linear(model.proj_out.in_features, model.proj_out.out_features)
    found = denoise(tiny, model, STEPS)
    assert capture.recorded == 4
    ak.unpatch(model)
    ak.patch(model, **settings, decision="sync")
    assert all(map(torch.equal, found, denoise(tiny, model, STEPS)))


def test_outputs_outlive_the_next_step(capture: Closures) -> None:
    settings, tiny = adaptive("wan"), TINY["wan"]
    model = ak.patch(tiny.build(), **settings, decision="graph")
    with torch.no_grad():
        outputs = [tiny.call(model, tiny.noise(seed=step), step) for step in range(1, 8)]
        copies = [output.clone() for output in outputs]
        tiny.call(model, tiny.noise(seed=9), 8)
    assert all(map(torch.equal, outputs, copies))


def test_a_number_that_changes_is_refused(capture: Closures) -> None:
    settings, tiny = adaptive("wan"), TINY["wan"]
    model = ak.patch(tiny.build(), **settings, decision="graph")
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"captured 4 times .* as a tensor"):
        for step in range(1, STEPS):
            model(
                hidden_states=tiny.noise(),
                encoder_hidden_states=tiny.text(),
                timestep=torch.tensor([930 - 30 * step]),
                attention_kwargs={"step": 0.1 * step},
                return_dict=False,
            )


def test_reset_drops_the_graphs(capture: Closures) -> None:
    settings, tiny = adaptive("wan"), TINY["wan"]
    model = ak.patch(tiny.build(), **settings, decision="graph")
    denoise(tiny, model, STEPS)
    ak.reset(model)
    denoise(tiny, model, STEPS)
    assert capture.recorded == 4


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"forecast": 1}, "forecast"),
        ({"schedule": (1, 2, 5)}, "schedule"),
        ({"correct": True, "forecast": 1}, "forecast and correct"),
        ({"over_budget": ("host",)}, "over_budget"),
        ({"measure": "forecast-error"}, "measure"),
    ],
)
def test_settings_that_need_the_host_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=rf'"graph" cannot do what {named} asks for.*"async"'):
        ak.AdaCacheConfig(decision="graph", **settings)


def test_a_cpu_has_no_graphs() -> None:
    tiny = TINY["wan"]
    model = ak.patch(tiny.build(), decision="graph", num_inference_steps=8)
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"needs an NVIDIA GPU.*on cpu"):
        tiny.call(model, tiny.noise(), 1)


def test_an_old_torch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from adacache_kernels.engine.decision import graph_capture as module

    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    with pytest.raises(RuntimeError, match=r"raw_cuda_graph, which torch .* does not have"):
        module.make_capture(torch.device("cuda", 0))
