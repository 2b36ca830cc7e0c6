"""Descriptions of tiny models, from models.json.

An entry has the class in diffusers, the arguments of its constructor (`config`), the attributes of
its block lists, the hidden streams in the order in which a block returns them, the shape of the
latents of one video, and the frames of tokens. `streams_of` names lists that have other streams.
An entry that is `based_on` another has only what differs.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.addresses import moved

FILE = Path(__file__).with_name("models.json")


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Return normal noise."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@functools.cache
def _entries() -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = json.loads(FILE.read_text())
    return entries


def description(name: str) -> dict[str, Any]:
    """Return the entry `name`, completed by the entries that it is based on."""
    entry = dict(_entries()[name])
    if "based_on" in entry:
        base = description(entry.pop("based_on"))
        entry = {**base, **entry, "config": {**base["config"], **entry.get("config", {})}}
    return entry


def build_model(cls: str, config: dict[str, Any], seed: int = 0) -> nn.Module:
    """Build a random model of diffusers in evaluation mode; no parameter stays zero.

    With zeros, some blocks would add nothing and the tests could not see them.
    """
    import diffusers

    torch.manual_seed(seed)
    model: nn.Module = getattr(diffusers, cls)(**config).eval()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.abs().max() == 0:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return moved(model)
