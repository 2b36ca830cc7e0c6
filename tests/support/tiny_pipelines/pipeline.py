"""A pipeline of diffusers around a tiny transformer with random weights: nothing is downloaded."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.tiny_models.description import build_model, description
from tests.support.tiny_pipelines.call_arguments import GUIDANCE_OFF, WIDE, Arguments
from tests.support.tiny_pipelines.schedulers import euler

STEPS = 6


def model(name: str, seed: int = 0, **config: Any) -> nn.Module:
    """Build the tiny model `name` of models.json, with other arguments of its constructor."""
    entry = description(name)
    return build_model(entry["class"], {**entry["config"], **config}, seed)


@dataclass(frozen=True)
class TinyPipeline:
    """A pipeline, how it is built and how it is called.

    Args:
        cls: name of its class in diffusers, or "module:name".
        model: name of its transformer in models.json.
        branches: names of the guidance branches with guidance, and without it.
        arguments: arguments of its call with guidance.
        config: other arguments of the transformer's constructor.
        scheduler: makes the scheduler.
        parts: further arguments of the pipeline's constructor; those without a default that are
            not given are None.
        unguided: arguments that turn guidance off.
        other: arguments of another size.
        asked: steps to ask the pipeline for so that the model runs `STEPS` steps.
        result: makes a tensor of the pipeline's result.
        aborts: argument that takes a callback at the end of a step; None if there is none.
        setup: sets further attributes of the pipeline before a call, with or without guidance.
        recomputed: recomputed steps by branch, with guidance and without it.
        attributes: attributes of the pipeline that replace what would need a real encoder.
    """

    cls: str
    model: str
    branches: tuple[list[str], list[str]]
    arguments: Callable[[], Arguments]
    config: Arguments = field(default_factory=dict)
    scheduler: Callable[[], Any] = euler
    parts: Callable[[], Arguments] = dict
    unguided: Arguments = field(default_factory=GUIDANCE_OFF.copy)
    other: Arguments = field(default_factory=WIDE.copy)
    asked: int = STEPS
    result: Callable[[Any], Tensor] = lambda returned: returned[0]
    aborts: str | None = "callback_on_step_end"
    setup: Callable[[Any, bool], None] = lambda pipe, guidance: None
    recomputed: dict[str, list[int]] = field(default_factory=dict)
    attributes: Arguments = field(default_factory=dict)

    def build(self) -> Any:
        """Build the pipeline; every call gives the same parameters."""
        module, _, name = self.cls.rpartition(":")
        cls = getattr(importlib.import_module(module or "diffusers"), name)
        required = {
            name: None
            for name, parameter in inspect.signature(cls.__init__).parameters.items()
            if parameter.default is parameter.empty and name != "self"
        }
        given = {"transformer": model(self.model, **self.config), "scheduler": self.scheduler()}
        pipe = cls(**{**required, **given, **self.parts()})
        pipe.set_progress_bar_config(disable=True)
        for name, value in self.attributes.items():
            setattr(pipe, name, value)
        return pipe

    def call(self, pipe: Any, **overrides: Any) -> Tensor:
        """Return the result of `pipe` as one tensor, with arguments of its call replaced."""
        usual = {
            "num_inference_steps": self.asked,
            "output_type": "latent",
            "return_dict": False,
            "generator": torch.Generator().manual_seed(0),
        }
        accepted = inspect.signature(pipe.__call__).parameters
        usual = {name: value for name, value in usual.items() if name in accepted}
        return self.result(pipe(**{**usual, **self.arguments(), **overrides}))

    def run(
        self, pipe: Any, *, guidance: bool = True, other: bool = False, **overrides: Any
    ) -> Tensor:
        """Return the finite result of `pipe`, with or without guidance, in this or another size."""
        self.setup(pipe, guidance)
        unguided = {} if guidance else self.unguided
        latents = self.call(pipe, **{**unguided, **(self.other if other else {}), **overrides})
        assert torch.isfinite(latents).all()
        return latents
