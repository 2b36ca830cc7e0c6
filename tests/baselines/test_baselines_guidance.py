"""The baselines with several calls in a step, and in pipelines."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from tests.support.baseline_runs import STEPS, THRESHOLDS
from tests.support.oracles.baselines import Steps, installed, stored_modules
from tests.support.rounding import close
from tests.support.tiny_models.common_models import TINY
from tests.support.tiny_pipelines.latte_and_wan import latte, run_latte, run_wan, wan


def test_the_first_branch_measures_for_every_layer() -> None:
    tiny = TINY["wan"]
    low, high = THRESHOLDS["wan"]
    config = ak.baselines.AdaCachePerLayerConfig(codebook={low: 3, high: 2, float("inf"): 1})
    drift = [tiny.noise() + 0.1 * step * tiny.noise(seed=1) for step in range(STEPS)]

    def conditional(calls_per_step: int) -> tuple[list[Tensor], ak.Summary]:
        model = ak.patch(
            tiny.build(), config, num_inference_steps=STEPS, calls_per_step=calls_per_step
        )
        outputs = []
        for step, latents in enumerate(drift, start=1):
            with torch.no_grad():
                outputs.append(tiny.call(model, latents, step))
                if calls_per_step == 2:
                    tiny.call(model, tiny.noise(seed=step + 5), step, text_seed=7)
        return outputs, ak.summary(model)

    (alone, one), (together, two) = conditional(1), conditional(2)
    assert close(together, alone)
    assert 0.3 < one.computed_fraction < 1 and one.computed_fraction == two.computed_fraction
    assert two.units[1] == 2 * one.units[1] and len(two.waits) == len(one.waits)


def test_measured_ratios_serve_the_same_model() -> None:
    pipe = wan()
    ratios = ak.measure_ratios(pipe, lambda: run_wan(pipe))
    ak.patch(pipe, ak.baselines.MagCacheConfig(ratios=ratios, threshold=0.5, retention=0.3))
    run_wan(pipe)
    summary = ak.summary(pipe)
    assert summary.num_steps == len(ratios) == 8
    assert summary.computed_steps[:2] == [1, 2] and summary.reused_steps
    assert summary.branches == ["cond", "uncond"] and not summary.recomputed


def mean_of_halves(x: Tensor) -> Tensor:
    mean = (x[: len(x) // 2] + x[len(x) // 2 :]) / 2
    return torch.cat([mean, mean])


def test_tgate_stores_the_mean_over_the_halves_of_a_guided_batch() -> None:
    plain = latte()
    blocks, kept = plain.transformer.transformer_blocks, {}
    steps = Steps(plain.transformer)
    wrappers = stored_modules("latte", plain.transformer, steps, {"cross": {6, 7, 8}})
    originals = [wrapper.original for wrapper in wrappers]

    def averaging(index: int) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Tensor:
            output = originals[index](*args, **kwargs)
            kept[index] = mean_of_halves(output)
            return output

        return forward

    for index, wrapper in enumerate(wrappers):
        wrapper.original = averaging(index)

    class Averaged:
        def __init__(self, wrapper: Any, index: int) -> None:
            self.module, self._wrapper, self._index = wrapper.module, wrapper, index

        def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
            output: Tensor = self._wrapper(*args, **kwargs)
            return kept[self._index] if steps.now in self._wrapper.reused else output

    with installed([Averaged(w, i) for i, w in enumerate(wrappers)], steps):
        expected = run_latte(plain)
    assert len(kept) == len(blocks)

    config = ak.baselines.TGATEConfig(gate_step=5, interval=1)
    pipe = ak.patch(plain, config)
    assert torch.equal(run_latte(pipe), expected)
    unmixed = ak.patch(latte(), config, mean_over_guidance=False)
    assert not close(run_latte(unmixed), expected)


def test_tgate_stores_the_mean_over_two_calls_of_a_step() -> None:
    plain, gate = wan(), 5
    outputs: dict[tuple[int, int], dict[int, Tensor]] = {}
    calls = Steps(plain.transformer)

    def wrapper(index: int, module: nn.Module) -> Any:
        class Averaged:
            def __init__(self) -> None:
                self.module, self.original = module, module.forward

            def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
                step, branch = divmod(calls.now - 1, 2)
                if step + 1 <= gate:
                    output: Tensor = self.original(*args, **kwargs)
                    outputs.setdefault((index, step + 1), {})[branch] = output
                    return output
                both = outputs[index, gate]
                return torch.stack([both[0], both[1]]).mean(0)

        return Averaged()

    modules = [block.attn2 for block in plain.transformer.blocks]
    with installed([wrapper(i, module) for i, module in enumerate(modules)], calls):
        expected = run_wan(plain)
    pipe = ak.patch(plain, ak.baselines.TGATEConfig(gate_step=gate, interval=1))
    assert torch.equal(run_wan(pipe), expected)
    assert ak.summary(pipe).reused_steps == [6, 7, 8]


def test_pab_reads_a_pipelines_timesteps_from_its_scheduler() -> None:
    pipe = latte()
    run_latte(pipe)
    timesteps = pipe.scheduler.timesteps.tolist()
    inside = [step for step, t in enumerate(timesteps, start=1) if 200 < t < 800]
    expected = [step for step in inside if (step - 1) % 2]
    ak.patch(pipe, ak.baselines.PABConfig(spatial=2, window=(200, 800)))
    for _ in range(2):
        run_latte(pipe)
        assert ak.summary(pipe).reused_steps == expected
    assert expected and len(expected) < len(timesteps) // 2


@pytest.mark.parametrize(
    "config",
    [ak.baselines.FirstBlockCacheConfig(threshold=9.0), ak.baselines.FixedIntervalConfig()],
)
def test_one_decision_holds_for_all_calls_of_a_step(config: Any) -> None:
    pipe = ak.patch(wan(), config)
    run_wan(pipe)
    summary = ak.summary(pipe)
    assert summary.branches == ["cond", "uncond"] and summary.reused_steps
    assert not summary.recomputed
    assert len(summary.waits) == (
        7 if isinstance(config, ak.baselines.FirstBlockCacheConfig) else 0
    )
    first = run_wan(pipe)
    assert torch.equal(run_wan(pipe), first)


@pytest.mark.parametrize(
    ("config", "later"),
    [
        (ak.baselines.FixedIntervalConfig(interval=3), [5, 6]),
        (ak.baselines.FirstBlockCacheConfig(threshold=9.0), [3, 4, 5, 6]),
        (ak.baselines.AdaCachePerLayerConfig(codebook={9.0: 3}), [4, 6]),
        (ak.baselines.PABConfig(spatial=2, window=(0, 1000)), [4, 6]),
    ],
)
def test_a_branch_that_begins_late_is_computed_first(config: Any, later: list[int]) -> None:
    tiny, late = TINY["wan"], 3 if "Fixed" in type(config).__name__ else 2
    late = 3 if isinstance(config, ak.baselines.AdaCachePerLayerConfig) else late
    model, plain = ak.patch(tiny.build(), config, num_inference_steps=8), tiny.build()
    found = {}
    with torch.no_grad():
        for step in range(1, 7):
            with ak.cache_context("cond"):
                tiny.call(model, tiny.noise(seed=step), step)
            if step >= late:
                with ak.cache_context("uncond"):
                    found[step] = tiny.call(model, tiny.noise(seed=step), step, text_seed=7)
        expected = {step: tiny.call(plain, tiny.noise(seed=step), step, text_seed=7)
                    for step in found}  # fmt: skip
    same = [step for step in found if close(found[step], expected[step])]
    assert same == [step for step in found if step not in later]
    assert ak.summary(model).recomputed == {"uncond": [late]}


def test_ratios_for_another_number_of_steps_are_refused_by_a_pipeline() -> None:
    pipe = ak.patch(wan(), ak.baselines.MagCacheConfig(ratios=(1.0,) * 7))
    with pytest.raises(ValueError, match="ratios has 7 numbers, but the generation has 8 steps"):
        run_wan(pipe)
    run_wan(pipe, 7)
    assert ak.summary(pipe).num_steps == 7


def test_two_experts_of_one_generation_have_their_own_residuals() -> None:
    from tests.support.tiny_pipelines.two_experts import STEPS as TOGETHER
    from tests.support.tiny_pipelines.two_experts import by_expert, experts
    from tests.support.tiny_pipelines.two_experts import run as run_experts

    pipe = ak.patch(experts(), ak.baselines.FixedIntervalConfig(interval=4))
    run_experts(pipe)
    first, second = by_expert(pipe)
    assert [*first, *second] == list(range(1, TOGETHER + 1))
    summary = ak.summary(pipe)
    # The second expert has no stored residual when it begins.
    due = {step for step in range(1, TOGETHER + 1) if step % 4 == 1}
    assert summary.computed_steps == sorted(due | {second[0]})
    assert summary.units == (2 * 3 * len(summary.computed_steps), 2 * 3 * TOGETHER)
    ak.unpatch(pipe)
    assert not ak.is_patched(pipe)
