"""A tiny random model of one class of diffusers, and a denoising loop to run it in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.tiny_models.description import build_model, description, noise

Inputs = Callable[[Tensor, int], dict[str, Any]]
"""Returns the arguments of a forward, from the latents and the step, counted from 1."""


@dataclass(frozen=True)
class TinyClass:
    """A model class, its constructor's arguments, its structure, and the inputs of its forward.

    Args:
        name: name of the class in diffusers.
        config: arguments of its constructor.
        lists: attributes of its block lists.
        streams: hidden streams of a block, in the order in which it returns them.
        latents: shape of the latents of one video.
        frames: frames of tokens.
        inputs: arguments of the forward.
        streams_of: streams of the lists that have other streams than `streams`.
    """

    name: str
    config: dict[str, Any]
    lists: tuple[str, ...]
    streams: tuple[str, ...]
    latents: tuple[int, ...]
    frames: int
    inputs: Inputs
    streams_of: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """Build the model; every call gives the same parameters."""
        return build_model(self.name, self.config)

    def call(self, model: nn.Module, latents: Tensor, step: int) -> Tensor:
        """Return the prediction of one forward, in the shape of the latents.

        Channels that are only conditions are not predicted: they are zero.
        """
        output = model(return_dict=False, **self.inputs(latents, step))[0]
        predicted: Tensor = output[0] if isinstance(output, list) else output
        predicted = predicted.reshape(predicted.shape[-latents.ndim :])
        if predicted.ndim < latents.ndim:
            predicted = predicted[None]
        both = tuple(slice(min(a, b)) for a, b in zip(predicted.shape, latents.shape, strict=True))
        prediction = torch.zeros_like(latents)
        prediction[both] = predicted[both]
        return prediction


def tiny_classes(inputs: Mapping[str, Inputs]) -> dict[str, TinyClass]:
    """Return the tiny models of these names in models.json, each with its inputs."""
    return {name: _tiny_class(description(name), each) for name, each in inputs.items()}


def _tiny_class(entry: dict[str, Any], inputs: Inputs) -> TinyClass:
    return TinyClass(
        name=entry["class"],
        config=entry["config"],
        lists=tuple(entry["lists"]),
        streams=tuple(entry["streams"]),
        latents=tuple(entry["latents"]),
        frames=entry["frames"],
        inputs=inputs,
        streams_of={name: tuple(each) for name, each in entry.get("streams_of", {}).items()},
    )


def denoise(tiny: TinyClass, model: nn.Module, steps: int) -> list[Tensor]:
    """Return the latents after every step of `x <- x - 0.05 * model(x)`."""
    latents, trajectory = noise(*tiny.latents), []
    with torch.no_grad():
        for step in range(1, steps + 1):
            latents = latents - 0.05 * tiny.call(model, latents, step)
            trajectory.append(latents)
    return trajectory
