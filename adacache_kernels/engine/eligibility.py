"""Check whether a forward call may be cached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..models import Adapter
from ..models.other_libraries.device_map import check_one_device
from ..models.other_libraries.inspection import inspect


def check_cacheable(model: nn.Module, adapter: Adapter) -> None:
    """Refuse a model that other libraries have changed so that no residuals can be stored.

    Raises:
        ValueError: another library caches the model, or its blocks lie on several devices.
    """
    inspect(model).check_no_conflict()
    lists = (blocks.modules(model).values() for blocks in adapter.lists)
    check_one_device(type(model).__name__, [block for blocks in lists for block in blocks])


def why_not_cached(model: nn.Module, adapter: Adapter, arguments: Mapping[str, Any]) -> str | None:
    """Return the reason why a call must be computed, or None if it may be cached."""
    given = [name for name in arguments if "controlnet" in name and arguments[name] is not None]
    if given:
        return (
            f"{' and '.join(given)} came with the call; the model adds it between its blocks, "
            "which caching does not support yet, so every step is computed"
        )
    reason = why_not_watched(model)
    if reason is not None or adapter.why_not_cached is None:
        return reason
    return adapter.why_not_cached(model, arguments)


def why_not_watched(model: nn.Module) -> str | None:
    """Return the reason why no call of the model may be cached now, or None if calls may be."""
    if model.training:
        return "the model is in training mode, so every step is computed; call model.eval()"
    if torch.is_grad_enabled():
        return "gradients are enabled, so every step is computed; use torch.no_grad()"
    return None
