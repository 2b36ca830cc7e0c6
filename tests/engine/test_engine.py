"""The engine with the tiny models: exact results, distances, and memory."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from adacache_kernels.schedule import AdaCachePolicy
from tests.support.oracles.two_residuals_per_block import TwoResiduals, relative, two_residuals
from tests.support.tiny_models.common_models import FOUR, TINY, Tiny, denoise

STEPS = 12
ALWAYS = {1.0: 1}
EVERY_THIRD = {float("inf"): 3}


def identities(model: nn.Module) -> dict[str, Any]:
    """Return the identity of every forward, hook and instance attribute of a model."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        found[f"{name}.forward"] = getattr(module.forward, "__func__", module.forward)
        for attribute, value in vars(module).items():
            found[f"{name}.{attribute}"] = (id(value), len(value) if isinstance(value, dict) else 0)
    return found


def oracle_run(
    name: str, model: nn.Module, computed: set[int], steps: int = STEPS
) -> tuple[list[Tensor], dict[tuple[str, int], TwoResiduals]]:
    """Return the latents of the oracle after each step, and its blocks, for a given schedule."""
    tiny, latents, trajectory, now = TINY[name], TINY[name].noise(), [], [0]
    with (
        two_residuals(name, model, tiny.lists, lambda: now[0] in computed) as blocks,
        torch.no_grad(),
    ):
        for step in range(1, steps + 1):
            now[0] = step
            latents = latents - 0.05 * tiny.call(model, latents, step)
            trajectory.append(latents)
    return trajectory, blocks


@pytest.mark.parametrize("name", TINY)
def test_rate_1_is_bit_equal(name: str) -> None:
    tiny = TINY[name]
    model = tiny.build()
    plain = denoise(tiny, model, STEPS)
    ak.patch(model, codebook=ALWAYS, num_inference_steps=STEPS)
    patched = denoise(tiny, model, STEPS)
    assert all(torch.equal(a, b) for a, b in zip(plain, patched, strict=True))
    assert ak.summary(model).computed_steps == list(range(1, STEPS + 1))


@pytest.mark.parametrize("name", TINY)
def test_unpatch_sets_everything_back(name: str) -> None:
    tiny = TINY[name]
    model = tiny.build()
    before, plain = identities(model), denoise(tiny, model, STEPS)
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS)
    denoise(tiny, model, STEPS)
    ak.unpatch(model)
    after = denoise(tiny, model, STEPS)
    assert identities(model) == before
    assert all(torch.equal(a, b) for a, b in zip(plain, after, strict=True))


@pytest.mark.parametrize("name", TINY)
def test_reuse_on_equal_input_repeats_the_output(name: str) -> None:
    """x_in + (x_out - x_in) is x_out up to two roundings a stream.

    Each rounding is at most eps/2 of the stream. A normalization and a linear map follow; their
    gain is below 16 in these models.
    """
    tiny = TINY[name]
    model, latents = tiny.build(), tiny.noise()
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS)

    def call(index: int) -> Tensor:
        with torch.no_grad(), ak.cache_context("0", step_index=index, num_inference_steps=STEPS):
            return tiny.call(model, latents, min(index, 1) + 1)

    _, computed, reused, again = (call(index) for index in range(4))
    assert ak.summary(model).reused_steps == [3, 4]
    assert torch.equal(reused, again)
    assert relative(reused, computed) < 16 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", TINY)
def test_one_residual_a_span_equals_two_a_block(
    name: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(seed)
    computed = {1, *(step for step in range(2, STEPS + 1) if draw.random() < 0.4)}
    tiny = TINY[name]
    model = tiny.build()
    expected, _ = oracle_run(name, model, computed)
    monkeypatch.setattr(AdaCachePolicy, "compute", lambda self, step, last: step in computed)
    monkeypatch.setattr(AdaCachePolicy, "may_reuse_after", lambda self, step: True)
    ak.patch(model, num_inference_steps=STEPS)
    found = denoise(tiny, model, STEPS)
    assert ak.summary(model).computed_steps == sorted(computed)
    assert max(relative(a, b) for a, b in zip(found, expected, strict=True)) < 1e-5


@pytest.mark.parametrize("name", FOUR)
def test_reuse_changes_the_output(name: str) -> None:
    """The test above would pass with an engine that computes every step; this one would not."""
    tiny = TINY[name]
    model = tiny.build()
    plain = denoise(tiny, model, STEPS)
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS)
    assert relative(denoise(tiny, model, STEPS)[-1], plain[-1]) > 1e-5


@pytest.mark.parametrize("name", FOUR)
def test_a_reused_step_enters_no_block(name: str) -> None:
    tiny = TINY[name]
    model = tiny.build()
    entered: list[str] = []
    for attribute in tiny.lists:
        for block in getattr(model, attribute):
            block.register_forward_pre_hook(lambda *_: entered.append("block"))
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS)
    latents, counts = tiny.noise(), []
    with torch.no_grad():
        for step in range(1, STEPS + 1):
            entered.clear()
            tiny.call(model, latents, step)
            counts.append(len(entered))
    blocks = sum(len(getattr(model, attribute)) for attribute in tiny.lists)
    computed = ak.summary(model).computed_steps
    assert counts == [blocks if step in computed else 0 for step in range(1, STEPS + 1)]


@pytest.mark.parametrize("name", TINY)
def test_the_add_in_place_touches_no_input_of_the_model(name: str) -> None:
    tiny = TINY[name]
    model, latents = tiny.build(), tiny.noise(batch=2)
    text = tiny.text(batch=2)
    given = {"hidden_states": latents.clone(), "encoder_hidden_states": text.clone()}
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS)
    with torch.no_grad():
        for step in range(1, 6):
            timestep = torch.full((2,), 930 - 30 * step)
            model(**given, timestep=timestep, return_dict=False, **tiny.extra(2))
    assert ak.summary(model).reused_steps == [3, 4]
    assert torch.equal(given["hidden_states"], latents)
    assert torch.equal(given["encoder_hidden_states"], text)


@pytest.mark.parametrize("name", FOUR)
def test_cache_memory_is_one_residual_a_stream_and_layout_and_the_metric(name: str) -> None:
    tiny = TINY[name]
    model = tiny.build()
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS)
    denoise(tiny, model, STEPS, batch=2)
    summary = ak.summary(model)
    assert summary.cache_tensors == tiny.streams + 1
    channels = model.proj_out.in_features
    video = 4 * 2 * tiny.frames * 16 * channels
    text = 4 * 2 * 6 * channels if name == "cogvideox" else 0
    videos = tiny.streams - (1 if text else 0) + 1
    assert summary.cache_bytes == videos * video + text
    ak.unpatch(model)


def expected_distances(
    name: str, model: nn.Module, attribute: str, index: int, steps: int
) -> tuple[list[float], list[float]]:
    """Return relative L1 distances and motion scores of the oracle's attention residuals."""
    tiny, latents, now = TINY[name], TINY[name].noise(), [0]
    residuals = []
    with two_residuals(name, model, tiny.lists, lambda: True) as blocks, torch.no_grad():
        for step in range(1, steps + 1):
            now[0] = step
            latents = latents - 0.05 * tiny.call(model, latents, step)
            residuals.append(blocks[attribute, index].stored[0][0].double())
    pairs = list(itertools.pairwise(residuals))
    distances = [float((c - p).abs().sum() / c.abs().sum()) for c, p in pairs]
    return distances, [motion_of(name, attribute, p) for _, p in pairs]


def motion_of(name: str, attribute: str, p: Tensor) -> float:
    """Return the score of stride 1: ||p[1:] - p[:-1]|| / (||p[1:]|| + ||p[:-1]||) over frames."""
    frames = TINY[name].frames
    if attribute == "temporal_transformer_blocks":
        video = p.transpose(0, 1)
    else:
        video = p.reshape(frames, -1, p.shape[-1])
    later, earlier = video[1:], video[:-1]
    return float((later - earlier).abs().sum() / (later.abs().sum() + earlier.abs().sum()))


METRIC_BLOCKS = [
    ("latte", "t-attn", "temporal_transformer_blocks"),
    ("latte", "s-attn", "transformer_blocks"),
    ("allegro", "s-attn", "transformer_blocks"),
    ("wan", "s-attn", "blocks"),
    ("cogvideox", "s-attn", "transformer_blocks"),
    ("cogvideox15", "s-attn", "transformer_blocks"),
]


@pytest.mark.parametrize(("name", "res", "attribute"), METRIC_BLOCKS)
def test_the_distance_is_that_of_the_gated_attention_residual(
    name: str, res: Any, attribute: str
) -> None:
    """Within 1e-5: sums of float32 differences, and the oracle's gate may round differently."""
    model = TINY[name].build()
    distances, _ = expected_distances(name, model, attribute, 1, 6)
    ak.patch(model, codebook=ALWAYS, cache_res=res, num_inference_steps=6)
    denoise(TINY[name], model, 6)
    summary = ak.summary(model)
    assert summary.distances[0] is None
    assert summary.distances[1:] == pytest.approx(distances, rel=1e-5)


@pytest.mark.parametrize("last", [6, 8])
@pytest.mark.parametrize(("name", "res", "attribute"), METRIC_BLOCKS)
def test_motion_regularisation(name: str, res: Any, attribute: str, last: int) -> None:
    """Motion scores and regularized distances follow the formulas of the paper and the window.

    If the window reaches the last step, a score that is not reset shows in the next generation.
    """
    model = TINY[name].build()
    distances, motions = expected_distances(name, model, attribute, 1, 8)
    previous, scores, regularised = 1.0, [], []
    for step, (distance, motion) in enumerate(zip(distances, motions, strict=True), start=2):
        score = (motion / 0.5) ** 2 / 1.5 if 3 <= step <= last else 1.0
        regularised.append(distance * (score + abs(10 * (score - previous))))
        scores.append(score)
        previous = score
    ak.patch(
        model,
        codebook=ALWAYS,
        cache_res=res,
        num_inference_steps=8,
        apply_moreg=True,
        moreg_steps=(3, last),
        moreg_hyp=(0.5, 2.0, 1.5),
    )
    for _ in range(2):  # The score is reset at every generation.
        denoise(TINY[name], model, 8)
        summary = ak.summary(model)
        assert summary.motion_scores[1:] == pytest.approx(scores, rel=1e-4)
        assert summary.raw_distances[1:] == pytest.approx(distances, rel=1e-5)
        assert summary.distances[1:] == pytest.approx(regularised, rel=1e-3)


def test_the_distance_is_divided_by_the_steps_in_between() -> None:
    tiny = TINY["wan"]
    model = tiny.build()
    ak.patch(model, codebook={float("inf"): 2}, num_inference_steps=STEPS)
    with torch.no_grad():
        for seed, step in enumerate(range(1, 5)):
            tiny.call(model, tiny.noise(seed=seed), step)
    ak.unpatch(model)
    _, first = residual_of_wan(tiny, model, 2, seed=1)
    _, second = residual_of_wan(tiny, model, 4, seed=3)
    expected = float((first - second).abs().sum() / first.abs().sum()) / 2
    ak.patch(model, codebook={float("inf"): 2}, num_inference_steps=STEPS)
    with torch.no_grad():
        for seed, step in enumerate(range(1, 5)):
            tiny.call(model, tiny.noise(seed=seed), step)
    summary = ak.summary(model)
    assert summary.computed_steps == [1, 2, 4]
    assert summary.distances[-1] == pytest.approx(expected, rel=1e-5)


def residual_of_wan(tiny: Tiny, model: nn.Module, step: int, seed: int) -> tuple[Tensor, Tensor]:
    with two_residuals("wan", model, tiny.lists, lambda: True) as blocks, torch.no_grad():
        output = tiny.call(model, tiny.noise(seed=seed), step)
    return output, blocks["blocks", 1].stored[0][0].double()


@pytest.mark.parametrize("name", FOUR)
@pytest.mark.parametrize("metric", ["l1", "l2", "cosine"])
@pytest.mark.parametrize("res", ["ca-mlp", "block"])
def test_other_residuals_and_metrics(name: str, metric: Any, res: Any) -> None:
    tiny = TINY[name]
    model = tiny.build()
    ak.patch(model, codebook=ALWAYS, cache_res=res, metric=metric, num_inference_steps=4)
    denoise(tiny, model, 4)
    summary = ak.summary(model)
    found = [d for d in summary.distances if d is not None]
    assert len(found) == 3
    assert all(0 < d < 100 for d in found)


@pytest.mark.parametrize("name", FOUR)
def test_attention_and_the_rest_make_the_block(name: str) -> None:
    """The residuals s-attn and ca-mlp of the adapters add up to the residual of the block."""
    from adacache_kernels.engine.residuals.block_stand_ins import Observer, StandIns
    from adacache_kernels.models import ADAPTERS
    from adacache_kernels.models.block_calls import shadowed

    tiny = TINY[name]
    model = tiny.build()
    adapter = ADAPTERS[tiny.cls]
    seen: dict[str, Tensor] = {}
    attention = adapter.residuals["s-attn"]
    rest = adapter.residuals["ca-mlp"]

    class Watch(Observer):
        taps = (*attention.taps, *rest.taps)

        def after(self, run: Any) -> None:
            assert attention.value is not None and rest.value is not None
            seen["whole"] = run.x_out - run.x_in
            seen["parts"] = attention.value(run) + rest.value(run)

    blocks = adapter.lists[0]
    modules = getattr(model, blocks.attribute)
    watched = StandIns(blocks, {0: modules[0]}).observe(modules[0], (Watch(),))
    with torch.no_grad(), shadowed(model, {blocks.attribute: (watched, *modules[1:])}):
        tiny.call(model, tiny.noise(), 1)
    assert relative(seen["parts"], seen["whole"]) < 1e-5


def test_several_locations_are_averaged() -> None:
    tiny = TINY["allegro"]
    model = tiny.build()
    separate = []
    for location in (0, 2):
        ak.patch(model, codebook=ALWAYS, cache_loc=location, num_inference_steps=5)
        denoise(tiny, model, 5)
        separate.append([d for d in ak.summary(model).distances if d is not None])
        ak.unpatch(model)
    ak.patch(model, codebook=ALWAYS, cache_loc=["start", "end"], num_inference_steps=5)
    denoise(tiny, model, 5)
    summary = ak.summary(model)
    expected = [(a + b) / 2 for a, b in zip(*separate, strict=True)]
    assert summary.distances[1:] == pytest.approx(expected, rel=1e-6)
    assert summary.cache_tensors == 1 + 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", FOUR)
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    """The outputs are finite, and the slots have the dtype of the model."""
    tiny = TINY[name]
    model = tiny.build().to(dtype)
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=6)
    latents = tiny.noise().to(dtype)
    with torch.no_grad():
        for step in range(1, 7):
            latents = latents - 0.05 * tiny.call(model, latents, step)
    assert latents.isfinite().all()
    summary = ak.summary(model)
    assert summary.reused_steps == [3, 4]
    assert summary.cache_bytes == summary_bytes(tiny, model, itemsize=2)


def summary_bytes(tiny: Tiny, model: nn.Module, itemsize: int) -> int:
    channels = model.proj_out.in_features
    text = 6 * channels if "CogVideoX" in tiny.cls else 0
    videos = tiny.streams - (1 if text else 0) + 1
    return itemsize * (videos * tiny.frames * 16 * channels + text)
