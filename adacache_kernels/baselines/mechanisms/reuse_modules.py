"""Reuse single modules: return an attention's or MLP's stored output, or a forecast of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...engine.reports.user_warnings import UserWarnings
from ...models import Adapter
from ...models.block_calls import shadowed
from ...models.block_stand_in import StandIn
from ...models.module_names import Kind, module_names_for
from ...models.other_libraries.torch_compile import is_compiled
from ..base import ModulePolicy
from ..counters import Counters, tensors_in
from .finite_differences import StoredOutput, store_output
from .mechanism import Mechanism, Method, Original, Step, Video

_NAMES = {
    "spatial": "attention of its own over space",
    "temporal": "attention over time alone",
    "cross": "cross attention",
    "mlp": "known MLP",
}


class ModuleMethod(Method[ModulePolicy], Protocol):
    """The config of a method that reuses modules."""

    @property
    def kinds(self) -> Mapping[Kind, str]:
        """Return the kinds of modules that a model must have, each with the setting that asks."""


@dataclass(frozen=True)
class Unit:
    """One module of one block.

    Args:
        kind: what it attends to.
        number: index of its block in its list.
        block: the block.
        name: its attribute in the block.
        module: the module.
    """

    kind: Kind
    number: int
    block: nn.Module
    name: str
    module: nn.Module


def units_of(model: nn.Module, needed: Mapping[Kind, str]) -> list[Unit]:
    """Return all modules of a model that can be reused.

    Args:
        model: the transformer.
        needed: kinds that it must have, each with the setting that asks for it.

    Raises:
        ValueError: a needed kind is missing, the modules of the model's class are not known, or
            its blocks are compiled.
    """
    known, name = module_names_for(model), type(model).__name__
    if known is None:
        raise ValueError(
            f"{name}: it is not known which of its modules attend to what, so they cannot be "
            "reused one by one; choose a method that reuses whole blocks"
        )
    for missing, setting in needed.items():
        if missing not in known.modules:
            raise ValueError(
                f"{setting}: {name} has no {_NAMES[missing]}; it has {', '.join(known.modules)}; "
                "leave the setting out, or choose another method"
            )
    units = [
        Unit(kind, number, block, module_name, module)
        for kind, names in known.modules.items()
        for attribute, module_name in names
        for number, block in enumerate(getattr(model, attribute))
        if isinstance(module := getattr(block, module_name, None), nn.Module)
    ]
    _check_not_compiled(units, name)
    return units


@dataclass
class ModuleBranch:
    """The state of one guidance branch.

    Args:
        name: name of the branch.
        outputs: the stored outputs, by index of the unit.
    """

    name: str
    outputs: dict[int, StoredOutput] = field(default_factory=dict)

    def forget(self) -> None:
        """Remove everything that is stored."""
        self.outputs.clear()

    def tensors(self) -> Iterator[Tensor]:
        """Yield all tensors that are stored."""
        for output in self.outputs.values():
            yield from tensors_in(output.factors)


class ModuleReuse(Mechanism[ModuleBranch]):
    """A mechanism that reuses modules in the steps that a policy selects.

    Args:
        model: the transformer.
        config: makes the policy of each generation.

    Raises:
        ValueError: see `units_of`.
    """

    def __init__(
        self, model: nn.Module, _adapter: Adapter, config: ModuleMethod, _warnings: UserWarnings
    ) -> None:
        super().__init__()
        self._units = units_of(model, config.kinds)
        self._name = type(model).__name__
        self._config = config
        self._policy = config.policy(0)
        self._averaged = False
        self.by_timestep = self._policy.by_timestep

    def begin(self, num_steps: int, counters: Counters) -> None:
        """Begin a generation.

        Raises:
            ValueError: blocks were compiled since the model was patched.
        """
        _check_not_compiled(self._units, self._name)
        super().begin(num_steps, counters)
        self._policy = self._config.policy(num_steps)
        self._averaged = False

    def branch(self, name: str) -> ModuleBranch:
        """Return the state of a new guidance branch."""
        return ModuleBranch(name)

    def begin_step(self, step: Step, branches: Mapping[str, ModuleBranch]) -> None:
        """Begin a step; average the stored outputs if the policy asks for it here."""
        super().begin_step(step, branches)
        self._policy.begin_step(step.number, step.timestep)
        after = self._policy.mean_after
        if after is not None and step.number > after and not self._averaged:
            self._averaged = True
            _average(list(branches.values()), step)

    def run(self, branch: ModuleBranch, _video: Video, original: Original) -> Any:
        """Run one forward call and return the model's output."""
        forward = ModuleForward(branch, self._policy, self._counters, self._step)
        with ExitStack() as stack:
            for index, unit in enumerate(self._units):
                stand_in = StandIn(unit.module, partial(forward.call, index, unit))
                stack.enter_context(shadowed(unit.block, {unit.name: stand_in}))
            return original()


class ModuleForward:
    """One forward call, in which each module runs or returns its stored output.

    Args:
        branch: the state of the call's branch.
        policy: decides for each module.
        counters: of the generation.
        step: counted from 1.
    """

    def __init__(
        self, branch: ModuleBranch, policy: ModulePolicy, counters: Counters, step: int
    ) -> None:
        self._branch, self._policy = branch, policy
        self._counters, self._step = counters, step
        self._called: set[int] = set()

    def call(self, index: int, unit: Unit, *args: Any, **kwargs: Any) -> Any:
        """Return the output of one call of a module.

        Raises:
            RuntimeError: the module was called before in this forward call.
        """
        if index in self._called:
            raise RuntimeError(
                f"{type(unit.block).__name__}.{unit.name} ran more than once in its block (with "
                "chunking on?), so its output cannot be stored; switch chunking off"
            )
        self._called.add(index)
        wanted = self._policy.reuses(unit.kind, unit.number)
        stored = self._branch.outputs.get(index)
        if wanted and stored is not None and stored.is_intact:
            self._counters.count(self._step, computed=False)
            return stored.at(self._step)
        if wanted:
            self._counters.missed(self._branch.name, self._step)
        output = unit.module(*args, **kwargs)
        self._counters.count(self._step, computed=True)
        if wanted or self._policy.stores(unit.kind, unit.number):
            order = self._policy.order(self._step)
            self._branch.outputs[index] = store_output(output, self._step, stored, order)
        else:
            self._branch.outputs.pop(index, None)
        return output


def _check_not_compiled(units: list[Unit], model: str) -> None:
    if any(is_compiled(unit.block) for unit in units):
        raise ValueError(
            f"the blocks of this {model} are compiled, which hides their modules; a method that "
            "reuses modules needs them uncompiled"
        )


def _average(branches: list[ModuleBranch], step: Step) -> None:
    """Replace stored outputs by their mean over the branches, or over the halves of the batch."""
    if len(branches) > 1:
        for index in set.intersection(*(set(branch.outputs) for branch in branches)):
            mean = _mean([branch.outputs[index].value for branch in branches])
            for branch in branches if mean is not None else ():
                branch.outputs[index] = store_output(mean, step.number)
    elif step.guided and branches:
        (branch,) = branches
        for index, output in branch.outputs.items():
            branch.outputs[index] = store_output(_mean_of_halves(output.value), step.number)


def _mean(values: list[Any]) -> Any:
    """Return the mean of outputs, None if their shapes differ."""
    first = values[0]
    if isinstance(first, list | tuple):
        means = [_mean(list(items)) for items in zip(*values, strict=True)]
        return None if any(mean is None for mean in means) else type(first)(means)
    if any(value.shape != first.shape for value in values):
        return None
    return torch.stack(values).mean(0)


def _mean_of_halves(value: Any) -> Any:
    """Return an output with each half of the batch replaced by the mean; an odd batch as it is."""
    if isinstance(value, list | tuple):
        return type(value)(_mean_of_halves(item) for item in value)
    if value.shape[0] % 2:
        return value
    mean = torch.stack(value.chunk(2)).mean(0)
    return torch.cat([mean, mean])
