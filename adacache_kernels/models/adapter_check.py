"""Check that a model has everything that an adapter reads: a name is no proof.

Other repositories have classes of the same name, and block lists with the same parameters, whose
forward takes other arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import nn

from .adapter import Adapter, BlockList
from .block_calls import Parameters


def adapter_of(known: Adapter | Callable[[nn.Module], Adapter], model: nn.Module) -> Adapter | None:
    """Return the adapter, or the one that a function makes for the model; None if it cannot.

    Raises:
        ValueError: the function refuses the model.
    """
    if isinstance(known, Adapter):
        return known
    try:
        return known(model)
    except (AttributeError, KeyError, TypeError):
        return None  # The model has not the parts or settings that the function reads.


def fits(model: nn.Module, adapter: Adapter) -> bool:
    """Return True if the model has everything that the adapter reads."""
    return next(missing(model, adapter), None) is None


def missing(model: nn.Module, adapter: Adapter) -> Iterator[str]:
    """Yield what the adapter reads and the model does not have, as text."""
    for name in adapter.frames.arguments:
        if name not in Parameters(model).names:
            yield f"parameter {name} of the model's forward"
    for path in adapter.frames.attributes:
        if not has_attribute(model, path):
            yield f"attribute {path} of the model"
    for blocks in adapter.lists:
        yield from _missing_in_list(model, adapter, blocks)


def has_attribute(owner: object, path: str) -> bool:
    """Return True if the object has the attribute at a dotted path; "" names the object itself."""
    for name in path.split(".") if path else ():
        if not hasattr(owner, name):
            return False
        owner = getattr(owner, name)
    return True


def _missing_in_list(model: nn.Module, adapter: Adapter, blocks: BlockList) -> Iterator[str]:
    modules = blocks.modules(model)
    if not modules:
        yield f"block in {blocks.name}"
    residuals = [
        residual
        for residual in adapter.residuals.values()
        if blocks.attribute in residual.lists or blocks.name in residual.lists
    ]
    streams = [stream.parameter for stream in (*blocks.streams, *blocks.passed)]
    arguments = [*streams, *(name for residual in residuals for name in residual.arguments)]
    attributes = [
        name
        for residual in residuals
        for name in (*residual.taps, *residual.parameters)
        if name not in residual.optional
    ]
    # Blocks of one class differ in nothing that is checked.
    kinds = {type(block): (index, block) for index, block in modules.items()}
    for index, block in kinds.values():
        place = f"{blocks.attribute}[{index}]"
        for name in arguments:
            if name not in Parameters(block).names:
                yield f"parameter {name} of the forward of {place}"
        for name in attributes:
            if not has_attribute(block, name):
                yield f"attribute {name} of {place}"
