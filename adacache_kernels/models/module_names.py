"""Name the attentions and MLPs in the blocks of each model class, for the baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from .adapters import latte
from .block_calls import Parameters, whole_list

SHIFT, SCALE = 0, 1

Kind = Literal["spatial", "temporal", "cross", "mlp"]
"""The kinds of modules: attention within a frame, attention over time, attention to the text, MLP.

If a model has one attention over space and time, its kind is "spatial".
"""

ModulatedInput = Callable[[nn.Module, Mapping[str, Any]], Tensor]
"""From a block and its arguments by name to the input of its attention, `[B, S, C]`."""


@dataclass(frozen=True)
class ModuleNames:
    """The modules of a model class whose outputs a baseline can reuse.

    Args:
        modules: by kind, pairs of a block list and the name of a module in its blocks.
        timestep: the block's parameter that takes the timestep's embedding.
        modulated: computes the input of the first block's attention, after norm and modulation;
            None if the computation is unknown.
    """

    modules: Mapping[Kind, tuple[tuple[str, str], ...]]
    timestep: str
    modulated: ModulatedInput | None = None


def module_names_for(model: nn.Module) -> ModuleNames | None:
    """Return the module names of a model's class, or None if the class is unknown.

    A class that inherits its `forward` has the module names of the class that defines it.
    """
    for cls in type(model).__mro__:
        names = MODULE_NAMES.get(cls.__name__)
        if names is not None:
            return names if _has_modules(model, names) else None
        if "forward" in vars(cls):
            break
    return None


def _has_modules(model: nn.Module, names: ModuleNames) -> bool:
    """Return True if the model's blocks have the modules: the name of a class is no proof."""
    for attribute, module in (place for places in names.modules.values() for place in places):
        blocks = whole_list(model, attribute)
        is_named = blocks and names.timestep in Parameters(blocks[0]).names
        if not is_named or not hasattr(blocks[0], module):
            return False
    return True


def _modulated(x: Tensor, table: Tensor) -> Tensor:
    """Return `x * (1 + scale) + shift`, `[B, S, C]`; `table` is `[B, 6, C]`."""
    return x * (1 + table[:, SCALE : SCALE + 1]) + table[:, SHIFT : SHIFT + 1]


def _adaln_single(timestep: str) -> ModulatedInput:
    def modulated(block: nn.Module, arguments: Mapping[str, Any]) -> Tensor:
        x = arguments["hidden_states"]
        embedding = arguments[timestep].reshape(x.shape[0], 6, -1)
        return _modulated(block.norm1(x), block.scale_shift_table[None] + embedding)  # type: ignore[operator, index]

    return modulated


def _wan(block: nn.Module, arguments: Mapping[str, Any]) -> Tensor:
    x, temb = arguments["hidden_states"], arguments["temb"].float()
    table = block.scale_shift_table + temb
    normed = block.norm1(x.float())  # type: ignore[operator]
    if temb.ndim == 4:
        return normed * (1 + table.select(-2, SCALE)) + table.select(-2, SHIFT)  # type: ignore[no-any-return]
    return _modulated(normed, table)


def _cogvideox(block: nn.Module, arguments: Mapping[str, Any]) -> Tensor:
    inputs = (arguments[name] for name in ("hidden_states", "encoder_hidden_states", "temb"))
    normed: Tensor = block.norm1(*inputs)[0]  # type: ignore[operator]
    return normed


LATTE = ModuleNames(
    {
        "spatial": ((latte.SPATIAL, "attn1"),),
        "temporal": ((latte.TEMPORAL, "attn1"),),
        "cross": ((latte.SPATIAL, "attn2"),),
        "mlp": ((latte.SPATIAL, "ff"), (latte.TEMPORAL, "ff")),
    },
    "timestep",
    _adaln_single("timestep"),
)
ALLEGRO = ModuleNames(
    {
        "spatial": (("transformer_blocks", "attn1"),),
        "cross": (("transformer_blocks", "attn2"),),
        "mlp": (("transformer_blocks", "ff"),),
    },
    "temb",
    _adaln_single("temb"),
)
WAN = ModuleNames(
    {
        "spatial": (("blocks", "attn1"),),
        "cross": (("blocks", "attn2"),),
        "mlp": (("blocks", "ffn"),),
    },
    "temb",
    _wan,
)
COGVIDEOX = ModuleNames(
    {"spatial": (("transformer_blocks", "attn1"),), "mlp": (("transformer_blocks", "ff"),)},
    "temb",
    _cogvideox,
)


def _one_list(
    timestep: str,
    mlp: tuple[str, ...] = ("ff",),
    attention: str = "attn1",
    cross: str | None = None,
) -> ModuleNames:
    """Return the module names of a model with the one block list `transformer_blocks`."""
    name = "transformer_blocks"
    modules: dict[Kind, tuple[tuple[str, str], ...]] = {"spatial": ((name, attention),)}
    if cross is not None:
        modules["cross"] = ((name, cross),)
    modules["mlp"] = tuple((name, module) for module in mlp)
    return ModuleNames(modules, timestep)


MODULE_NAMES: dict[str, ModuleNames] = {
    "LatteTransformer3DModel": LATTE,
    "AllegroTransformer3DModel": ALLEGRO,
    "WanTransformer3DModel": WAN,
    "ChronoEditTransformer3DModel": WAN,
    "WanVACETransformer3DModel": WAN,
    "CogVideoXTransformer3DModel": COGVIDEOX,
    "SkyReelsV2Transformer3DModel": WAN,
    "LTXVideoTransformer3DModel": _one_list("temb", cross="attn2"),
    "CosmosTransformer3DModel": _one_list("embedded_timestep", cross="attn2"),
    "SanaVideoTransformer3DModel": _one_list("timestep", cross="attn2"),
    "PixArtTransformer2DModel": _one_list("timestep", cross="attn2"),
    "MochiTransformer3DModel": _one_list("temb", ("ff", "ff_context")),
    "HunyuanVideo15Transformer3DModel": _one_list("temb", ("ff", "ff_context"), "attn"),
}
