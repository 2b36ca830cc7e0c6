"""Compiled blocks: the patch adds no graph, no graph break and no recompilation."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from adacache_kernels import ops
from tests.support.compiling import WAYS, Counter, assert_same_bits, by_call, no_recompiles
from tests.support.rounding import close, close_numbers
from tests.support.tiny_models.common_models import FOUR, TINY, Tiny, denoise

STEPS = 7
EVERY_THIRD = {float("inf"): 3}
NEVER = {float("inf"): 1}


def compile_all(tiny: Tiny, model: nn.Module, way: Callable[..., None], **options: Any) -> None:
    for name in tiny.lists:
        way(getattr(model, name), **options)


def generate(tiny: Tiny, model: nn.Module, generations: int = 2) -> list[Tensor]:
    """Run generations, of which only the first may compile; return the latents of every step."""
    trajectory = denoise(tiny, model, STEPS)
    with no_recompiles():
        for _ in range(generations - 1):
            trajectory += denoise(tiny, model, STEPS)
    return trajectory


@functools.cache
def unpatched_graphs(name: str, way: str) -> tuple[int, int]:
    """Return graphs and operations of a model that is compiled and not patched."""
    tiny, counter = TINY[name], Counter()
    model = tiny.build()
    compile_all(tiny, model, WAYS[way], backend=counter.backend)
    generate(tiny, model)
    return counter.graphs


def patched_and_compiled(
    name: str, way: str, when: str, counter: Counter, **settings: Any
) -> nn.Module:
    """Return a patched model that was compiled "before patch" or "after patch"."""
    tiny, options = TINY[name], {"backend": counter.backend}
    model = tiny.build()
    if when == "before patch":
        compile_all(tiny, model, WAYS[way], **options)
    complete: dict[str, Any] = {"codebook": EVERY_THIRD, "num_inference_steps": STEPS} | settings
    ak.patch(model, **complete)
    if when == "after patch":
        compile_all(tiny, model, WAYS[way], **options)
    return model


CASES = [(name, "block.compile()") for name in FOUR]
CASES += [("cogvideox", "torch.compile(block)"), ("wan", "torch.compile(block.forward)")]


@pytest.mark.parametrize("when", ["before patch", "after patch"])
@pytest.mark.parametrize(("name", "way"), CASES)
def test_the_patch_changes_no_graph(name: str, way: str, when: str) -> None:
    expected = unpatched_graphs(name, way)
    counter, tiny = Counter(), TINY[name]
    model = patched_and_compiled(name, way, when, counter, cache_res="block")
    trajectory = generate(tiny, model)
    summary = ak.summary(model)
    assert summary.computed_steps and summary.reused_steps
    assert (counter.graphs, counter.breaks) == (expected, {})
    plain = ak.patch(
        tiny.build(), codebook=EVERY_THIRD, num_inference_steps=STEPS, cache_res="block"
    )
    assert close(trajectory, generate(tiny, plain))


SETTINGS: dict[str, dict[str, Any]] = {
    "motion regularisation": {"apply_moreg": True},
    "forecast, corrected": {"forecast": 1, "correct": True},
    "forecast's error": {"measure": "forecast-error", "forecast": 1, "codebook": {1e9: 2}},
    "eight bits": {"cache_dtype": "int8"},
    "every step computed": {"codebook": NEVER},
}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("setting", SETTINGS)
def test_no_setting_changes_a_graph(setting: str, mode: Any) -> None:
    tiny, counter = TINY["wan"], Counter()
    settings = {"cache_res": "block"} | SETTINGS[setting]
    model = patched_and_compiled("wan", "block.compile()", "after patch", counter, **settings)
    with mode():
        for generation in range(2):
            latents = tiny.noise()
            with torch._dynamo.config.patch(error_on_recompile=generation > 0):
                for step in range(1, STEPS + 1):
                    latents = latents - 0.05 * tiny.call(model, latents, step)
    assert bool(ak.summary(model).reused_steps) == (setting != "every step computed")
    assert (counter.graphs[0], counter.breaks) == (1, {})


def test_two_calls_a_step_share_the_graph() -> None:
    tiny, counter = TINY["wan"], Counter()
    model = patched_and_compiled(
        "wan", "block.compile()", "before patch", counter, cache_res="block", calls_per_step=2
    )
    with torch.no_grad():
        for step in range(1, STEPS + 1):
            for text in (100, 200):
                tiny.call(model, tiny.noise(), step, text)
    assert len(ak.summary(model).branches) == 2 and ak.summary(model).reused_steps
    assert (counter.graphs[0], counter.breaks) == (1, {})


def test_blocks_may_be_compiled_with_fullgraph() -> None:
    tiny, counter = TINY["cogvideox"], Counter()
    model = ak.patch(tiny.build(), codebook=EVERY_THIRD, num_inference_steps=STEPS)
    compile_all(tiny, model, by_call, backend=counter.backend, fullgraph=True)
    with pytest.warns(ak.AdaCacheWarning, match="the metric block is compiled"):
        generate(tiny, model)
    assert counter.breaks == {}


def test_compile_repeated_blocks() -> None:
    tiny, counter = TINY["wan"], Counter()
    model: Any = ak.patch(
        tiny.build(), codebook=EVERY_THIRD, num_inference_steps=STEPS, cache_res="block"
    )
    model.compile_repeated_blocks(backend=counter.backend, fullgraph=True)
    generate(tiny, model)
    assert (counter.graphs, counter.breaks) == (unpatched_graphs("wan", "block.compile()"), {})


@pytest.mark.parametrize("patched", [False, True])
def test_another_resolution_compiles_once_more(patched: bool) -> None:
    """Dynamo then marks the sizes as dynamic, with and without the patch."""
    tiny, counter = TINY["wan"], Counter()
    model = tiny.build()
    compile_all(tiny, model, by_call, backend=counter.backend)
    if patched:
        ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS, cache_res="block")
    seen = []
    for size in (8, 12, 16, 8):
        video = torch.randn(1, *tiny.latents[:2], size, size)
        for step in range(1, STEPS + 1):
            with torch.no_grad():
                video = video - 0.05 * tiny.call(model, video, step)
        seen.append(counter.graphs[0])
    assert (seen, counter.breaks) == ([1, 2, 2, 2], {})


@pytest.fixture(scope="module")
def inductor_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Use a cache that the tests of this run share, and no other run."""
    from torch._inductor import config

    folder = tmp_path_factory.mktemp("inductor")
    # Worker processes would have to import torch first.
    with pytest.MonkeyPatch.context() as patch, config.patch(compile_threads=1):
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
        yield folder


@pytest.mark.parametrize("name", ["latte", "wan", "cogvideox"])
def test_inductor_compiles_nothing_for_the_patch(name: str, inductor_cache: Path) -> None:
    """Inductor finds all graphs of the patched model in the cache that the unpatched model filled.

    If every step is computed, code and inputs of the blocks are the same, and so are all bits.
    """
    tiny, counter = TINY[name], Counter("inductor")
    plain = tiny.build()
    compile_all(tiny, plain, by_call, backend=counter.backend)
    expected, graphs = generate(tiny, plain), counter.graphs
    assert counter.inductor_misses > 0

    counter = Counter("inductor")
    model = patched_and_compiled(
        name, "block.compile()", "after patch", counter, cache_res="block", codebook=NEVER
    )
    assert close(generate(tiny, model), expected)
    ak.unpatch(model)
    ak.patch(model, codebook=EVERY_THIRD, num_inference_steps=STEPS, cache_res="block")
    with no_recompiles():
        generate(tiny, model)
    assert ak.summary(model).reused_steps
    assert (counter.graphs, counter.breaks, counter.inductor_misses) == (graphs, {}, 0)


@pytest.mark.parametrize("flag_value", [0, 1])
def test_a_model_may_call_the_ops_in_its_own_graph(flag_value: int, inductor_cache: Path) -> None:
    def function(x: Tensor, residual: Tensor, flag: Tensor) -> Tensor:
        inner = x * 2
        ops.conditional_add(inner, [residual], torch.ones(1), flag, out=inner)
        new = ops.conditional_add(x, [residual], torch.ones(1), flag)
        ops.conditional_add(x, [residual], torch.ones(1), flag, out=x)
        return inner + x - 3 * new

    x, residual = torch.randn(1, 2, 3, 8), torch.randn(1, 2, 3, 8)
    flag = torch.tensor([flag_value], dtype=torch.int32)
    eager, compiled = x.clone(), x.clone()
    expected = function(eager, residual, flag)
    actual = torch.compile(function, fullgraph=True)(compiled, residual, flag)
    assert_same_bits([actual, compiled], [expected, eager])
    assert torch.equal(compiled, x) == (flag_value == 0)


def warned(action: Callable[[], object]) -> list[str]:
    """Return the texts of this package's warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    return [str(w.message) for w in caught if issubclass(w.category, ak.AdaCacheWarning)]


@pytest.mark.parametrize("when", ["before patch", "after patch"])
@pytest.mark.parametrize("way", list(WAYS))
def test_a_compiled_block_is_measured_as_a_whole(way: str, when: str) -> None:
    """The user is warned once. With `cache_loc="start"`, dynamo would trace through a hook."""
    tiny, counter = TINY["wan"], Counter()
    model = patched_and_compiled("wan", way, when, counter, cache_loc="start")
    (text,) = warned(lambda: generate(tiny, model))
    assert "compiled, which hides its 's-attn' residual" in text
    whole = ak.patch(
        tiny.build(),
        codebook=EVERY_THIRD,
        num_inference_steps=STEPS,
        cache_loc="start",
        cache_res="block",
    )
    assert warned(lambda: generate(tiny, whole)) == []
    assert ak.summary(model).measured == ["block"]
    assert close_numbers(ak.summary(model).distances, ak.summary(whole).distances)
    assert None not in ak.summary(model).distances[1:]
    assert (counter.graphs[0], counter.breaks) == (1, {})


def test_latte_still_measures_one_block() -> None:
    """It does not measure one block of each list, as `cache_res="block"` would; the plan stays."""
    tiny, counter = TINY["latte"], Counter()
    model = patched_and_compiled("latte", "block.compile()", "before patch", counter)
    with pytest.warns(ak.AdaCacheWarning, match="hides its 't-attn' residual"):
        generate(tiny, model)
    plain = ak.patch(tiny.build(), codebook=EVERY_THIRD, num_inference_steps=STEPS)
    generate(tiny, plain)
    assert ak.summary(plain).measured == ["t-attn"]
    assert ak.summary(model).cache_bytes == ak.summary(plain).cache_bytes


@pytest.mark.parametrize("way", list(WAYS))
def test_a_hidden_residual_that_the_user_named_is_refused(way: str) -> None:
    tiny, counter = TINY["wan"], Counter()
    message = (
        r"cache_res='s-attn': blocks\[1\] of this WanTransformer3DModel is compiled.*\"block\""
    )
    with pytest.raises(ValueError, match=message):
        patched_and_compiled("wan", way, "before patch", counter, cache_res="s-attn")
    model = patched_and_compiled("wan", way, "after patch", counter, cache_res="s-attn")
    with pytest.raises(ValueError, match=message):
        denoise(tiny, model, 1)
    ak.unpatch(model)
    denoise(tiny, model, 1)


def test_the_attention_of_an_uncompiled_metric_block_is_measured() -> None:
    tiny, counter = TINY["wan"], Counter()
    model: Any = ak.patch(
        tiny.build(), codebook=EVERY_THIRD, num_inference_steps=STEPS, cache_res="s-attn"
    )
    for index in (0, 2):
        model.blocks[index].compile(backend=counter.backend)
    plain = ak.patch(
        tiny.build(), codebook=EVERY_THIRD, num_inference_steps=STEPS, cache_res="s-attn"
    )
    assert close(generate(tiny, model), generate(tiny, plain))
    assert close_numbers(ak.summary(model).distances, ak.summary(plain).distances)
    assert counter.graphs[0] == 1


def test_a_compiled_attention_hides_itself() -> None:
    tiny, counter = TINY["wan"], Counter()
    model: Any = ak.patch(tiny.build(), codebook=EVERY_THIRD, num_inference_steps=STEPS)
    for block in model.blocks:
        block.attn1.compile(backend=counter.backend)
    with pytest.warns(ak.AdaCacheWarning, match="the metric block is compiled"):
        generate(tiny, model)
    # A wrapper runs the hooks outside of its compiled code.
    other: Any = ak.patch(
        tiny.build(), codebook=EVERY_THIRD, num_inference_steps=STEPS, cache_res="s-attn"
    )
    for block in other.blocks:
        block.attn1 = torch.compile(block.attn1, backend=counter.backend)
    generate(tiny, other)
    assert None not in ak.summary(other).distances[1:]


def test_compiled_in_the_middle_of_a_generation() -> None:
    """An attention residual is never compared with the residual of a whole block."""
    tiny, counter = TINY["wan"], Counter()
    model: Any = ak.patch(tiny.build(), codebook=NEVER, num_inference_steps=STEPS)
    latents = tiny.noise()
    for step in range(1, STEPS + 1):
        if step == 4:
            compile_all(tiny, model, by_call, backend=counter.backend)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", ak.AdaCacheWarning)
            latents = latents - 0.05 * tiny.call(model, latents, step)
    measured = [distance is not None for distance in ak.summary(model).distances]
    assert measured == [False, True, True, False, True, True, True]
