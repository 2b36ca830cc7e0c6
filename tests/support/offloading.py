"""Group offloading as on a GPU with streams, on the CPU: parameters are NaN while they are away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


class Away:
    """Stands for the device that a group is offloaded to: what is there has gone."""

    def __init__(self, *, can_be_told: bool) -> None:
        self.is_away = False
        self._can_be_told = can_be_told

    def __eq__(self, device: object) -> bool:
        return self.is_away and self._can_be_told

    __hash__ = object.__hash__


class Moved:
    """Moves one group's parameters to and fro."""

    def __init__(self, group: Any, can_be_told: bool) -> None:
        tensors = [*group.parameters, *group.buffers]
        for module in group.modules:
            tensors += [*module.parameters(), *module.buffers()]
        self._kept: list[tuple[Tensor, Tensor]] = [(t, t.data) for t in tensors]
        self._away = Away(can_be_told=can_be_told)
        group.offload_device = self._away
        group.onload_, group.offload_ = self.onload, self.offload
        self.offload()

    def onload(self) -> None:
        self._away.is_away = False
        for tensor, data in self._kept:
            tensor.data = data

    def offload(self) -> None:
        self._away.is_away = True
        for tensor, data in self._kept:
            tensor.data = torch.full_like(data, float("nan"))


def offload_with_prefetch(model: nn.Module, can_be_told: bool = True, **settings: Any) -> None:
    """What `apply_group_offloading(..., use_stream=True)` does, where there are no streams.

    Args:
        model: the model.
        can_be_told: whether a module finds out that nobody has prefetched it, as of diffusers 0.37.
        settings: for `apply_group_offloading`.
    """
    from diffusers.hooks import HookRegistry, group_offloading

    cpu = torch.device("cpu")
    group_offloading.apply_group_offloading(model, cpu, cpu, **settings)
    for group in {id(group): group for group in _groups(model)}.values():
        Moved(group, can_be_told)
    registry = HookRegistry.check_if_exists_or_initialize(model)
    if registry.get_hook("group_offloading") is None:
        nobody = group_offloading.ModuleGroup([], cpu, cpu, model, model)
        config = next(hooks(model)).config
        group_offloading._apply_group_offloading_hook(model, nobody, config=config)
    prefetch = group_offloading.LazyPrefetchGroupOffloadingHook()
    registry.register_hook(prefetch, "lazy_prefetch_group_offloading")


def hooks(model: nn.Module) -> Iterator[Any]:
    """All hooks of group offloading in the model."""
    for module in model.modules():
        registry = vars(module).get("_diffusers_hook")
        hook = None if registry is None else registry.get_hook("group_offloading")
        if hook is not None:
            yield hook


def _groups(model: nn.Module) -> Iterator[Any]:
    return (hook.group for hook in hooks(model))
