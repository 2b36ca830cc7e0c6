"""Recognise models of the original repositories by their structure.

Nothing of the repositories is imported. A structure is the block lists of a model, the first
parameters of the forwards of their blocks, in order, and attributes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import nn

from ..adapter import Adapter
from ..adapter_check import adapter_of, fits, has_attribute
from ..other_libraries.forward_wrappers import own_forward
from .latte import LATTE_OF_CLASSES, LATTE_T2V
from .open_sora_2 import OPEN_SORA_2
from .open_sora_plan import OPEN_SORA_PLAN_1_2, OPEN_SORA_PLAN_1_3
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
        adapter: the adapter of models that have this structure, or a function that returns it.
        in_block: an attribute that the first block of the first list must have, as a dotted path;
            empty if none is required.
        in_model: an attribute that the model must have, in the same way.
    """

    name: str
    blocks: Mapping[str, tuple[str, ...]]
    adapter: Adapter | Callable[[nn.Module], Adapter]
    in_block: str = ""
    in_model: str = ""

    def fits(self, model: nn.Module) -> bool:
        """Return True if the model has this structure."""
        for attribute, parameters in self.blocks.items():
            blocks = getattr(model, attribute, None)
            if not isinstance(blocks, nn.ModuleList) or not len(blocks):
                return False
            actual = tuple(inspect.signature(own_forward(blocks[0])).parameters)
            if actual[: len(parameters)] != parameters:
                return False
        first = getattr(model, next(iter(self.blocks)))[0]
        return has_attribute(first, self.in_block) and has_attribute(model, self.in_model)


def adapter_by_structure(model: nn.Module) -> Adapter | None:
    """Return the adapter of an original repository's model, or None if no structure fits.

    Raises:
        ValueError: the model caches by itself.
    """
    for structure in STRUCTURES:
        if structure.fits(model):
            adapter = adapter_of(structure.adapter, model)
            if adapter is not None and fits(model, adapter):
                return replace(adapter, origin=f"by its structure ({structure.name})")
    return None


STRUCTURES = (
    Structure(
        "Open-Sora 1.2 with AdaCache, STDiT3",
        dict.fromkeys((SPATIAL, TEMPORAL), (*STDIT3_BLOCK[:3], "ada_dict", *STDIT3_BLOCK[3:])),
        stdit3,
        in_block="scale_shift_table",
    ),
    Structure(
        "Open-Sora 1.2, 1.3 and VideoSys, STDiT3",
        dict.fromkeys((SPATIAL, TEMPORAL), STDIT3_BLOCK),
        stdit3,
        in_block="scale_shift_table",
    ),
    Structure(
        "Open-Sora 2.0 and FLUX.1, MMDiT",
        {"double_blocks": ("img", "txt", "vec", "pe"), "single_blocks": ("x", "vec", "pe")},
        OPEN_SORA_2,
    ),
    Structure(
        "Latte and Open-Sora-Plan 1.1, LatteT2V",
        {"transformer_blocks": LATTE_BLOCK, "temporal_transformer_blocks": LATTE_BLOCK},
        LATTE_T2V,
        in_block="scale_shift_table",
    ),
    Structure(
        "Open-Sora-Plan 1.3, OpenSoraT2V",
        {"transformer_blocks": LATTE_BLOCK[:5]},
        OPEN_SORA_PLAN_1_3,
        in_block="attn1.processor.sparse_n",
    ),
    Structure(
        "Open-Sora-Plan 1.2, OpenSoraT2V",
        {"transformer_blocks": (*LATTE_BLOCK, "frame")},
        OPEN_SORA_PLAN_1_2,
        in_block="scale_shift_table",
    ),
    Structure(
        "Latte",
        {"blocks": ("x", "c")},
        LATTE_OF_CLASSES,
        in_block="adaLN_modulation",
        # DiT has the same list of the same blocks, but no temporal embedding.
        in_model="temp_embed",
    ),
)
