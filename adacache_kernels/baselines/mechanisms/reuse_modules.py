"""Reuse of single modules: what an attention or an MLP returned, or a forecast of it, in place of
calling it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...models import Adapter
from ...models.block_calls import shadowed
from ...models.module_names import Kind, module_names_for
from ...models.other_libraries.torch_compile import is_compiled
from ..base import ModulePolicy
from ..counters import Counters, tensors_in
from .finite_differences import KeptOutput, kept_output

Original = Callable[[], Any]


@dataclass(frozen=True)
class Unit:
    """One module of one block.

    Args:
        kind: what it attends to.
        number: of its block in its list.
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
    """All units of a model.

    Args:
        model: the transformer.
        needed: kinds that there must be, and the setting that says so.

    Raises:
        ValueError: it lacks one of these, it is not known where its modules are, or its blocks are
            compiled.
    """
    known, name = module_names_for(model), type(model).__name__
    if known is None:
        raise ValueError(
            f"{name}: it is not known which of its modules attend to what, so that they cannot be "
            "reused one by one; choose a method that reuses whole blocks"
        )
    for missing, setting in needed.items():
        if missing not in known.modules:
            raise ValueError(
                f"{setting}: {name} has no {_WORDS[missing]}; it has {', '.join(known.modules)}; "
                "leave the setting out, or choose another method"
            )
    found = []
    for kind, places in known.modules.items():
        for attribute, module_name in places:
            for number, block in enumerate(getattr(model, attribute)):
                module = getattr(block, module_name, None)
                if isinstance(module, nn.Module):
                    found.append(Unit(kind, number, block, module_name, module))
    _check_seen(found, name)
    return found


@dataclass
class ModuleBranch:
    """One branch of guidance: outputs by unit."""

    name: str
    kept: dict[int, KeptOutput] = field(default_factory=dict)

    def forget(self) -> None:
        self.kept.clear()

    def tensors(self) -> Iterator[Tensor]:
        """All that it holds."""
        for output in self.kept.values():
            yield from tensors_in(output.factors)


class ModuleReuse:
    """Runs forwards in which some modules return what they returned before.

    Args:
        model: the transformer.
        units: its modules, or those of them that count.
        make_policy: from the number of steps to the policy of a generation.
    """

    def __init__(
        self,
        model: nn.Module,
        _adapter: Adapter,
        units: list[Unit],
        make_policy: Callable[[int], ModulePolicy],
    ) -> None:
        self._units = units
        self._name = type(model).__name__
        self._make_policy = make_policy
        self._policy = make_policy(0)

    @property
    def by_timestep(self) -> bool:
        return self._policy.by_timestep

    def begin(self, num_steps: int, tally: Counters) -> None:
        _check_seen(self._units, self._name)
        self._policy, self._tally = self._make_policy(num_steps), tally
        self._averaged = False

    def branch(self, name: str) -> ModuleBranch:
        return ModuleBranch(name)

    def begin_step(
        self,
        step: int,
        timestep: float | None,
        branches: Mapping[str, ModuleBranch],
        *,
        guided: bool,
    ) -> None:
        self._step = step
        self._policy.begin_step(step, timestep)
        after = self._policy.mean_after
        if after is not None and step > after and not self._averaged:
            self._averaged = True
            self._average(list(branches.values()), guided)

    def run(
        self, branch: ModuleBranch, _arguments: Mapping[str, Any], _video: Any, original: Original
    ) -> Any:
        seen: set[int] = set()
        with ExitStack() as stack:
            for index, unit in enumerate(self._units):
                stand_in = ModuleStandIn(self, branch, index, unit, seen)
                stack.enter_context(shadowed(unit.block, {unit.name: stand_in}))  # type: ignore[dict-item]
            return original()

    def call(
        self, branch: ModuleBranch, index: int, unit: Unit, args: Any, kwargs: Mapping[str, Any]
    ) -> Any:
        """A module is called."""
        wanted = self._policy.reuses(unit.kind, unit.number)
        kept = branch.kept.get(index)
        if wanted and kept is not None and kept.is_intact:
            self._tally.count(self._step, computed=False)
            return kept.at(self._step)
        if wanted:
            self._tally.missed(branch.name, self._step)
        output = unit.module(*args, **kwargs)
        self._tally.count(self._step, computed=True)
        if wanted or self._policy.keeps(unit.kind, unit.number):
            order = self._policy.order(self._step)
            branch.kept[index] = kept_output(output, self._step, kept, order)
        else:
            branch.kept.pop(index, None)
        return output

    def _average(self, branches: list[ModuleBranch], guided: bool) -> None:
        """What was kept becomes the mean over the branches, or over the halves of the batch."""
        if len(branches) > 1:
            for index in set.intersection(*(set(branch.kept) for branch in branches)):
                values = [branch.kept[index].value for branch in branches]
                mean = _mean(values)
                for branch in branches if mean is not None else ():
                    branch.kept[index] = kept_output(mean, self._step)
        elif guided and branches:
            (branch,) = branches
            for index, output in branch.kept.items():
                branch.kept[index] = kept_output(_mean_of_halves(output.value), self._step)


class ModuleStandIn:
    """Stands for a module during one forward."""

    def __init__(
        self, reuse: ModuleReuse, branch: ModuleBranch, index: int, unit: Unit, seen: set[int]
    ) -> None:
        self._reuse, self._branch, self._index, self._unit = reuse, branch, index, unit
        self._seen = seen

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._index in self._seen:
            raise RuntimeError(
                f"{type(self._unit.block).__name__}.{self._unit.name} ran more than once in its "
                "block (chunked?), so that its output cannot be kept; switch chunking off"
            )
        self._seen.add(self._index)
        return self._reuse.call(self._branch, self._index, self._unit, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._unit.module, name)


_WORDS = {
    "spatial": "attention of its own over space",
    "temporal": "attention over time alone",
    "cross": "cross attention",
    "mlp": "MLP that is known",
}


def _check_seen(units: list[Unit], model: str) -> None:
    if any(is_compiled(unit.block) for unit in units):
        raise ValueError(
            f"the blocks of this {model} are compiled, which hides their modules; a method that "
            "reuses modules needs them uncompiled"
        )


def _mean(values: list[Any]) -> Any:
    """Of outputs of one shape; None where they have several shapes."""
    first = values[0]
    if isinstance(first, list | tuple):
        means = [_mean(list(items)) for items in zip(*values, strict=True)]
        return None if any(mean is None for mean in means) else type(first)(means)
    if any(value.shape != first.shape for value in values):
        return None
    return torch.stack(values).mean(0)


def _mean_of_halves(value: Any) -> Any:
    """Each half of a batch becomes the mean of both; as it is where it has no halves."""
    if isinstance(value, list | tuple):
        return type(value)(_mean_of_halves(item) for item in value)
    if value.shape[0] % 2:
        return value
    mean = torch.stack(value.chunk(2)).mean(0)
    return torch.cat([mean, mean])
