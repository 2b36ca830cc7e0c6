"""Model classes whose blocks follow each other: exactness, reuse against an oracle, structure."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from adacache_kernels.models import Adapter, adapter_for
from tests.support.oracles.block_residual import reused_by_blocks
from tests.support.oracles.two_residuals_per_block import relative
from tests.support.tiny_models.chained_models import IMAGES, VIDEOS
from tests.support.tiny_models.description import noise
from tests.support.tiny_models.special_models import OTHER_IMAGES, OTHER_VIDEOS
from tests.support.tiny_models.tiny_class import denoise

STEPS = 9
CHAINED = {**VIDEOS, **OTHER_VIDEOS, **IMAGES, **OTHER_IMAGES}
RATES = dict(zip(CHAINED, itertools.cycle((2, 4)), strict=False))
NAMES = pytest.mark.parametrize("name", CHAINED)

STRUCTURES = Path(__file__).parent / "structures.txt"


def structure(adapter: Adapter, model: nn.Module, arguments: dict[str, Any]) -> str:
    """Return videos x frames, the residuals that can be measured, and the lists with streams."""
    lists = [
        f"{blocks.name}({', '.join(stream.parameter for stream in blocks.streams)})"
        + ("" if blocks.has_residual else " without residual")
        for blocks in adapter.lists
    ]
    batch, frames = adapter.frames(model, arguments)
    return f"{batch}x{frames} | {', '.join(adapter.residuals)} | {' -> '.join(lists)}"


def test_structures() -> None:
    """Compare with structures.txt, which `python -m tests.models.test_chained_models` writes."""
    assert STRUCTURES.read_text().splitlines() == list(structures())


def structures() -> Iterator[str]:
    """Yield the line of each class."""
    for name, tiny in CHAINED.items():
        model, arguments = tiny.build(), tiny.inputs(torch.zeros(tiny.latents), 1)
        yield f"{name}: {tiny.name} | {structure(adapter_for(model), model, arguments)}"


def test_streams_are_where_diffusers_has_them() -> None:
    """diffusers' table of block classes has the index of the hidden state and of the text."""
    from diffusers.hooks._helpers import TransformerBlockRegistry

    compared = set()
    for tiny in CHAINED.values():
        model = tiny.build()
        for blocks in adapter_for(model).lists:
            block = next(iter(blocks.modules(model).values()))
            try:
                theirs = TransformerBlockRegistry.get(type(block))
            except ValueError:
                continue
            compared.add(type(block).__name__)
            ours = {stream.parameter: stream.output or 0 for stream in blocks.streams}
            hidden = blocks.streams[0].parameter
            assert ours[hidden] == theirs.return_hidden_states_index
            if "encoder_hidden_states" in ours:
                assert ours["encoder_hidden_states"] == theirs.return_encoder_hidden_states_index
    assert len(compared) >= 15, compared


def test_the_tables_of_the_documentation_match_the_adapters_and_pipelines() -> None:
    """`python -m tests.tools.model_table` writes the tables."""
    from tests.tools import model_table

    for name, table in model_table.tables().items():
        assert table in model_table.PAGES[name].read_text(), name


@NAMES
def test_rate_1_is_bit_equal_and_unpatch_restores_the_model(name: str) -> None:
    tiny, model = CHAINED[name], CHAINED[name].build()
    plain, before = denoise(tiny, model, STEPS), dict(vars(model))
    ak.patch(model, codebook={1.0: 1}, num_inference_steps=STEPS)
    assert all(map(torch.equal, plain, denoise(tiny, model, STEPS)))
    summary = ak.summary(model)
    assert all(distance is not None for distance in summary.distances[1:])
    ak.unpatch(model)
    assert vars(model) == before
    assert all(map(torch.equal, plain, denoise(tiny, model, STEPS)))


def in_step(index: int, tiny: Any, model: nn.Module, latents: Tensor) -> Tensor:
    """Call the model with the same timestep in every step, so only the context has the step."""
    with torch.no_grad(), ak.cache_context("0", step_index=index, num_inference_steps=STEPS):
        output: Tensor = tiny.call(model, latents, 1)
    return output


@NAMES
def test_reuse_on_equal_input_repeats_the_output(name: str) -> None:
    """The tolerance allows two roundings of the stream and a gain below 16 after the blocks."""
    tiny, model = CHAINED[name], CHAINED[name].build()
    ak.patch(model, codebook={float("inf"): 3}, num_inference_steps=STEPS)
    outputs = [in_step(index, tiny, model, torch.ones(tiny.latents)) for index in range(STEPS)]
    assert ak.summary(model).reused_steps
    scale = outputs[1].abs().max()
    assert all((o - outputs[1]).abs().max() <= 32 * torch.finfo().eps * scale for o in outputs)


@NAMES
def test_arguments_are_not_changed(name: str) -> None:
    """A reused step writes into the hidden streams, which may be the caller's tensors."""
    tiny, model = CHAINED[name], CHAINED[name].build()
    arguments = tiny.inputs(noise(*tiny.latents), 1)
    before = copy.deepcopy(arguments)
    ak.patch(model, codebook={float("inf"): 3}, num_inference_steps=STEPS)
    with torch.no_grad():
        for index in range(STEPS):
            with ak.cache_context("0", step_index=index, num_inference_steps=STEPS):
                model(return_dict=False, **arguments)
    assert ak.summary(model).reused_steps
    assert tree_equal(arguments, before)


def tree_equal(a: Any, b: Any) -> bool:
    """Return True if two nested containers hold equal tensors and values."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return all(tree_equal(a[key], b[key]) for key in b)
    if isinstance(a, list | tuple):
        return all(map(tree_equal, a, b))
    return bool(a == b)


@NAMES
def test_reuse_equals_that_of_one_residual_per_block(name: str) -> None:
    """Within 1e-5, because float32 sums are in another order in 9 steps; classes have two rates."""
    tiny, model, rate = CHAINED[name], CHAINED[name].build(), RATES[name]
    plain = denoise(tiny, model, STEPS)
    ak.patch(model, codebook={float("inf"): rate}, num_inference_steps=STEPS)
    actual, computed = denoise(tiny, model, STEPS), ak.summary(model).computed_steps
    ak.unpatch(model)
    expected = reused_by_blocks(tiny, model, STEPS, computed)
    assert len(computed) < STEPS - 2
    assert all(relative(a, b) < 1e-5 for a, b in zip(actual, expected, strict=True))
    assert relative(actual[-1], plain[-1]) > 3e-5


@NAMES
def test_presets_and_motion(name: str) -> None:
    tiny, model = CHAINED[name], CHAINED[name].build()
    variants: list[dict[str, Any]] = [{"config": "forecast"}, {"cache_dtype": "int8"}]
    if tiny.frames > 1:
        variants.append({"apply_moreg": True})
    for settings in variants:
        options = {"codebook": {1e9: 3}, "num_inference_steps": STEPS, **settings}
        ak.patch(model, **options)
        video = denoise(tiny, model, STEPS)[-1]
        assert torch.isfinite(video).all() and ak.summary(model).reused_steps
        ak.unpatch(model)


@pytest.mark.parametrize("name", [name for name in CHAINED if CHAINED[name].frames == 1])
def test_one_frame_has_no_motion(name: str) -> None:
    tiny, model = CHAINED[name], CHAINED[name].build()
    ak.patch(model, apply_moreg=True, num_inference_steps=STEPS)
    with pytest.raises(ValueError, match=r"frames? of tokens.*set apply_moreg=False"):
        denoise(tiny, model, STEPS)


def test_calls_with_controlnet_samples_are_computed() -> None:
    tiny, model = CHAINED["flux"], CHAINED["flux"].build()
    samples = {"controlnet_block_samples": [noise(1, 16, 32, seed=7)] * 2}

    def run() -> list[Tensor]:
        latents = [noise(*tiny.latents, seed=step) for step in range(STEPS)]
        with torch.no_grad():
            return [
                model(**tiny.inputs(x, step), **samples, return_dict=False)[0]
                for step, x in enumerate(latents, 1)
            ]

    plain = run()
    ak.patch(model, codebook={float("inf"): 3}, num_inference_steps=STEPS)
    with pytest.warns(ak.AdaCacheWarning, match=r"controlnet_block_samples came with the call"):
        assert all(map(torch.equal, run(), plain))


UNSUPPORTED_CLASSES = {
    "AnyFlowFARTransformer3DModel": r"must not be cached: it generates a video chunk by chunk",
    "WanAnimate2Transformer3DModel": r"must not be cached: in one pass its blocks write keys",
    "SanaWMLTX2RefinerTransformer3DModel": r"must not be cached: it refines a video in a few steps",
}


@pytest.mark.parametrize("name", UNSUPPORTED_CLASSES)
def test_unsupported_classes(name: str) -> None:
    """The name alone decides. Subclasses are unsupported as well."""
    unsupported = type(name, (nn.Module,), {"forward": lambda self, x: x})
    subclass = type("Subclass", (unsupported,), {})
    with_own_forward = type("WithOwnForward", (unsupported,), {"forward": lambda self, x: x})
    for model in (unsupported(), subclass(), with_own_forward()):
        with pytest.raises(ValueError, match=UNSUPPORTED_CLASSES[name]):
            ak.patch(model, num_inference_steps=STEPS)


@pytest.mark.parametrize("skipped", [[1], [0], [2]])
def test_skipped_layers(skipped: list[int]) -> None:
    """A call with skip-layer guidance is a branch of its own.

    If it skips the first or the last block, every step is computed.
    """
    tiny, model = CHAINED["sd3"], CHAINED["sd3"].build()
    latents = [noise(*tiny.latents, seed=step) for step in range(STEPS)]

    def run() -> list[Tensor]:
        with torch.no_grad():
            return [
                model(**tiny.inputs(x, step), skip_layers=skipped, return_dict=False)[0]
                for step, x in enumerate(latents, 1)
            ]

    plain = run()
    ak.patch(model, codebook={float("inf"): 3}, cache_loc="start", num_inference_steps=STEPS)
    if skipped == [1]:
        outputs = run()
        assert ak.summary(model).reused_steps and not torch.equal(outputs[3], plain[3])
    else:
        with pytest.warns(ak.AdaCacheWarning, match="skip_layers has the first or the last block"):
            assert all(map(torch.equal, run(), plain))


@pytest.mark.parametrize("name, head", [("flux2", "norm_out"), ("hidream", "final_layer")])
def test_a_correction_changes_the_image_in_a_joined_stream(name: str, head: str) -> None:
    """A correction adds c * (R - forecast of R) to the image, R over both lists, with one c.

    Blocks run on the same inputs with and without it. Sums in float32 differ by at most 1e-5.
    """
    tiny, model = CHAINED[name], CHAINED[name].build()
    latents = [noise(*tiny.latents, seed=step) for step in range(5)]
    schedule = {"schedule": (1, 2, 5), "num_inference_steps": 5, "forecast": 1}
    entering: list[Tensor] = []
    getattr(model, head).register_forward_pre_hook(
        lambda _module, args: entering.append(args[0].clone())
    )
    seen: dict[bool, list[Tensor]] = {}
    for correct in (False, True):
        entering.clear()
        ak.patch(model, correct=correct, **schedule)
        with torch.no_grad():
            for step, x in enumerate(latents, 1):
                tiny.call(model, x, step)
        seen[correct] = list(entering)
        ak.unpatch(model)
    images = seen[True][4].shape[1] if name == "flux2" else 64
    residuals = {}
    with torch.no_grad():
        for step in (1, 2, 5):
            entering.clear()
            first: list[Tensor] = []
            block = getattr(model, tiny.lists[0])[0]
            handle = block.register_forward_pre_hook(
                lambda _module, _args, kwargs, first=first: first.append(kwargs["hidden_states"]),
                with_kwargs=True,
            )
            tiny.call(model, latents[step - 1], step)
            handle.remove()
            residuals[step] = entering[0][:, :images] - first[0]
    forecast = residuals[2] + (5 - 2) * (residuals[2] - residuals[1])
    missed = residuals[5] - forecast
    added = seen[True][4][:, :images] - seen[False][4][:, :images]
    factor = float((added * missed).sum() / missed.square().sum())
    assert factor > 0.1
    assert relative(added, factor * missed) < 1e-5


if __name__ == "__main__":
    STRUCTURES.write_text("\n".join(structures()) + "\n")
