"""Models of unknown classes: the adapter from their first forward call, and refused models."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

import adacache_kernels as ak
from adacache_kernels.api.target import attached_engine
from adacache_kernels.models import adapter_for
from tests.models.unknown_models import (
    REUSING,
    STEPS,
    Added,
    AddedEverywhere,
    Backwards,
    Collected,
    Dictionary,
    Extra,
    InDictionary,
    Inside,
    Model,
    Optional,
    Partly,
    Refined,
    Skipping,
    Swapped,
    TextAddedEverywhere,
    TextNamed,
    Turns,
    Twice,
    WithCache,
    WithDictionary,
    WithNotes,
    WithSwappedText,
    WithText,
    run,
)
from tests.support.oracles.block_residual import reused_by_blocks
from tests.support.oracles.two_residuals_per_block import relative
from tests.support.tiny_models.chained_models import IMAGES, VIDEOS
from tests.support.tiny_models.description import noise
from tests.support.tiny_models.special_models import OTHER_IMAGES, OTHER_VIDEOS
from tests.support.tiny_models.tiny_class import denoise

CHAINED = {**VIDEOS, **OTHER_VIDEOS, **IMAGES, **OTHER_IMAGES}
UNCLEAR = {
    "cosmos3": r"the hidden stream has shape \[12, 12\]; expected \[batch, tokens, channels\]",
    "motif": r"blocks of single_transformer_blocks pass encoder_hidden_states on from different",
    "hidream": r"nothing takes element 1 of the output of blocks of double_stream_blocks",
}


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no class and no structure be known."""
    monkeypatch.setattr("adacache_kernels.api.choose_adapter.adapter_for", lambda model: None)


@pytest.mark.usefixtures("unknown")
@pytest.mark.parametrize("name", CHAINED)
def test_detected_blocks_are_those_of_the_table(name: str) -> None:
    """The lists, parts and streams are those of the table of classes, and reuse is as exact."""
    tiny, model = CHAINED[name], CHAINED[name].build()
    plain, before = denoise(tiny, model, STEPS), dict(vars(model))
    ak.patch(model, **REUSING)
    assert "not yet: the first forward" in str(ak.summary(model))
    if name in UNCLEAR:
        with pytest.raises(ValueError, match=UNCLEAR[name]):
            denoise(tiny, model, STEPS)
        assert vars(model) == before
        return
    found = denoise(tiny, model, STEPS)
    summary = ak.summary(model)
    known = adapter_for(model)
    assert known is not None
    expected = known.describe(model).removesuffix("by its class") + "by its first forward"
    if name == "kandinsky6":
        # The first call had no audio stream.
        expected = expected.replace("vis, aud", "vis")
    assert summary.found == expected
    assert summary.computed_steps[:2] == [1, 2] and summary.reused_steps
    ak.unpatch(model)
    assert vars(model) == before
    oracle = reused_by_blocks(tiny, model, STEPS, summary.computed_steps)
    assert all(relative(a, b) < 1e-5 for a, b in zip(found, oracle, strict=True))
    assert relative(found[-1], plain[-1]) > 1e-6


DETECTED = {
    Model: "layers(x) of 4",
    WithText: "layers(x, y) of 4",
    Added: "layers[0:2](x) of 2 -> layers[2:](x) of 2",
    AddedEverywhere: "layers[0:1](x) of 1 -> layers[1:2](x) of 1 -> layers[2:3](x) of 1 -> "
    "layers[3:](x) of 1",
    Refined: "layers(x) of 4",
    Skipping: "layers(x) of 4",
    InDictionary: "layers(x) of 4",
    Twice: "layers(x) of 4, in 2 sweeps",
}


@pytest.mark.parametrize("kind", DETECTED, ids=lambda kind: kind.__name__)
def test_detected(kind: type[Model]) -> None:
    torch.manual_seed(0)
    model = kind().eval()
    ak.patch(model, codebook={1.0: 1}, num_inference_steps=STEPS)
    patched = run(model)
    assert ak.summary(model).found == f"{DETECTED[kind]}, by its first forward"
    ak.unpatch(model)
    assert all(map(torch.equal, patched, run(model)))


def test_swapped_outputs_are_recognised_by_identity() -> None:
    torch.manual_seed(0)
    model = WithSwappedText(Swapped).eval()
    ak.patch(model, **REUSING)
    swapped = run(model)
    assert ak.summary(model).reused_steps
    torch.manual_seed(0)
    straight = WithText().eval()
    ak.patch(straight, **REUSING)
    assert all(map(torch.equal, swapped, run(straight)))


def test_a_value_that_is_no_tensor_is_passed_on() -> None:
    torch.manual_seed(0)
    model = WithDictionary(Dictionary).eval()
    ak.patch(model, **REUSING)
    run(model)
    assert ak.summary(model).reused_steps


REFUSED_BY_THE_FORWARD = {
    Backwards: r"the 4 blocks of layers did not each run once, in order",
    Partly: r"the 4 blocks of layers did not each run once, in order",
    Turns: r"the blocks of layers and others are interleaved",
    Collected: r"the model uses the output of block 0 of layers not only in the next block",
    WithNotes: r"blocks of layers write into a list they are given",
    WithCache: r"blocks of layers take kv_cache, in which they may store something",
    TextAddedEverywhere: r"what leaves a block of layers is not what enters the next one",
    (WithDictionary, Extra): r"nothing takes element 2 of the output of blocks of layers",
}


@pytest.mark.parametrize("kind", REFUSED_BY_THE_FORWARD, ids=str)
def test_unclear_connections_are_refused(kind: Any) -> None:
    """The message names the lists, advises only what helps, and nothing stays patched."""
    model = kind[0](kind[1]) if isinstance(kind, tuple) else kind()
    model.eval()
    before = dict(vars(model))
    ak.patch(model, **REUSING)
    with pytest.raises(ValueError, match=REFUSED_BY_THE_FORWARD[kind]) as raised:
        run(model)
    message = str(raised.value)
    assert f"{type(model).__name__} is not a known class" in message
    assert "Lists in it: layers, 4 " in message
    assert vars(model) == before and not ak.is_patched(model)
    advised = re.search(r'ak\.patch\(model, blocks="(\w+)"\)', message)
    assert (advised is not None) is (kind is Turns)
    if advised is not None:
        ak.patch(model, blocks=advised[1], **REUSING)
        run(model)
        assert ak.summary(model).reused_steps


def test_a_stream_that_comes_later_is_computed() -> None:
    torch.manual_seed(0)
    model = Optional().eval()
    given = {"y": noise(1, 6, 8, seed=5)}
    timesteps = [torch.full((1,), 930.0 - 30 * step) for step in range(STEPS)]
    with torch.no_grad():
        plain = [model(noise(1, 6, 4, seed=i), t, **given) for i, t in enumerate(timesteps)]
        ak.patch(model, **REUSING)
        model(noise(1, 6, 4), timesteps[0])
        ak.reset(model)
        with pytest.warns(ak.AdaCacheWarning, match="y came with the call, but not with the first"):
            found = [model(noise(1, 6, 4, seed=i), t, **given) for i, t in enumerate(timesteps)]
    assert all(map(torch.equal, found, plain)) and not ak.summary(model).reused_steps


def test_the_user_names_the_list() -> None:
    """One of two interleaved lists can be cached alone, with a residual for each block."""
    torch.manual_seed(0)
    model = Turns().eval()
    ak.patch(model, blocks="layers", **REUSING)
    run(model)
    summary = ak.summary(model)
    assert summary.found.startswith("layers[0:1](x) of 1 -> layers[1:2](x) of 1")
    assert summary.reused_steps


def test_wrong_names_from_the_user() -> None:
    for blocks_given, error, message in (
        ("layer", ValueError, r"blocks='layer': Model has no list of blocks of that name; Lists"),
        (3, TypeError, r"blocks is 3; it may be the name of a block list, or several"),
        ([3], TypeError, r"blocks is \[3\]"),
    ):
        with pytest.raises(error, match=message):
            ak.patch(Model(), blocks=blocks_given, num_inference_steps=STEPS)  # type: ignore[arg-type]


def test_a_model_without_blocks() -> None:
    with pytest.raises(ValueError, match=r"Linear is not supported, and it has no list of blocks"):
        ak.patch(nn.Linear(2, 2), num_inference_steps=STEPS)


def test_only_lists_beside_the_hidden_state() -> None:
    """The advice is to name the list, because its name is all that speaks against it."""
    model = TextNamed().eval()
    with pytest.raises(ValueError, match=r"no list in it is certain to hold its blocks.*\(text\)"):
        ak.patch(model, num_inference_steps=STEPS)
    with pytest.raises(ValueError, match=r'ak\.patch\(model, blocks="text_blocks"\)'):
        ak.patch(model, num_inference_steps=STEPS)
    ak.patch(model, blocks="text_blocks", **REUSING)
    run(model)
    assert ak.summary(model).reused_steps


def test_a_list_inside_a_submodule() -> None:
    torch.manual_seed(0)
    model = Inside().eval()
    ak.patch(model, **REUSING)
    inside = run(model)
    assert ak.summary(model).found == "transformer.layers(x) of 4, by its first forward"
    torch.manual_seed(0)
    outside = Model().eval()
    ak.patch(outside, **REUSING)
    assert all(map(torch.equal, inside, run(outside)))


def test_the_message_names_the_objection_to_each_list() -> None:
    model = Refined()
    with pytest.raises(ValueError) as raised:
        ak.patch(model, blocks="nothing", num_inference_steps=STEPS)
    message = str(raised.value)
    assert "context_refiner, 4 Block, 288 parameters: its name (refiner)" in message
    assert "heads, 2 Block, 144 parameters: its modules take different arguments" in message
    assert "few, 2 Block, 12 parameters: it has 0.04 of the parameters of the largest" in message


def test_training_is_not_probed() -> None:
    model = Model()
    ak.patch(model, **REUSING)
    with torch.no_grad():
        model(noise(1, 6, 4), torch.ones(1))
    assert "not yet" in ak.summary(model).found
    ak.unpatch(model)


def test_calibration_needs_known_blocks() -> None:
    model = Model().eval()
    ak.patch(model, **REUSING)
    with pytest.raises(ValueError, match="run it once, so that its blocks are found"):
        attached_engine(model)
