"""Simulate group offloading with streams on the CPU: offloaded parameters are NaN."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


class OffloadDevice:
    """The device that a group is offloaded to; a parameter equals it while it is offloaded.

    Args:
        is_detectable: False if modules cannot detect that they are offloaded.
    """

    def __init__(self, *, is_detectable: bool) -> None:
        self.is_away = False
        self._is_detectable = is_detectable

    def __eq__(self, device: object) -> bool:
        return self.is_away and self._is_detectable

    __hash__ = object.__hash__


class SimulatedGroup:
    """A group whose parameters are replaced by NaN while they are offloaded."""

    def __init__(self, group: Any, is_detectable: bool) -> None:
        tensors = [*group.parameters, *group.buffers]
        for module in group.modules:
            tensors += [*module.parameters(), *module.buffers()]
        self._parameters: list[tuple[Tensor, Tensor]] = [(t, t.data) for t in tensors]
        self._device = OffloadDevice(is_detectable=is_detectable)
        group.offload_device = self._device
        group.onload_, group.offload_ = self.onload, self.offload
        self.offload()

    def onload(self) -> None:
        self._device.is_away = False
        for tensor, data in self._parameters:
            tensor.data = data

    def offload(self) -> None:
        self._device.is_away = True
        for tensor, data in self._parameters:
            tensor.data = torch.full_like(data, float("nan"))


def offload_with_prefetch(model: nn.Module, is_detectable: bool = True, **settings: Any) -> None:
    """Offload as `apply_group_offloading(..., use_stream=True)` does, without streams.

    Args:
        model: the model.
        is_detectable: True if a module detects that it was not prefetched, as of diffusers 0.37.
        settings: arguments of `apply_group_offloading`.
    """
    from diffusers.hooks import HookRegistry, group_offloading

    cpu = torch.device("cpu")
    group_offloading.apply_group_offloading(model, cpu, cpu, **settings)
    for group in {id(group): group for group in _groups(model)}.values():
        SimulatedGroup(group, is_detectable)
    registry = HookRegistry.check_if_exists_or_initialize(model)
    if registry.get_hook("group_offloading") is None:
        empty = group_offloading.ModuleGroup([], cpu, cpu, model, model)
        config = next(hooks(model)).config
        group_offloading._apply_group_offloading_hook(model, empty, config=config)
    prefetch = group_offloading.LazyPrefetchGroupOffloadingHook()
    registry.register_hook(prefetch, "lazy_prefetch_group_offloading")


def hooks(model: nn.Module) -> Iterator[Any]:
    """Yield all hooks of group offloading in the model."""
    for module in model.modules():
        registry = vars(module).get("_diffusers_hook")
        hook = None if registry is None else registry.get_hook("group_offloading")
        if hook is not None:
            yield hook


def _groups(model: nn.Module) -> Iterator[Any]:
    return (hook.group for hook in hooks(model))
