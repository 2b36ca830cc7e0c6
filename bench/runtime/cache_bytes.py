"""Plan the bytes of the cache for models at their released sizes; no model runs.

    python -m bench.runtime.cache_bytes

The script builds each model on the meta device with its released configuration, in bfloat16, and
calls it with guidance up to its first block. The plan follows from the inputs of that block. The
authors' code stores two tensors for every block. Writes `results/cache_bytes.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from adacache_kernels.engine.residuals.guidance_branch import ring_size
from adacache_kernels.memory.plan import SlotDemand, Storage, StreamShape, StreamShapes, total_bytes
from adacache_kernels.models import BlockList, Layout, Stream, adapter_for

RESULT = Path(__file__).parent / "results" / "cache_bytes.md"
DTYPE = torch.bfloat16
GB = 1e9


@dataclass(frozen=True)
class Case:
    """A released model at one size.

    Args:
        name: model and size of the video.
        build: builds the model on the current device.
        inputs: makes the arguments of its forward.
        video: videos in one call, frames of tokens.
        calls: calls of the model in one step with guidance.
        lists: its block lists, for a model without an adapter.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], Mapping[str, Any]]
    video: tuple[int, int]
    calls: int = 1
    lists: tuple[BlockList, ...] = ()


def meta(*shape: int, dtype: torch.dtype = DTYPE) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def latte() -> nn.Module:
    return diffusers.LatteTransformer3DModel(
        num_attention_heads=16, attention_head_dim=72, in_channels=4, out_channels=8,
        num_layers=28, cross_attention_dim=1152, attention_bias=True, sample_size=64, patch_size=2,
        activation_fn="gelu-approximate", norm_type="ada_norm_single", norm_eps=1e-6,
        norm_elementwise_affine=False, caption_channels=4096, video_length=16,
    )  # fmt: skip


def latte_inputs() -> dict[str, Any]:
    return {
        "hidden_states": meta(2, 4, 16, 64, 64),
        "timestep": meta(2, dtype=torch.int64),
        "encoder_hidden_states": meta(2, 120, 4096),
    }


def cogvideox() -> nn.Module:
    return diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=48, num_layers=42, use_rotary_positional_embeddings=True
    )


def cogvideox_inputs() -> dict[str, Any]:
    return {
        "hidden_states": meta(2, 13, 16, 60, 90),
        "encoder_hidden_states": meta(2, 226, 4096),
        "timestep": meta(2, dtype=torch.int64),
    }


def wan() -> nn.Module:
    return diffusers.WanTransformer3DModel(
        num_attention_heads=40, num_layers=40, ffn_dim=13824, text_dim=4096
    )


def wan_inputs() -> dict[str, Any]:
    return {
        "hidden_states": meta(1, 16, 21, 90, 160),
        "timestep": meta(1, dtype=torch.int64),
        "encoder_hidden_states": meta(1, 512, 4096),
    }


def hunyuan_video() -> nn.Module:
    return diffusers.HunyuanVideoTransformer3DModel()


def hunyuan_video_inputs() -> dict[str, Any]:
    return {
        "hidden_states": meta(1, 16, 33, 90, 160),
        "timestep": meta(1, dtype=torch.int64),
        "encoder_hidden_states": meta(1, 256, 4096),
        "encoder_attention_mask": meta(1, 256, dtype=torch.bool),
        "pooled_projections": meta(1, 768),
        "guidance": meta(1),
    }


class OpenSora(nn.Module):
    """The part of Open-Sora 1.2 (STDiT3) that the plan needs: two lists on `[B, T * S, 1152]`."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial_blocks = nn.ModuleList(_Block() for _ in range(28))
        self.temporal_blocks = nn.ModuleList(_Block() for _ in range(28))

    def forward(self, x: Tensor) -> Tensor:
        return self.spatial_blocks[0](x)


class _Block(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


VIDEO = (Stream("x"),)
BOTH = (Stream("hidden_states", 0), Stream("encoder_hidden_states", 1))
CASES = (
    Case("Open-Sora 1.2, 51 x 720 x 1280", OpenSora, lambda: {"x": meta(2, 15 * 45 * 80, 1152)},
         (2, 15), lists=(BlockList("spatial_blocks", VIDEO, Layout.FRAME_MAJOR,
                                   interleaved_with_next=True),
                         BlockList("temporal_blocks", VIDEO, Layout.FRAME_MAJOR))),
    Case("Latte, 16 x 512 x 512", latte, latte_inputs, (2, 16)),
    Case("CogVideoX 5B, 49 x 480 x 720", cogvideox, cogvideox_inputs, (2, 13)),
    Case("Wan 14B, 81 x 720 x 1280", wan, wan_inputs, (1, 21), calls=2),
    Case("HunyuanVideo, 129 x 720 x 1280", hunyuan_video, hunyuan_video_inputs, (1, 33)),
)  # fmt: skip
WAYS = {
    "full": Storage(),
    "int8": Storage("int8"),
    "host": Storage(on_host=True),
}


class _FirstBlock(Exception):
    """An exception that carries the streams of the first block."""


def entering(model: nn.Module, case: Case, first: BlockList) -> StreamShapes:
    """Return the shapes of the streams that enter the first block."""

    def stop(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        names = block.forward.__code__.co_varnames[1:]
        given = dict(zip(names, args, strict=False)) | kwargs
        raise _FirstBlock(StreamShapes.of(case.video, first, given))

    getattr(model, first.attribute)[0].register_forward_pre_hook(stop, with_kwargs=True)
    try:
        model(**case.inputs())
    except _FirstBlock as reached:
        return reached.args[0]
    raise AssertionError(f"{case.name} has not called its first block")


def build(case: Case) -> nn.Module:
    """Build the model without its weights."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(DTYPE)
    try:
        with torch.device("meta"):
            return case.build()
    finally:
        torch.set_default_dtype(before)


def row(case: Case) -> str:
    """Return a line of the table."""
    model = build(case)
    lists = case.lists or adapter_for(model).lists
    brought = entering(model, case, lists[0])
    streams = {name: stream for name, stream in brought.streams.items() if stream is not None}
    nbytes = {name: bytes_of(stream) for name, stream in streams.items()}
    authors = case.calls * sum(
        2 * len(getattr(model, blocks.attribute)) * nbytes[stream.parameter]
        for blocks in lists
        for stream in blocks.streams
    )
    # "fast" stores the last residual, and the residual of a metric block in the last list.
    # "forecast" stores three residuals and has no metric block.
    sites = ((lists[-1].attribute, 0),)
    fast = SlotDemand(lists, 1, sites)
    places = ring_size(1, correct=True)
    forecast = SlotDemand(lists, places, ())
    cells = [planned(demand, case, brought, WAYS["full"]) for demand in (fast, forecast)]
    cells += [planned(forecast, case, brought, WAYS[way]) for way in ("int8", "host")]
    *rows, _channels = streams[lists[0].streams[0].parameter].shape
    tokens = torch.Size(rows).numel() // case.video[0]
    figures = " | ".join(f"{cell / GB:.2f}" for cell in (authors, *cells))
    return f"| {case.name} | {tokens} | {figures} | {authors / cells[0]:.0f}x |"


def planned(demand: SlotDemand, case: Case, brought: StreamShapes, storage: Storage) -> int:
    """Return the bytes of all branches' slots on the device."""
    specs = {}
    for branch in range(case.calls):
        specs |= {spec.key: spec for spec in demand.slots(branch, brought, storage)}
    return total_bytes(specs.values())


def bytes_of(stream: StreamShape) -> int:
    return torch.Size(stream.shape).numel() * stream.dtype.itemsize


def main() -> None:
    lines = [
        "| model, video | tokens | two tensors a block | `fast` | `forecast` | ... in int8 | "
        "... in host memory | `fast` is smaller |",
        "|---|---|---|---|---|---|---|---|",
        *map(row, CASES),
    ]
    table = "\n".join(lines)
    print(table)
    RESULT.write_text(
        "# Cache bytes\n\nGB on the device, bfloat16, with guidance; planned on the meta device by "
        "`python -m bench.runtime.cache_bytes`.\n\n" + table + "\n"
    )


if __name__ == "__main__":
    main()
