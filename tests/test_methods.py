"""The methods to compare with, run on tiny models, against plain oracles."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from adacache_kernels.types import AdaCacheWarning
from method_oracle import (
    FirstBlock,
    KeptBlock,
    Layer,
    Steps,
    WatchedBlock,
    blocks_of,
    everything_added,
    installed,
    kept_modules,
    norms_ratio,
    relative,
)
from test_pipelines import latte, run_latte, run_wan, wan
from tiny import TINY, denoise

STEPS = 9
THREE = ("latte", "wan", "cogvideox")
# What a chain of blocks added is kept as one sum, the oracle keeps one number a block: over 9 steps
# float32 rounding of some 40 additions, 40 * 6e-8 of the largest value.
ROUNDING = 3e-6

NOTHING_REUSED: dict[str, Any] = {
    "PAB": ak.PABConfig(spatial=1, window=(0, 1000)),
    "delta-DiT": ak.DeltaDiTConfig(boundary=4, interval=1, front=(0, 2), back=(1, 3)),
    "interval": ak.FixedIntervalConfig(interval=1),
    "MagCache": ak.MagCacheConfig(ratios=(1.0,) * STEPS, threshold=0.0),
    "first block": ak.FirstBlockConfig(threshold=0.0),
    "timestep": ak.TimestepEmbeddingConfig(threshold=0.0, watched="timestep"),
    "input": ak.TimestepEmbeddingConfig(threshold=0.0, watched="input"),
    "per layer": ak.PerLayerConfig(codebook={1.0: 1}),
}


def run_patched(name: str, config: Any, steps: int = STEPS) -> tuple[list[Tensor], ak.Summary]:
    """Latents after every step, and what the summary says."""
    tiny = TINY[name]
    model = ak.patch(tiny.build(), config, num_inference_steps=steps)
    return denoise(tiny, model, steps), ak.summary(model)


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    assert max(relative(a, b) for a, b in zip(found, expected, strict=True)) < ROUNDING


@pytest.mark.parametrize("name", THREE)
@pytest.mark.parametrize("method", NOTHING_REUSED)
def test_nothing_reused_is_bit_equal(name: str, method: str) -> None:
    tiny = TINY[name]
    plain = denoise(tiny, tiny.build(), STEPS)
    found, summary = run_patched(name, NOTHING_REUSED[method])
    assert_equal(found, plain)
    assert summary.computed_steps == list(range(1, STEPS + 1))
    assert summary.computed_fraction == 1.0 and not summary.reused_steps


def test_tgate_with_its_gate_at_the_end_is_bit_equal() -> None:
    for name in ("latte", "wan"):
        tiny = TINY[name]
        found, summary = run_patched(name, ak.TGATEConfig(gate_step=STEPS, interval=1))
        assert_equal(found, denoise(tiny, tiny.build(), STEPS))
        assert summary.computed_fraction == 1.0


# The timesteps of `denoise` are 900, 870 ... 660 at steps 1 to 9; inside of (660, 870) are 3 to 8,
# from 0 steps 2 to 7.
PAB_CASES = [
    (
        "latte",
        ak.PABConfig(
            spatial=2, temporal=3, cross=6, window=(660, 870), mlp_timesteps=(840,), mlp_blocks=(0,)
        ),
        {"spatial": {4, 6, 8}, "temporal": {3, 5, 6, 8}, "cross": {3, 4, 5, 6, 8}, "mlp": {4, 5}},
        # 3 blocks of 9 steps: 3 spatial and 3 temporal attentions, 3 to the text, 6 MLPs.
        1 - (3 * 3 + 3 * 4 + 3 * 5 + 2 * 2) / (9 * 15),
    ),
    (
        "wan",
        ak.PABConfig(spatial=3, cross=2, window=(660, 870)),
        {"spatial": {3, 5, 6, 8}, "cross": {4, 6, 8}},
        1 - (3 * 4 + 3 * 3) / (9 * 9),
    ),
    (
        "cogvideox",
        ak.PABConfig(spatial=2, window=(660, 870), mlp_timesteps=(780, 720), mlp_count=1),
        {"spatial": {4, 6, 8}, "mlp": {6, 8}},
        1 - (3 * 3 + 3 * 2) / (9 * 6),
    ),
]


@pytest.mark.parametrize(("name", "config", "reused", "fraction"), PAB_CASES)
def test_pab_returns_what_modules_returned(
    name: str, config: Any, reused: dict[str, Any], fraction: float
) -> None:
    tiny = TINY[name]
    model = tiny.build()
    steps = Steps(model)
    with installed(kept_modules(name, model, steps, reused, mlp_blocks=1 + 4 * (name != "latte")),
                   steps):  # fmt: skip
        expected = denoise(tiny, model, STEPS)
    found, summary = run_patched(name, config)
    assert_equal(found, expected)
    assert summary.computed_fraction == pytest.approx(fraction)
    assert summary.reused_steps == sorted(set().union(*reused.values()))
    assert summary.cache_bytes > 0 and summary.cache_tensors > 0


@pytest.mark.parametrize("name", ["latte", "wan"])
def test_tgate_keeps_attention_early_and_the_text_late(name: str) -> None:
    tiny = TINY[name]
    model = tiny.build()
    reused = {"spatial": {4, 6}, "temporal": {4, 6}, "cross": {8, 9}}
    steps = Steps(model)
    with installed(kept_modules(name, model, steps, reused), steps):
        expected = denoise(tiny, model, STEPS)
    found, summary = run_patched(name, ak.TGATEConfig(gate_step=7, interval=2, warmup=2))
    assert_equal(found, expected)
    assert summary.reused_steps == [4, 6, 8, 9]


RANGES = [
    # By block number, the steps in which it is reused.
    (
        ak.DeltaDiTConfig(boundary=4, interval=2, front=(0, 2), back=(2, 3)),
        [{6, 8}, {6, 8}, {2, 4}],
    ),
    (
        ak.DeltaDiTConfig(boundary=0, interval=3, front=(1, None)),
        [set(), *[{2, 3, 5, 6, 8, 9}] * 2],
    ),
    (ak.FixedIntervalConfig(interval=3, computed_last=2), [{2, 3, 5, 6}] * 3),
    (
        # 1 is retained. 2: 0.02. 3: + 0.0396. 4: a third in a row. 5: 0.02. 6: 0.2. 7 to 9: 0.01.
        ak.MagCacheConfig(
            ratios=(1, 0.98, 0.98, 0.98, 0.98, 1.2, 0.99, 0.99, 0.99),
            threshold=0.1,
            max_skips=2,
            retention=0.12,
        ),
        [{2, 3, 5, 7, 8}] * 3,
    ),
]


@pytest.mark.parametrize("name", THREE)
@pytest.mark.parametrize(("config", "reused"), RANGES)
def test_ranges_add_what_their_blocks_added(name: str, config: Any, reused: list[set[int]]) -> None:
    tiny = TINY[name]
    model = tiny.build()
    steps = Steps(model)
    kept = [
        KeptBlock(block, lambda index=index: steps.now in reused[index])
        for attribute in tiny.lists
        for index, block in enumerate(getattr(model, attribute))
    ]
    with installed(kept, steps):
        expected = denoise(tiny, model, STEPS)
    found, summary = run_patched(name, config)
    assert_close(found, expected)
    assert summary.computed_fraction == pytest.approx(1 - sum(map(len, reused)) / (3 * STEPS))
    assert summary.reused_steps == sorted(set().union(*reused))
    assert summary.waits == []


@pytest.mark.parametrize("name", THREE)
def test_the_first_block_decides_for_the_others(name: str) -> None:
    tiny = TINY[name]
    model = tiny.build()
    probe = FirstBlock(blocks_of(tiny, model)[0], 0.0)
    with installed([probe]):
        denoise(tiny, model, STEPS)
    threshold = 1.01 * sorted(probe.changes)[STEPS // 2]
    first = FirstBlock(blocks_of(tiny, model)[0], threshold)
    rest = [KeptBlock(block, lambda: first.reuse) for block in blocks_of(tiny, model)[1:]]
    with installed([first, *rest]):
        expected = denoise(tiny, model, STEPS)
    reused = [step for step, reuse in enumerate(first.reused, start=1) if reuse]
    assert 2 <= len(reused) <= STEPS - 3, "the oracle's threshold must divide the steps"

    found, summary = run_patched(name, ak.FirstBlockConfig(threshold=threshold))
    assert summary.reused_steps == reused
    assert_close(found, expected)
    blocks = len(rest) + 1
    assert summary.units == (STEPS * blocks - len(reused) * len(rest), STEPS * blocks)
    assert len(summary.waits) == STEPS - 1


@pytest.mark.parametrize("name", THREE)
@pytest.mark.parametrize("watched", ["input", "timestep"])
def test_the_watched_input_decides_for_all_blocks(name: str, watched: Any) -> None:
    tiny = TINY[name]
    model = tiny.build()
    timestep = None
    if watched == "timestep":
        timestep = "timestep" if name == "latte" else "temb"

    def oracle(threshold: float) -> tuple[WatchedBlock, list[Tensor]]:
        steps = Steps(model)
        first = WatchedBlock(blocks_of(tiny, model)[0], threshold, steps, STEPS, timestep)
        rest = [KeptBlock(block, lambda: first.reuse) for block in blocks_of(tiny, model)[1:]]
        with installed([first, *rest], steps):
            return first, denoise(tiny, model, STEPS)

    changes = oracle(0.0)[0].changes
    threshold = 2.5 * sum(changes) / len(changes)
    first, expected = oracle(threshold)
    reused = [step for step, reuse in enumerate(first.reused, start=1) if reuse]
    assert 2 <= len(reused) <= STEPS - 3, "the oracle's threshold must divide the steps"

    config = ak.TimestepEmbeddingConfig(threshold=threshold, watched=watched)
    found, summary = run_patched(name, config)
    assert summary.reused_steps == reused
    assert_close(found, expected)
    assert summary.computed_fraction == pytest.approx(1 - len(reused) / STEPS)
    # Neither the first nor the last step could be reused, so that nothing is read there.
    assert len(summary.waits) == STEPS - 2
    measured = {step: change for step, change in enumerate(first.changes, start=2)}
    distances = dict(zip(summary.computed_steps, summary.distances, strict=True))
    assert distances.pop(1) is None and distances.pop(STEPS) is None
    assert distances == pytest.approx({step: measured[step] for step in distances}, rel=1e-4)


@pytest.mark.parametrize("name", THREE)
def test_each_layer_has_its_own_schedule(name: str) -> None:
    tiny, count = TINY[name], 12
    model = tiny.build()

    def oracle(thresholds: tuple[float, float]) -> tuple[list[Layer], list[Tensor]]:
        steps = Steps(model)
        layers = [Layer(block, steps, count, thresholds) for block in blocks_of(tiny, model)]
        with installed(layers, steps):
            return layers, denoise(tiny, model, count)

    thresholds = THRESHOLDS[name]
    layers, expected = oracle(thresholds)
    schedules = {tuple(layer.computed) for layer in layers}
    assert len(schedules) > 1, "the layers' schedules must differ"

    low, high = thresholds
    config = ak.PerLayerConfig(codebook={low: 3, high: 2, float("inf"): 1})
    found, summary = run_patched(name, config, count)
    assert_equal(found, expected)
    ran = sum(len(layer.computed) for layer in layers)
    assert summary.units == (ran, count * len(layers))
    # Nothing is measured in the first step, and nobody reads what the last one measured.
    assert 0 < len(summary.waits) <= count - 2


def test_the_first_branch_measures_for_every_layer() -> None:
    tiny = TINY["wan"]
    low, high = THRESHOLDS["wan"]
    config = ak.PerLayerConfig(codebook={low: 3, high: 2, float("inf"): 1})
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
    assert_equal(together, alone)
    assert 0.3 < one.computed_fraction < 1 and one.computed_fraction == two.computed_fraction
    assert two.units[1] == 2 * one.units[1] and len(two.waits) == len(one.waits)


# Between what the blocks of the tiny models measure.
THRESHOLDS = {"latte": (0.06, 0.14), "wan": (0.055, 0.075), "cogvideox": (0.28, 0.305)}


def test_ratios_are_those_of_the_norms_of_what_all_blocks_add() -> None:
    for name in ("wan", "cogvideox"):
        tiny = TINY[name]
        model = tiny.build()
        residuals = everything_added(model, lambda: denoise(tiny, model, STEPS), tiny.lists[0])  # noqa: B023
        ratios = ak.measure_ratios(model, lambda: denoise(tiny, model, STEPS), STEPS)  # noqa: B023
        assert ratios == pytest.approx(norms_ratio(residuals), rel=1e-5)
        assert not ak.is_patched(model)
        assert len(set(ratios)) == STEPS


def test_measured_ratios_serve_the_same_model() -> None:
    pipe = wan()
    ratios = ak.measure_ratios(pipe, lambda: run_wan(pipe))
    ak.patch(pipe, ak.MagCacheConfig(ratios=ratios, threshold=0.5, retention=0.3))
    run_wan(pipe)
    summary = ak.summary(pipe)
    assert summary.num_steps == len(ratios) == 8
    assert summary.computed_steps[:2] == [1, 2] and summary.reused_steps
    assert summary.branches == ["cond", "uncond"] and not summary.recomputed


def test_a_generation_that_is_broken_off_gives_no_ratios() -> None:
    tiny = TINY["wan"]
    model = tiny.build()
    with pytest.raises(ValueError, match="ran 3 of 9 steps"):
        ak.measure_ratios(model, lambda: denoise(tiny, model, 3), STEPS)
    assert not ak.is_patched(model)


def mean_of_halves(x: Tensor) -> Tensor:
    mean = (x[: len(x) // 2] + x[len(x) // 2 :]) / 2
    return torch.cat([mean, mean])


def test_tgate_keeps_the_mean_over_the_halves_of_a_guided_batch() -> None:
    plain = latte()
    blocks, kept = plain.transformer.transformer_blocks, {}
    steps = Steps(plain.transformer)
    wrappers = kept_modules("latte", plain.transformer, steps, {"cross": {6, 7, 8}})
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

    config = ak.TGATEConfig(gate_step=5, interval=1)
    pipe = ak.patch(latte(), config)
    assert torch.equal(run_latte(pipe), expected)
    unmixed = ak.patch(latte(), config, mean_over_guidance=False)
    assert not torch.equal(run_latte(unmixed), expected)


def test_tgate_keeps_the_mean_over_two_calls_of_a_step() -> None:
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
    pipe = ak.patch(wan(), ak.TGATEConfig(gate_step=gate, interval=1))
    assert torch.equal(run_wan(pipe), expected)
    assert ak.summary(pipe).reused_steps == [6, 7, 8]


def test_pab_reads_a_pipelines_timesteps_from_its_scheduler() -> None:
    pipe = latte()
    run_latte(pipe)
    timesteps = pipe.scheduler.timesteps.tolist()
    inside = [step for step, t in enumerate(timesteps, start=1) if 200 < t < 800]
    expected = [step for step in inside if (step - 1) % 2]
    ak.patch(pipe, ak.PABConfig(spatial=2, window=(200, 800)))
    for _ in range(2):
        run_latte(pipe)
        assert ak.summary(pipe).reused_steps == expected
    assert expected and len(expected) < len(timesteps) // 2


@pytest.mark.parametrize("config", [ak.FirstBlockConfig(threshold=9.0), ak.FixedIntervalConfig()])
def test_one_decision_holds_for_all_calls_of_a_step(config: Any) -> None:
    pipe = ak.patch(wan(), config)
    run_wan(pipe)
    summary = ak.summary(pipe)
    assert summary.branches == ["cond", "uncond"] and summary.reused_steps
    assert not summary.recomputed
    assert len(summary.waits) == (7 if isinstance(config, ak.FirstBlockConfig) else 0)
    first = run_wan(pipe)
    assert torch.equal(run_wan(pipe), first)


@pytest.mark.parametrize(
    ("config", "later"),
    [
        (ak.FixedIntervalConfig(interval=3), [5, 6]),
        (ak.FirstBlockConfig(threshold=9.0), [3, 4, 5, 6]),
        (ak.PerLayerConfig(codebook={9.0: 3}), [4, 6]),
        (ak.PABConfig(spatial=2, window=(0, 1000)), [4, 6]),
    ],
)
def test_a_branch_that_comes_late_is_computed_first(config: Any, later: list[int]) -> None:
    tiny, late = TINY["wan"], 3 if "Fixed" in type(config).__name__ else 2
    late = 3 if isinstance(config, ak.PerLayerConfig) else late
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
    same = [step for step in found if torch.equal(found[step], expected[step])]
    assert same == [step for step in found if step not in later]
    assert ak.summary(model).recomputed == {"uncond": [late]}


def test_mag_cache_starts_anew_where_it_had_to_compute() -> None:
    tiny = TINY["wan"]
    config = ak.MagCacheConfig(ratios=(0.99,) * 8, threshold=9.0, max_skips=2, retention=0.0)
    model = ak.patch(tiny.build(), config, num_inference_steps=8)
    with torch.no_grad():
        for step in range(1, 8):
            tiny.call(model, tiny.noise(1 if step < 3 else 2), step)
    summary = ak.summary(model)
    assert summary.reused_steps == [2, 4, 5, 7]
    assert summary.recomputed == {"0": [3]}


def test_what_is_watched_with_a_timestep_for_every_token_is_what_the_attention_is_given() -> None:
    from adacache_kernels.models.units import units_for

    model, seen = TINY["wan"].build(), []
    units = units_for(model)
    assert units is not None
    block = model.blocks[0]
    handles = [
        block.register_forward_pre_hook(
            lambda _block, args: seen.append(
                units.modulated(block, {"hidden_states": args[0], "temb": args[2]})
            )
        ),
        block.attn1.register_forward_pre_hook(lambda _module, args: seen.append(args[0])),
    ]
    timestep = torch.arange(48).reshape(1, 48)
    tiny = TINY["wan"]
    with torch.no_grad():
        model(tiny.noise(), timestep, tiny.text())
    for handle in handles:
        handle.remove()
    assert seen[0].ndim == 3 and torch.equal(*seen)


REAL = [
    ak.PABConfig(spatial=2, window=(0, 1000)),
    ak.FixedIntervalConfig(interval=3),
    ak.FirstBlockConfig(threshold=9.0),
    ak.PerLayerConfig(codebook={9.0: 3}),
]


@pytest.mark.parametrize("config", REAL, ids=lambda config: type(config).__name__)
def test_unpatch_gives_the_model_back(config: Any) -> None:
    tiny = TINY["latte"]
    model = tiny.build()
    plain, attributes = denoise(tiny, model, STEPS), dict(vars(model))
    blocks = [dict(vars(block)) for block in blocks_of(tiny, model)]
    forward = model.forward
    ak.patch(model, config, num_inference_steps=STEPS)
    assert ak.is_patched(model)
    assert not torch.equal(denoise(tiny, model, STEPS)[-1], plain[-1])
    ak.unpatch(model)
    assert not ak.is_patched(model) and model.forward == forward
    assert vars(model) == attributes
    assert [dict(vars(block)) for block in blocks_of(tiny, model)] == blocks
    assert_equal(denoise(tiny, model, STEPS), plain)


@pytest.mark.parametrize("config", REAL, ids=lambda config: type(config).__name__)
def test_another_shape_in_the_middle_is_computed(config: Any) -> None:
    tiny = TINY["wan"]
    model, plain = ak.patch(tiny.build(), config, num_inference_steps=STEPS), tiny.build()
    with torch.no_grad():
        for step in (1, 2, 3):
            tiny.call(model, tiny.noise(1), step)
        found, expected = (tiny.call(m, tiny.noise(2), 4) for m in (model, plain))
    assert torch.equal(found, expected)
    assert 4 in ak.summary(model).computed_steps


@pytest.mark.parametrize("config", REAL, ids=lambda config: type(config).__name__)
def test_two_generations_are_alike_also_after_one_that_was_broken_off(config: Any) -> None:
    tiny = TINY["cogvideox"]
    model = ak.patch(tiny.build(), config, num_inference_steps=STEPS)
    first = denoise(tiny, model, STEPS)
    assert_equal(denoise(tiny, model, STEPS), first)
    denoise(tiny, model, 4)
    ak.reset(model)
    assert_equal(denoise(tiny, model, STEPS), first)
    summary = ak.summary(model)
    assert (
        summary.num_steps == STEPS and len(summary.computed_steps + summary.reused_steps) == STEPS
    )


@pytest.mark.parametrize("config", REAL, ids=lambda config: type(config).__name__)
def test_gradients_and_training_are_computed(config: Any) -> None:
    tiny = TINY["wan"]
    model, plain = ak.patch(tiny.build(), config, num_inference_steps=STEPS), tiny.build()
    with pytest.warns(AdaCacheWarning, match="gradients are enabled"):
        outputs = [tiny.call(model, tiny.noise(), step) for step in (1, 2, 3, 4)]
    expected = [tiny.call(plain, tiny.noise(), step) for step in (1, 2, 3, 4)]
    assert_equal([x.detach() for x in outputs], [x.detach() for x in expected])
    assert outputs[-1].requires_grad
    assert ak.summary(model).cache_bytes == 0


@pytest.mark.parametrize("config", REAL, ids=lambda config: type(config).__name__)
def test_a_step_after_one_with_gradients_is_computed(config: Any) -> None:
    tiny = TINY["wan"]
    model, plain = ak.patch(tiny.build(), config, num_inference_steps=STEPS), tiny.build()
    with torch.no_grad():
        for step in (1, 2):
            tiny.call(model, tiny.noise(), step)
    with pytest.warns(AdaCacheWarning, match="gradients are enabled"):
        tiny.call(model, tiny.noise(seed=1), 3)
    with torch.no_grad():
        found, expected = (tiny.call(each, tiny.noise(seed=2), 4) for each in (model, plain))
    assert torch.equal(found, expected)


def test_bytes_of_what_is_kept_are_reported() -> None:
    # 1 video of 3 frames of 16 tokens of 24 channels in float32.
    residual = 3 * 16 * 24 * 4
    _, summary = run_patched("wan", ak.FixedIntervalConfig(interval=3))
    assert (summary.cache_bytes, summary.cache_tensors) == (residual, 1)
    _, summary = run_patched("wan", ak.PerLayerConfig(codebook={9.0: 3}))
    assert (summary.cache_bytes, summary.cache_tensors) == (3 * residual, 3)
    _, summary = run_patched("wan", ak.PABConfig(spatial=2, cross=2, window=(0, 1000)))
    assert (summary.cache_bytes, summary.cache_tensors) == (6 * residual, 6)
    _, summary = run_patched("wan", ak.FirstBlockConfig(threshold=9.0))
    assert (summary.cache_bytes, summary.cache_tensors) == (2 * residual, 2)


def writes_into_its_input(original: Any) -> Any:
    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        output: Tensor = original(hidden_states, *args, **kwargs)
        return hidden_states.mul_(1.01) + output

    return forward


def test_a_block_that_writes_into_its_input_is_never_reused() -> None:
    tiny = TINY["wan"]
    model, plain = tiny.build(), tiny.build()
    for each in (model, plain):
        block = each.blocks[0]
        original = block.forward
        block.forward = writes_into_its_input(original)
    ak.patch(model, ak.FixedIntervalConfig(interval=2), num_inference_steps=STEPS)
    with pytest.warns(AdaCacheWarning, match="wrote into its input"):
        found = denoise(tiny, model, STEPS)
    assert_equal(found, denoise(tiny, plain, STEPS))


def chunked() -> nn.Module:
    model = TINY["latte"].build()
    for block in model.transformer_blocks:
        block.set_chunk_feed_forward(2, 1)
    return model


def compiled() -> nn.Module:
    model = TINY["wan"].build()
    model.blocks[0].compile()
    return model


REFUSED: list[tuple[Any, Any, str]] = [
    (
        "wan",
        ak.PABConfig(temporal=3),
        r"temporal=3: WanTransformer3DModel has no attention over ti",
    ),
    (
        "cogvideox",
        ak.PABConfig(cross=6),
        r"cross=6: CogVideoX.* has no cross attention; it has spat",
    ),
    ("cogvideox", ak.PABConfig.preset("latte-slow"), r"temporal=3: CogVideoX"),
    ("cogvideox", ak.TGATEConfig(gate_step=7), r"gate_step=7: CogVideoX.* has no cross attention"),
    ("wan", ak.MagCacheConfig(ratios=(1.0,) * 8), r"ratios has 8 numbers.* 9 steps"),
    ("wan", ak.DeltaDiTConfig(front=(0, 4)), r"front is \(0, 4\); Wan.* has 3 blocks"),
    (
        "wan",
        ak.DeltaDiTConfig(front=None, back=(3, None)),
        r"back is \(3, None\); Wan.* has 3 blocks",
    ),
    (compiled, ak.PABConfig(), r"blocks of this WanTransformer3DModel are compiled"),
]


@pytest.mark.parametrize(("build", "config", "message"), REFUSED)
def test_what_a_model_cannot_do_is_refused(build: Any, config: Any, message: str) -> None:
    model = build() if callable(build) else TINY[build].build()
    attributes = dict(vars(model))
    with pytest.raises(ValueError, match=message):
        ak.patch(model, config, num_inference_steps=STEPS)
    assert not ak.is_patched(model) and vars(model) == attributes


def test_ratios_for_another_number_of_steps_are_refused_by_a_pipeline() -> None:
    pipe = ak.patch(wan(), ak.MagCacheConfig(ratios=(1.0,) * 7))
    with pytest.raises(ValueError, match="ratios has 7 numbers, but the generation has 8 steps"):
        run_wan(pipe)
    run_wan(pipe, 7)
    assert ak.summary(pipe).num_steps == 7


def test_a_chunked_mlp_is_told() -> None:
    tiny = TINY["latte"]
    model = ak.patch(chunked(), ak.PABConfig(), num_inference_steps=STEPS)
    with pytest.raises(RuntimeError, match=r"ff ran more than once.*chunking"):
        denoise(tiny, model, STEPS)


def test_settings_are_checked_by_patch() -> None:
    model = TINY["wan"].build()
    with pytest.raises(ValueError, match="FixedIntervalConfig needs the number of steps"):
        ak.patch(model, ak.FixedIntervalConfig())
    with pytest.raises(TypeError, match=r"unknown setting codebook; there are .*interval"):
        ak.patch(model, ak.FixedIntervalConfig(), codebook="fast")
    with pytest.raises(ValueError, match="FixedIntervalConfig keeps plain tensors"):
        ak.patch(
            model,
            ak.FixedIntervalConfig(),
            arena=ak.CacheArena("cpu", 1 << 20),
            num_inference_steps=4,
        )
    with pytest.raises(ValueError, match=r"threshold is -1"):
        ak.patch(model, ak.FirstBlockConfig(), threshold=-1, num_inference_steps=4)
    with pytest.raises(TypeError, match="the config of another method"):
        ak.patch(model, 3)  # type: ignore[arg-type]
