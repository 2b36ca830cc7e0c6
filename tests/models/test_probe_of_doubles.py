"""One forward call of a model shows its frames, layouts, attention and writes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adacache_kernels.models import Adapter, BlockRun, Layout, Probe, Unclear, check_frames
from adacache_kernels.models.block_calls import Parameters, shadowed
from adacache_kernels.models.probe.video_input import GivenFrames
from tests.models import repository_doubles as doubles
from tests.support.tiny_models.description import noise

TIME = torch.ones(1)


def probed(
    model: nn.Module,
    x: Any,
    names: tuple[str, ...] = ("blocks",),
    frames: GivenFrames | None = None,
) -> Adapter:
    """Return the adapter that one call of a double shows."""
    arguments = Parameters(model).bind((x, TIME), {})
    probe = Probe(model, names, frames)
    with torch.no_grad(), shadowed(model, probe.lists()):
        model(x, TIME)
    return probe.adapter(arguments)


FRAMES = {
    doubles.OwnWan: (Layout.FRAME_MAJOR, 3),
    doubles.Cosmos: (Layout.GRID, 3),
    doubles.CosmosOne: (Layout.GRID_FIRST, 3),
    doubles.FramesInBatch: (Layout.FRAMES_IN_BATCH, 3),
    doubles.InPlace: (Layout.FRAME_MAJOR, 3),
}


@pytest.mark.parametrize("kind", FRAMES, ids=lambda kind: kind.__name__)
def test_layout_and_frames(kind: Any) -> None:
    model = kind().eval()
    adapter = probed(model, doubles.video(kind))
    assert adapter.lists[0].layout is FRAMES[kind][0]
    arguments = Parameters(model).bind((doubles.video(kind), TIME), {})
    assert adapter.frames(model, arguments) == (1, FRAMES[kind][1])
    longer = noise(1, 2, 5, 4, 6)
    first = next(iter(arguments))
    arguments[first] = list(longer) if kind is doubles.OwnWan else longer
    assert adapter.frames(model, arguments) == (1, 5)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("kind", FRAMES, ids=lambda kind: kind.__name__)
def test_the_split_of_a_stream_has_its_frames(kind: Any, batch: int) -> None:
    """The tokens of frame f of video b are at [b, f], whatever the layout."""
    layout = FRAMES[kind][0]
    video = torch.arange(batch * 3 * 2 * 3 * 4.0).reshape(batch, 3, 2, 3, 4)
    stream = {
        Layout.FRAME_MAJOR: video.flatten(1, 3),
        Layout.GRID: video,
        Layout.GRID_FIRST: video.permute(1, 2, 3, 0, 4).contiguous(),
        Layout.FRAMES_IN_BATCH: video.flatten(2, 3).flatten(0, 1),
    }[layout]
    assert layout.of_grid(batch, (3, 2, 3), 4) == tuple(stream.shape)
    assert torch.equal(layout.split(stream, batch, 3), video.flatten(2, 3))


class Channels(doubles.Denoiser):
    """A model of videos [B, F, C, H, W]."""

    def __init__(self) -> None:
        super().__init__(doubles.FrameBlock)

    def forward(self, x: Tensor, t: Any) -> Tensor:
        hidden = self.embed(self.patchify(x.transpose(1, 2)))
        for block in self.blocks:
            hidden = block(hidden, t)
        return hidden


class Packed(doubles.Denoiser):
    """A model of tokens, whose frames nothing shows."""

    def __init__(self) -> None:
        super().__init__(doubles.FrameBlock)

    def forward(self, x: Tensor, t: Any) -> Tensor:
        hidden = self.embed(x)
        for block in self.blocks:
            hidden = block(hidden, t)
        return hidden


class WithText(Channels):
    """A model that puts text tokens before those of the video."""

    def patchify(self, x: Tensor) -> Tensor:
        return torch.cat([noise(x.shape[0], 6, 8), super().patchify(x)], 1)


def frames_of(model: nn.Module, x: Tensor, frames: GivenFrames | None = None) -> tuple[int, str]:
    adapter = probed(model, x, frames=frames)
    return adapter.frames(model, {"x": x})[1], adapter.frames.unknown


def test_frames_in_dimension_1() -> None:
    assert frames_of(Channels(), noise(1, 5, 2, 4, 6)) == (5, "")


def test_frames_by_a_patch_size_of_the_embedding() -> None:
    model = Channels()
    model.patch_size = None  # type: ignore[assignment]
    assert frames_of(model, noise(1, 5, 2, 4, 6))[0] == 1
    model.proj = nn.Conv3d(2, 8, (1, 2, 2), (1, 2, 2))
    assert frames_of(model, noise(1, 5, 2, 4, 6)) == (5, "")


@pytest.mark.parametrize("kind", [Packed, WithText])
def test_unknown_frames_are_said(kind: Any) -> None:
    """Nothing divides a sequence with other tokens, even if their number would fit."""
    x = noise(1, 18, 8) if kind is Packed else noise(1, 3, 2, 4, 6)
    frames, unknown = frames_of(kind(), x)
    assert frames == 1 and "ak.patch(model, frames=...)" in unknown


def test_frames_that_the_user_gave() -> None:
    for given in (3, lambda arguments: arguments["x"].shape[1] // 6):
        assert frames_of(Packed(), noise(1, 18, 8), given) == (3, "")
    with pytest.raises(Unclear, match="frames=5 does not divide the 18 tokens of a video"):
        frames_of(Packed(), noise(1, 18, 8), 5)


def test_the_setting_frames_is_checked() -> None:
    check_frames(3)
    check_frames(len)
    for value, error in (("3", TypeError), (True, TypeError), (2.5, TypeError), (0, ValueError)):
        with pytest.raises(error, match="frames"):
            check_frames(value)


ATTENDED = (
    doubles.AllegroTransformer3DModel,
    doubles.OwnWan,
    doubles.Cosmos,
    doubles.Hinted,
    doubles.FramesInBatch,
)


@pytest.mark.parametrize("kind", ATTENDED, ids=lambda kind: kind.__name__)
def test_the_residual_of_the_attention(kind: Any) -> None:
    """It equals gate * attention, which the double computes by itself."""
    model = kind().eval()
    name = model.blocks_name
    adapter = probed(model, doubles.video(kind), (name,))
    residual = adapter.residuals["s-attn"]
    block = getattr(model, name)[1]
    x = noise(1, 3, 2, 3, 8) if kind is doubles.Cosmos else noise(1, 18, 8)
    inputs: list[tuple[Any, ...]] = []
    (tap,) = residual.taps
    handle = getattr(block, tap).register_forward_hook(lambda _m, args, _o: inputs.append(args))
    with torch.no_grad():
        output, expected = block.run(x), block.gate * block.attend(x)
    handle.remove()
    stream = adapter.lists[0].streams[0]
    run = BlockRun(
        block, {stream.parameter: x}, stream, output, {tap: output}, {}, {tap: inputs[0]}
    )
    assert residual.value is not None
    torch.testing.assert_close(residual.value(run), expected, atol=1e-6, rtol=1e-5)


class GateOfEachToken(doubles.FrameBlock):
    """A gate that differs from token to token cannot be told from another residual."""

    def run(self, x: Tensor) -> Tensor:
        x = x + torch.linspace(-1, 1, x.shape[1])[:, None] * self.attend(x)
        return x + self.ff(self.norm2(x))


class AlsoAdded(doubles.FrameBlock):
    def run(self, x: Tensor) -> Tensor:
        x = x + self.gate * self.attend(x) + self.norm1(x).tanh()
        return x + self.ff(self.norm2(x))


class Parallel(doubles.FrameBlock):
    """No submodule takes the sum of the stream and the attention."""

    def run(self, x: Tensor) -> Tensor:
        return x + self.gate * self.attend(x) + self.ff(self.norm1(x))


class TwoAttentions(doubles.FrameBlock):
    def __init__(self) -> None:
        super().__init__()
        self.attn = doubles.Attention()


class TwiceNormed(doubles.FrameBlock):
    """The submodule that takes the sum runs twice, so its calls cannot be told apart."""

    def run(self, x: Tensor) -> Tensor:
        return super().run(x) + self.norm2(x)


UNKNOWN = (GateOfEachToken, AlsoAdded, Parallel, TwoAttentions, TwiceNormed, doubles.InPlaceBlock)


@pytest.mark.parametrize("kind", UNKNOWN, ids=lambda kind: kind.__name__)
def test_an_attention_whose_gate_is_not_shown_is_not_measured(kind: Any) -> None:
    model = doubles.InPlace(kind).eval()
    assert list(probed(model, doubles.video(doubles.InPlace)).residuals) == ["block"]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("layers", [(0,), (1,), (0, 1)])
def test_writes_between_blocks_cut_the_list(layers: tuple[int, ...], mode: Any) -> None:
    """Tensors of `torch.inference_mode` have no version counter."""
    model = doubles.Hinted(layers).eval()
    with mode():
        adapter = probed(model, doubles.video(doubles.Hinted))
    starts = [blocks.start for blocks in adapter.lists]
    assert starts == [0, *(layer + 1 for layer in layers)]


class WritesTime(doubles.FrameBlock):
    def forward(self, hidden: Tensor, t: Tensor) -> Tensor:
        t *= 1.5
        return super().forward(hidden, t) * t


class WritesInside(doubles.FrameBlock):
    def forward(self, hidden: Tensor, t: list[Tensor]) -> Tensor:
        t[0] += 1
        return super().forward(hidden, t)


class Passing(doubles.InPlace):
    """A model that gives its blocks the timestep in a container."""

    def forward(self, x: Tensor, t: Any) -> Tensor:
        return super().forward(x, [t.clone()])


class Stored(doubles.FrameBlock):
    def forward(self, hidden: Tensor, inference_params: Any) -> Tensor:
        return self.run(hidden)


REFUSED = {
    (doubles.InPlace, WritesTime): "blocks of blocks write into t, which is no hidden stream",
    (Passing, WritesInside): r"blocks of blocks write into t\[0\], which is no hidden stream",
    (doubles.InPlace, Stored): "blocks of blocks take inference_params, in which they may store",
}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("kinds", REFUSED, ids=str)
def test_blocks_that_write_elsewhere_are_refused(kinds: Any, mode: Any) -> None:
    model = kinds[0](kinds[1]).eval()
    with mode(), pytest.raises(Unclear, match=REFUSED[kinds]):
        probed(model, doubles.video(doubles.InPlace))


def test_joined_streams_that_blocks_write_into() -> None:
    """The single blocks write into the joined stream, whose parts are told before they run."""
    model = doubles.ComfyFlux().eval()
    adapter = probed(model, doubles.video(doubles.ComfyFlux), ("double_blocks", "single_blocks"))
    assert adapter.lists[1].joined == ("txt", "img")


def test_every_layout_has_a_shape_of_its_own() -> None:
    shapes = {layout: layout.of_grid(2, (3, 5, 7), 11) for layout in Layout}
    for a, b in itertools.combinations(shapes.values(), 2):
        assert a != b
