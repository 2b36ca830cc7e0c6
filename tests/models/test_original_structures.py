"""The original repositories, recognised by the signatures of their blocks."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from adacache_kernels.models import adapter_for
from adacache_kernels.models.adapters.repositories import STRUCTURES

STDIT3 = ("spatial_blocks", "temporal_blocks")
LATTE_T2V = ("transformer_blocks", "temporal_transformer_blocks")
PIXART = (
    "hidden_states attention_mask encoder_hidden_states encoder_attention_mask timestep "
    "cross_attention_kwargs class_labels"
)
TEXT = "hidden_states timestep encoder_hidden_states"
MMDIT = {"double_blocks": "img txt vec pe", "single_blocks": "x vec pe"}

# The parameters of the models' forwards, by the names of their structures.
FORWARDS = {
    "Open-Sora 1.2 with AdaCache, STDiT3": "x timestep y mask",
    "Open-Sora 1.2, 1.3 and VideoSys, STDiT3": "x timestep y mask",
    "Open-Sora 2.0 and FLUX.1, MMDiT": "img img_ids txt txt_ids timesteps",
    "Latte and Open-Sora-Plan 1.1, LatteT2V": TEXT,
    "Open-Sora-Plan 1.2, OpenSoraT2V": TEXT,
    "Open-Sora-Plan 1.3, OpenSoraT2V": TEXT,
    "Latte": "x t y",
}
# By repository: the parameters of the blocks' forward by list, the attributes of the first block
# and (after "/") of the model, and the name of the structure.
REPOSITORIES: dict[str, tuple[dict[str, str], tuple[str, ...], str | None]] = {
    "AdaCache": (
        dict.fromkeys(STDIT3, "x y t ada_dict mask x_mask t0 T S"),
        ("scale_shift_table",),
        "Open-Sora 1.2 with AdaCache, STDiT3",
    ),
    "Open-Sora 1.2": (
        dict.fromkeys(STDIT3, "x y t mask x_mask t0 T S"),
        ("scale_shift_table",),
        "Open-Sora 1.2, 1.3 and VideoSys, STDiT3",
    ),
    "Open-Sora 1.3": (
        dict.fromkeys(STDIT3, "x y t mask x_mask t0 T S H W scale mask_index y_null"),
        ("scale_shift_table",),
        "Open-Sora 1.2, 1.3 and VideoSys, STDiT3",
    ),
    "VideoSys, Open-Sora": (
        dict.fromkeys(STDIT3, "x y t mask x_mask t0 T S timestep all_timesteps"),
        ("scale_shift_table",),
        "Open-Sora 1.2, 1.3 and VideoSys, STDiT3",
    ),
    "Open-Sora 2.0": (
        {name: f"{parameters} kwargs" for name, parameters in MMDIT.items()},
        (),
        "Open-Sora 2.0 and FLUX.1, MMDiT",
    ),
    "Latte, text": (
        dict.fromkeys(LATTE_T2V, PIXART),
        ("scale_shift_table",),
        "Latte and Open-Sora-Plan 1.1, LatteT2V",
    ),
    "VideoSys, Latte": (
        dict.fromkeys(LATTE_T2V, f"{PIXART} org_timestep all_timesteps"),
        ("scale_shift_table",),
        "Latte and Open-Sora-Plan 1.1, LatteT2V",
    ),
    "Open-Sora-Plan 1.1": (
        dict.fromkeys(LATTE_T2V, f"{PIXART} position_q position_k frame"),
        ("scale_shift_table",),
        "Latte and Open-Sora-Plan 1.1, LatteT2V",
    ),
    "Open-Sora-Plan 1.2": (
        {"transformer_blocks": f"{PIXART} frame height width added_cond_kwargs"},
        ("scale_shift_table",),
        "Open-Sora-Plan 1.2, OpenSoraT2V",
    ),
    "Open-Sora-Plan 1.3": (
        {"transformer_blocks": f"{' '.join(PIXART.split()[:5])} frame height width"},
        ("scale_shift_table", "attn1.processor.sparse_n"),
        "Open-Sora-Plan 1.3, OpenSoraT2V",
    ),
    "Latte, classes": ({"blocks": "x c"}, ("adaLN_modulation", "/temp_embed"), "Latte"),
    "DiT": ({"blocks": "x c"}, ("adaLN_modulation",), None),
    "PixArt, diffusers": (
        {"transformer_blocks": f"{PIXART} added_cond_kwargs"},
        ("scale_shift_table",),
        None,
    ),
    "Open-Sora 1.0": ({"blocks": "x y t mask tpe"}, ("scale_shift_table",), None),
    "Open-Sora 1.1": (
        {"blocks": "x y t t_tmp mask x_mask t0 t0_tmp T S"},
        ("scale_shift_table",),
        None,
    ),
}


def block_of(parameters: str) -> nn.Module:
    """Return a block whose forward has these parameters."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = [inspect.Parameter(name, kind) for name in ("self", *parameters.split())]

    def forward(self: Any, *args: Any, **kwargs: Any) -> None:
        """Never called."""

    forward.__signature__ = inspect.Signature(names)  # type: ignore[attr-defined]
    return type("Block", (nn.Module,), {"forward": forward})()


def set_attribute(module: Any, path: str) -> None:
    """Set an attribute, with the objects on its dotted path."""
    *parents, last = path.split(".")
    for name in parents:
        setattr(module, name, getattr(module, name, None) or SimpleNamespace())
        module = getattr(module, name)
    setattr(module, last, torch.ones(1))


def model_of(repository: str) -> nn.Module:
    """Return a model with the block lists and attributes of that repository."""
    lists, attributes, structure = REPOSITORIES[repository]
    model: Any = block_of(FORWARDS.get(structure or "", "x"))
    model.patch_size, model.config = (1, 2, 2), SimpleNamespace(patch_size_t=1)
    for name, parameters in lists.items():
        setattr(model, name, nn.ModuleList(block_of(parameters) for _ in range(2)))
    for block in (block for name in lists for block in getattr(model, name)):
        for part in ("attn", "attn1", "attn2", "cross_attn", "mlp", "ff"):
            setattr(block, part, nn.Identity())
        for path in attributes:
            set_attribute(model if path.startswith("/") else block, path.removeprefix("/"))
    return model


@pytest.mark.parametrize("repository", REPOSITORIES)
def test_at_most_one_structure_fits_a_repository(repository: str) -> None:
    model, expected = model_of(repository), REPOSITORIES[repository][2]
    fitting = [structure.name for structure in STRUCTURES if structure.fits(model)]
    assert fitting == ([] if expected is None else [expected])
    adapter = adapter_for(model)
    assert (adapter is None) is (expected is None)
    assert adapter is None or expected in adapter.origin


@pytest.mark.parametrize("repository", [name for name, row in REPOSITORIES.items() if row[2]])
def test_every_part_of_a_structure_is_required(repository: str) -> None:
    """Without a list or an attribute, or with another first parameter, it does not fit."""
    lists, attributes, structure = REPOSITORIES[repository]

    def fits(model: nn.Module) -> bool:
        return structure in [each.name for each in STRUCTURES if each.fits(model)]

    for name, parameters in lists.items():
        model = model_of(repository)
        setattr(model, name, nn.ModuleList())
        assert not fits(model)
        setattr(model, name, nn.ModuleList([block_of(f"another {parameters}")]))
        assert not fits(model)
    if attributes:
        model = model_of(repository)
        last = attributes[-1]
        owner: Any = model if last.startswith("/") else getattr(model, next(iter(lists)))[0]
        delattr(owner, last.removeprefix("/").partition(".")[0])
        assert not fits(model)


@pytest.mark.parametrize(("frames", "size", "tokens"), [(4, 1, 4), (4, 2, 2), (5, 2, 3), (1, 4, 1)])
def test_frames_of_patches(frames: int, size: int, tokens: int) -> None:
    """A frame that does not fill a patch gets a patch of its own in both repositories."""
    plan, stdit3 = model_of("Open-Sora-Plan 1.2"), model_of("Open-Sora 1.2")
    plan.config, stdit3.patch_size = SimpleNamespace(patch_size_t=size), (size, 2, 2)
    video = torch.empty(2, 4, frames, 8, 8)
    assert adapter_for(plan).frames(plan, {"hidden_states": video}) == (2, tokens)
    assert adapter_for(stdit3).frames(stdit3, {"x": video}) == (2, tokens)
