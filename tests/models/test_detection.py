"""Models of unknown classes: the adapter from their first forward call, and refused models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from adacache_kernels.api.target import attached_engine
from adacache_kernels.models import adapter_for
from tests.models.test_chained_models import CHAINED
from tests.support.oracles.block_residual import reused_by_blocks
from tests.support.oracles.two_residuals_per_block import relative
from tests.support.tiny_models.description import noise
from tests.support.tiny_models.tiny_class import denoise

STEPS = 9
REUSING = {"codebook": {float("inf"): 3}, "num_inference_steps": STEPS}
UNCLEAR = {
    "cosmos3": r"gen_seq of layers has shape \(12, 12\); expected \[batch, tokens, channels\]",
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


class Block(nn.Module):
    """x + f(x, t)"""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(channels, channels), nn.Tanh())

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x + self.body(x) * t


class TextBlock(Block):
    """A block with two streams."""

    def forward(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return x + self.body(x) * t + y.mean(), y + self.body(y)


class Swapped(TextBlock):
    def forward(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x, y = super().forward(x, y, t)
        return y, x


class Extra(TextBlock):
    """A block that returns a dictionary unchanged, and a value that no block takes."""

    def forward(self, x: Tensor, y: dict[str, int], t: Tensor) -> tuple[Tensor, Any, Tensor]:  # type: ignore[override]
        return Block.forward(self, x, t), y, x.mean()


class Dictionary(Extra):
    def forward(self, x: Tensor, y: dict[str, int], t: Tensor) -> tuple[Tensor, Any]:  # type: ignore[override]
        return Block.forward(self, x, t), y


def blocks(count: int = 4, kind: type[Block] = Block, **options: Any) -> nn.ModuleList:
    return nn.ModuleList(kind(**options) for _ in range(count))


class Model(nn.Module):
    """A model that embeds, runs `layers` and projects; subclasses use their blocks differently."""

    def __init__(self, kind: type[Block] = Block) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(4, 8), nn.Linear(8, 4)
        self.layers = blocks(kind=kind)

    def run(self, x: Tensor, t: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, t)
        return x

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        return self.head(self.run(self.embed(x), timestep / 1000))


class WithText(Model):
    """A model with a text as long as the video, so that shapes do not distinguish them."""

    def __init__(self, kind: type[Block] = TextBlock) -> None:
        super().__init__(kind)
        self.text = nn.Parameter(noise(1, 6, 8, seed=3))

    def run(self, x: Tensor, t: Tensor) -> Tensor:
        y = self.text * 1
        for layer in self.layers:
            x, y = layer(x, y, t)
        return x + y.mean()


class WithSwappedText(WithText):
    def run(self, x: Tensor, t: Tensor) -> Tensor:
        y = self.text * 1
        for layer in self.layers:
            y, x = layer(x, y, t)
        return x + y.mean()


class WithDictionary(WithText):
    def run(self, x: Tensor, t: Tensor) -> Tensor:
        state = {"step": 1}
        for layer in self.layers:
            x, state = layer(x, state, t)[:2]
        assert state == {"step": 1}
        return x


class Added(Model):
    """A model that adds a function of the video after the second block."""

    def run(self, x: Tensor, t: Tensor) -> Tensor:
        for index, layer in enumerate(self.layers):
            x = layer(x, t)
            if index == 1:
                x = x + x.tanh()
        return x


class AddedEverywhere(Model):
    def run(self, x: Tensor, t: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, t) * 1.01
        return x


class TextAddedEverywhere(WithText):
    def run(self, x: Tensor, t: Tensor) -> Tensor:
        y = self.text * 1
        for layer in self.layers:
            x, y = layer(x * 1.01, y * 1.01, t)
        return x + y.mean()


class Collected(Model):
    """A model that adds the output of the second block again at the end."""

    def run(self, x: Tensor, t: Tensor) -> Tensor:
        outputs = []
        for layer in self.layers:
            x = layer(x, t)
            outputs.append(x)
        return x + 2 * outputs[1]


class Noting(Block):
    def forward(self, x: Tensor, notes: list[int], t: Tensor) -> Tensor:  # type: ignore[override]
        notes.append(len(notes))
        return super().forward(x, t) * (1 + len(notes))


class WithNotes(Model):
    def __init__(self) -> None:
        super().__init__(Noting)

    def run(self, x: Tensor, t: Tensor) -> Tensor:
        notes: list[int] = []
        for layer in self.layers:
            x = layer(x, notes, t)
        return x


class Caching(Block):
    def forward(self, x: Tensor, kv_cache: Any, t: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x, t)


class WithCache(Model):
    def __init__(self) -> None:
        super().__init__(Caching)

    def run(self, x: Tensor, t: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, object(), t)
        return x


class Optional(WithText):
    """A model whose text is optional."""

    def __init__(self) -> None:
        super().__init__(OptionalBlock)

    def forward(self, x: Tensor, timestep: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.embed(x)
        for layer in self.layers:
            x, y = layer(x, y, timestep / 1000)
        return self.head(x if y is None else x + y.mean())


class OptionalBlock(TextBlock):
    def forward(self, x: Tensor, y: Tensor | None, t: Tensor) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
        return super().forward(x, y, t) if y is not None else (Block.forward(self, x, t), None)


class Skipping(Model):
    """A model whose last block also takes the output of the first, as in long skips."""

    def __init__(self) -> None:
        super().__init__(SkipBlock)

    def run(self, x: Tensor, t: Tensor) -> Tensor:
        first = None
        for index, layer in enumerate(self.layers):
            x = layer(x, t, first if index == 3 else None)
            first = x if index == 0 else first
        return x


class SkipBlock(Block):
    def forward(self, x: Tensor, t: Tensor, skip: Tensor | None = None) -> Tensor:  # type: ignore[override]
        return super().forward(x if skip is None else x + skip, t) - (0 if skip is None else skip)


class Twice(Model):
    def run(self, x: Tensor, t: Tensor) -> Tensor:
        return super().run(super().run(x, t), t)


class Backwards(Model):
    def run(self, x: Tensor, t: Tensor) -> Tensor:
        for layer in reversed(self.layers):
            x = layer(x, t)
        return x


class Partly(Model):
    def run(self, x: Tensor, t: Tensor) -> Tensor:
        for layer in self.layers[:2]:
            x = layer(x, t)
        return x


class Turns(Model):
    def __init__(self) -> None:
        super().__init__()
        self.others = blocks()

    def run(self, x: Tensor, t: Tensor) -> Tensor:
        for layer, other in zip(self.layers, self.others, strict=True):
            x = other(layer(x, t), t)
        return x


class Refined(Model):
    """A model with a refiner as large as the blocks, and lists that cannot be the blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.context_refiner = blocks()
        self.heads = nn.ModuleList([Block(), TextBlock()])
        self.few = blocks(2, channels=2)

    def run(self, x: Tensor, t: Tensor) -> Tensor:
        y = x
        for refiner in self.context_refiner:
            y = refiner(y, t)
        return super().run(x + y.mean(), t)


class InDictionary(Model):
    def __init__(self) -> None:
        super().__init__()
        self.modes = nn.ModuleDict({"image": blocks()})

    def run(self, x: Tensor, t: Tensor) -> Tensor:
        for block in self.modes["image"]:
            x = block(x, t)
        return super().run(x, t)


class Inside(nn.Module):
    """A model whose block list is in a submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = Model()

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        return self.transformer(x, timestep)


def run(model: nn.Module, steps: int = STEPS) -> list[Tensor]:
    x, trajectory = noise(1, 6, 4), []
    with torch.no_grad():
        for step in range(1, steps + 1):
            x = x - 0.05 * model(x, torch.full((1,), 930.0 - 30 * step))
            trajectory.append(x)
    return trajectory


DETECTED = {
    Model: "layers(x) of 4",
    WithText: "layers(x, y) of 4",
    Added: "layers[0:2](x) of 2 -> layers[2:](x) of 2",
    AddedEverywhere: "layers[0:1](x) of 1 -> layers[1:2](x) of 1 -> layers[2:3](x) of 1 -> "
    "layers[3:](x) of 1",
    Refined: "layers(x) of 4",
    Skipping: "layers(x) of 4",
    InDictionary: "layers(x) of 4",
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
    Twice: r"the 4 blocks of layers did not each run once, in order",
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
    """The message names the lists and the call that helps, and nothing stays patched."""
    model = kind[0](kind[1]) if isinstance(kind, tuple) else kind()
    model.eval()
    before = dict(vars(model))
    ak.patch(model, **REUSING)
    with pytest.raises(ValueError, match=REFUSED_BY_THE_FORWARD[kind]) as raised:
        run(model)
    message = str(raised.value)
    assert f"{type(model).__name__} is not a known class" in message
    assert "Lists in it: layers, 4 " in message and 'ak.patch(model, blocks="layers")' in message
    assert vars(model) == before and not ak.is_patched(model)


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
    model = Model()
    model.text_blocks = model.layers
    del model.layers
    with pytest.raises(ValueError, match=r"no list in it is certain to hold its blocks.*\(text\)"):
        ak.patch(model, num_inference_steps=STEPS)


def test_a_list_inside_a_submodule() -> None:
    with pytest.raises(ValueError, match=r"ak\.patch\(model\.transformer, blocks='layers'\)"):
        ak.patch(Inside(), num_inference_steps=STEPS)


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
