"""Classes that are supported by data alone: exactness, reuse against a plain oracle, structure."""

from __future__ import annotations

import copy
import warnings
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
from tests.support.tiny_models.chained_models import IMAGES, VIDEOS, denoise, noise
from tests.support.tiny_models.special_models import OTHER_IMAGES, OTHER_VIDEOS

STEPS = 12
CHAINED = {**VIDEOS, **OTHER_VIDEOS, **IMAGES, **OTHER_IMAGES}
NAMES = pytest.mark.parametrize("name", CHAINED)

STRUCTURES = Path(__file__).parent / "structures.txt"


def structure(adapter: Adapter, model: nn.Module, arguments: dict[str, Any]) -> str:
    """Videos x frames, residuals that can be measured, and each list with its streams."""
    lists = [
        f"{blocks.name}({', '.join(stream.parameter for stream in blocks.streams)})"
        + ("" if blocks.kept else " not kept")
        for blocks in adapter.lists
    ]
    batch, frames = adapter.frames(model, arguments)
    return f"{batch}x{frames} | {', '.join(adapter.residuals)} | {' -> '.join(lists)}"


def test_structures() -> None:
    """Of all these classes, as the file beside this one has them; `python` on this file prints it
    anew."""
    assert STRUCTURES.read_text().splitlines() == list(structures())


def structures() -> Iterator[str]:
    for name, tiny in CHAINED.items():
        model, arguments = tiny.build(), tiny.inputs(torch.zeros(tiny.latents), 1)
        yield f"{name}: {tiny.name} | {structure(adapter_for(model), model, arguments)}"


def test_streams_are_where_diffusers_has_them() -> None:
    """Its own table of block classes says which output is the hidden state, which the text."""
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


def test_the_tables_of_the_documentation_are_those_of_the_adapters_and_pipelines() -> None:
    """`python -m tests.tools.model_table` writes them."""
    from tests.tools import model_table

    for name, table in model_table.tables().items():
        assert table in model_table.PAGES[name].read_text(), name


@NAMES
def test_rate_1_is_bit_equal_and_unpatch_gives_the_model_back(name: str) -> None:
    tiny, model = CHAINED[name], CHAINED[name].build()
    plain, before = denoise(tiny, model, STEPS), dict(vars(model))
    ak.patch(model, codebook={1.0: 1}, num_inference_steps=STEPS)
    assert all(map(torch.equal, plain, denoise(tiny, model, STEPS)))
    summary = ak.summary(model)
    assert all(distance is not None for distance in summary.distances[1:])
    ak.unpatch(model)
    assert vars(model) == before
    assert all(map(torch.equal, plain, denoise(tiny, model, STEPS)))


@NAMES
def test_reuse_on_equal_input_repeats_the_output(name: str) -> None:
    """As in test_engine.py: two roundings of the stream, and a gain below 16 behind it."""
    tiny, model = CHAINED[name], CHAINED[name].build()
    ak.patch(model, codebook={float("inf"): 3}, num_inference_steps=STEPS)
    with torch.no_grad():
        outputs = [tiny.call(model, torch.ones(tiny.latents), 1) for _ in range(STEPS)]
    assert ak.summary(model).reused_steps
    scale = outputs[1].abs().max()
    assert all((o - outputs[1]).abs().max() <= 32 * torch.finfo().eps * scale for o in outputs)


@NAMES
def test_what_was_given_is_left_as_it_is(name: str) -> None:
    """A reused step writes into the hidden streams, which may be the caller's own tensors."""
    tiny, model = CHAINED[name], CHAINED[name].build()
    arguments = tiny.inputs(noise(*tiny.latents), 1)
    before = copy.deepcopy(arguments)
    ak.patch(model, codebook={float("inf"): 3}, num_inference_steps=STEPS)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*very same timestep", ak.AdaCacheWarning)
        for _ in range(STEPS):
            model(return_dict=False, **arguments)
    assert ak.summary(model).reused_steps
    assert tree_equal(arguments, before)


def tree_equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return all(tree_equal(a[key], b[key]) for key in b)
    if isinstance(a, list | tuple):
        return all(map(tree_equal, a, b))
    return bool(a == b)


@NAMES
@pytest.mark.parametrize("rate", [2, 4])
def test_reuse_is_that_of_a_residual_a_block(name: str, rate: int) -> None:
    """Within 1e-5: float32 sums in another order, over 12 steps."""
    tiny, model = CHAINED[name], CHAINED[name].build()
    plain = denoise(tiny, model, STEPS)
    ak.patch(model, codebook={float("inf"): rate}, num_inference_steps=STEPS)
    found, computed = denoise(tiny, model, STEPS), ak.summary(model).computed_steps
    ak.unpatch(model)
    expected = reused_by_blocks(tiny, model, STEPS, computed)
    assert len(computed) < STEPS - 2
    assert all(relative(a, b) < 1e-5 for a, b in zip(found, expected, strict=True))
    assert relative(found[-1], plain[-1]) > 3e-5


@NAMES
def test_presets_and_motion(name: str) -> None:
    tiny, model = CHAINED[name], CHAINED[name].build()
    ways: list[dict[str, Any]] = [{"config": "forecast"}, {"cache_dtype": "int8"}]
    if tiny.frames > 1:
        ways.append({"apply_moreg": True})
    for settings in ways:
        options = {"codebook": {1e9: 3}, "num_inference_steps": STEPS, **settings}
        ak.patch(model, **options)
        video = denoise(tiny, model, STEPS)[-1]
        assert torch.isfinite(video).all() and ak.summary(model).reused_steps
        ak.unpatch(model)


@pytest.mark.parametrize("name", [name for name in CHAINED if CHAINED[name].frames == 1])
def test_one_frame_has_no_motion(name: str) -> None:
    tiny, model = CHAINED[name], CHAINED[name].build()
    ak.patch(model, apply_moreg=True, num_inference_steps=STEPS)
    with pytest.raises(ValueError, match=r"1 frames of tokens.*set apply_moreg=False"):
        denoise(tiny, model, STEPS)


def test_what_a_controlnet_adds_between_blocks_is_not_reused() -> None:
    tiny, model = CHAINED["flux"], CHAINED["flux"].build()
    samples = {"controlnet_block_samples": [noise(1, 16, 32, seed=7)] * 2}

    def run() -> list[Tensor]:
        latents = [noise(*tiny.latents, seed=step) for step in range(STEPS)]
        with torch.no_grad():
            return [
                model(
                    hidden_states=x,
                    encoder_hidden_states=noise(*(tiny.text or ()), seed=100),
                    timestep=tiny.timestep(step),
                    return_dict=False,
                    **tiny.extra(),
                    **samples,
                )[0]
                for step, x in enumerate(latents, 1)
            ]

    plain = run()
    ak.patch(model, codebook={float("inf"): 3}, num_inference_steps=STEPS)
    with pytest.warns(ak.AdaCacheWarning, match=r"controlnet_block_samples came with the call"):
        assert all(map(torch.equal, run(), plain))


REFUSED_CLASSES = {
    "AnyFlowFARTransformer3DModel": r"must not be cached: it makes a video chunk by chunk",
    "WanAnimate2Transformer3DModel": r"must not be cached: its blocks write keys and values in one",
    "SanaWMLTX2RefinerTransformer3DModel": r"must not be cached: it refines a video in a few steps",
}


@pytest.mark.parametrize("name", REFUSED_CLASSES)
def test_a_class_that_must_not_be_cached_is_refused(name: str) -> None:
    """By its name alone; classes that are made of it are refused as well."""
    refused = type(name, (nn.Module,), {"forward": lambda self, x: x})
    heir = type("Heir", (refused,), {})
    with_its_own = type("WithItsOwn", (refused,), {"forward": lambda self, x: x})
    for model in (refused(), heir(), with_its_own()):
        with pytest.raises(ValueError, match=REFUSED_CLASSES[name]):
            ak.patch(model, num_inference_steps=STEPS)


@pytest.mark.parametrize("skipped", [[1], [0], [2]])
def test_skipped_layers(skipped: list[int]) -> None:
    """Skip-layer guidance leaves blocks out: inside the list it is a branch like any other, at its
    ends every step is computed."""
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
        found = run()
        assert ak.summary(model).reused_steps and not torch.equal(found[3], plain[3])
    else:
        with pytest.warns(ak.AdaCacheWarning, match="skip_layers has the first or the last block"):
            assert all(map(torch.equal, run(), plain))


@pytest.mark.parametrize("name, head", [("flux2", "norm_out"), ("hidream", "final_layer")])
def test_a_correction_goes_to_the_part_of_a_joined_stream(name: str, head: str) -> None:
    """What a correction adds to the image is c * (R - R_before), R over both lists, with one c.

    Blocks run on the same inputs with and without it; the sums of float32 leave 1e-5.
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
