"""Adapters of models from the original repositories, recognised by their structure.

Nothing of the repositories is imported. A structure is the block lists of a model, the first
parameters of the forwards of their blocks, in order, and attributes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from ..adaln_gates import GATE_ATTENTION, GATE_MLP, gated_attention
from ..adapter import Adapter, BlockList, BlockRun, Residual, Stream
from ..adapter_builders import VIDEO, video_shape
from ..layout import Layout
from ..other_libraries.forward_wrappers import own_forward
from .latte import LATTE
from .stdit3 import SPATIAL, TEMPORAL, stdit3

LATTE_BLOCK = (
    "hidden_states",
    "attention_mask",
    "encoder_hidden_states",
    "encoder_attention_mask",
    "timestep",
    "cross_attention_kwargs",
    "class_labels",
)
STDIT3_BLOCK = ("x", "y", "t", "mask", "x_mask", "t0", "T", "S")


@dataclass(frozen=True)
class Structure:
    """The features by which a repository's model is recognised.

    Args:
        name: the repositories and the model, for people.
        blocks: the first parameters of the blocks' forward, by attribute of the block list.
        adapter: returns the adapter of a model that has this structure.
        inside: an attribute, as a dotted path, of the first block of the first list; empty if
            none is required.
        beside: an attribute, as a dotted path, of the model; empty if none is required.
    """

    name: str
    blocks: Mapping[str, tuple[str, ...]]
    adapter: Callable[[nn.Module], Adapter]
    inside: str = ""
    beside: str = ""

    def fits(self, model: nn.Module) -> bool:
        """Return True if the model has this structure."""
        for attribute, parameters in self.blocks.items():
            blocks = getattr(model, attribute, None)
            if not isinstance(blocks, nn.ModuleList) or not len(blocks):
                return False
            found = tuple(inspect.signature(own_forward(blocks[0])).parameters)
            if found[: len(parameters)] != parameters:
                return False
        first = getattr(model, next(iter(self.blocks)))[0]
        return _has(first, self.inside) and _has(model, self.beside)


def adapter_by_structure(model: nn.Module) -> Adapter | None:
    """Return the adapter of an original repository's model, or None if no structure fits.

    Raises:
        ValueError: the model caches by itself.
    """
    structure = next((structure for structure in STRUCTURES if structure.fits(model)), None)
    if structure is None:
        return None
    return replace(structure.adapter(model), origin=f"by its structure ({structure.name})")


def _has(module: object, path: str) -> bool:
    for name in path.split(".") if path else ():
        if not hasattr(module, name):
            return False
        module = getattr(module, name)
    return True


def _open_sora_plan_frames(model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
    # An odd number of frames leaves one over, which has a patch of its own.
    batch, frames = video_shape(arguments, frame_axis=2)
    frames -= int(arguments.get("use_image_num") or 0)
    size = int(model.config.patch_size_t)  # type: ignore[union-attr, arg-type]
    return batch, (frames - 1) // size + 1 if frames % 2 else frames // size


def _images_beside(_model: nn.Module, arguments: Mapping[str, Any]) -> str | None:
    if not arguments.get("use_image_num"):
        return None
    return (
        "use_image_num came with the call: images next to the video are not supported, so such "
        "calls are computed"
    )


def _attention_tokens_first(run: BlockRun) -> Tensor:
    # The block takes the timestep's embedding as [6, B, C].
    table = run.parameter("scale_shift_table")
    modulation: Tensor = table[:, None] + run.arguments["timestep"]
    attention: Tensor = run.tap("attn1")
    return modulation[GATE_ATTENTION] * attention


def _open_sora_plan(layout: Layout, attention: Callable[[BlockRun], Tensor]) -> Adapter:
    name = "transformer_blocks"
    return Adapter(
        lists=(BlockList(name, VIDEO, layout),),
        residuals={
            "s-attn": Residual((name,), ("attn1",), attention),
            "block": Residual((name,)),
        },
        frames=_open_sora_plan_frames,
        why_not_cached=_images_beside,
    )


LATTE_T2V = replace(LATTE, why_not_cached=_images_beside)


def _latte_gated(run: BlockRun, tap: str, index: int) -> Tensor:
    gate: Tensor = run.tap("adaLN_modulation").chunk(6, dim=1)[index].unsqueeze(1)
    value: Tensor = gate * run.tap(tap)
    return value


def _latte_attention(run: BlockRun) -> Tensor:
    return _latte_gated(run, "attn", GATE_ATTENTION)


def _latte_mlp(run: BlockRun) -> Tensor:
    return _latte_gated(run, "mlp", GATE_MLP)


def _latte_frames(_model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
    batch, frames = arguments["x"].shape[:2]
    return batch, frames


LATTE_SPATIAL, LATTE_TEMPORAL = "blocks[0::2]", "blocks[1::2]"
LATTE_ATTENTION = ("adaLN_modulation", "attn")
# One list: blocks with even indices are spatial, blocks with odd indices temporal.
LATTE_OF_CLASSES = Adapter(
    lists=(
        BlockList(
            "blocks", (Stream("x"),), Layout.FRAMES_IN_BATCH, interleaved_with_next=True, step=2
        ),
        BlockList("blocks", (Stream("x"),), Layout.TOKENS_IN_BATCH, start=1, step=2),
    ),
    residuals={
        "t-attn": Residual((LATTE_TEMPORAL,), LATTE_ATTENTION, _latte_attention),
        "s-attn": Residual((LATTE_SPATIAL,), LATTE_ATTENTION, _latte_attention),
        "ca-mlp": Residual(
            (LATTE_SPATIAL, LATTE_TEMPORAL), ("adaLN_modulation", "mlp"), _latte_mlp
        ),
        "block": Residual((LATTE_SPATIAL, LATTE_TEMPORAL)),
    },
    frames=_latte_frames,
    why_not_cached=_images_beside,
)


def packed_video(_model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
    """Return the videos of the argument `img`, `[B, F*S, C]`, and 1 frame: F is unknown."""
    return arguments["img"].shape[0], 1


OPEN_SORA_2 = Adapter(
    lists=(
        BlockList("double_blocks", (Stream("img", 0), Stream("txt", 1)), Layout.FRAME_MAJOR),
        BlockList("single_blocks", (Stream("x"),), Layout.FRAME_MAJOR, joined=("txt", "img")),
    ),
    residuals={"block": Residual(("double_blocks",))},
    frames=packed_video,
)

STRUCTURES = (
    Structure(
        "Open-Sora 1.2 with AdaCache, STDiT3",
        dict.fromkeys((SPATIAL, TEMPORAL), (*STDIT3_BLOCK[:3], "ada_dict", *STDIT3_BLOCK[3:])),
        stdit3,
        "scale_shift_table",
    ),
    Structure(
        "Open-Sora 1.2, 1.3 and VideoSys, STDiT3",
        dict.fromkeys((SPATIAL, TEMPORAL), STDIT3_BLOCK),
        stdit3,
        "scale_shift_table",
    ),
    Structure(
        "Open-Sora 2.0, MMDiT",
        {"double_blocks": ("img", "txt", "vec", "pe"), "single_blocks": ("x", "vec", "pe")},
        lambda model: OPEN_SORA_2,
    ),
    Structure(
        "Latte and Open-Sora-Plan 1.1, LatteT2V",
        {"transformer_blocks": LATTE_BLOCK, "temporal_transformer_blocks": LATTE_BLOCK},
        lambda model: LATTE_T2V,
        "scale_shift_table",
    ),
    Structure(
        "Open-Sora-Plan 1.3, OpenSoraT2V",
        {"transformer_blocks": LATTE_BLOCK[:5]},
        lambda model: _open_sora_plan(Layout.TOKENS_FIRST, _attention_tokens_first),
        "attn1.processor.sparse_n",
    ),
    Structure(
        "Open-Sora-Plan 1.2, OpenSoraT2V",
        {"transformer_blocks": (*LATTE_BLOCK, "frame")},
        lambda model: _open_sora_plan(Layout.FRAME_MAJOR, gated_attention("timestep")),
        "scale_shift_table",
    ),
    Structure(
        "Latte",
        {"blocks": ("x", "c")},
        lambda model: LATTE_OF_CLASSES,
        "adaLN_modulation",
        # DiT has the same list of the same blocks, but no temporal embedding.
        "temp_embed",
    ),
)
