"""Find the block lists of a model of an unknown class from its structure alone."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import nn

from .other_libraries.forward_wrappers import own_forward

# Words in the names of lists that the hidden state does not run through.
OTHER_LISTS = (
    "refiner",
    "text",
    "txt",
    "context",
    "caption",
    "audio",
    "motion",
    "face",
    "vace",
    "encoder",
    "controlnet",
)
LEAST_SHARE = 0.25
"""The least share of the parameters of the largest list. In released models, refiners have 0.014 to
0.067 of them, and lists that must be cached 0.24 and more."""


@dataclass(frozen=True)
class Candidate:
    """An `nn.ModuleList` that may hold the blocks.

    Args:
        path: its dotted name in the model.
        block: class of its first block.
        count: number of blocks.
        parameters: number of parameters of all blocks.
        objection: the reason why it is not chosen; empty if there is none.
    """

    path: str
    block: str
    count: int
    parameters: int
    objection: str = ""

    def __str__(self) -> str:
        reason = f": {self.objection}" if self.objection else ""
        return f"{self.path}, {self.count} {self.block}, {self.parameters:,} parameters{reason}"


def candidates(model: nn.Module) -> list[Candidate]:
    """Return all lists that may hold the blocks, with the objection to each."""
    all_lists = [_candidate(model, path, blocks) for path, blocks in outermost_lists(model)]
    largest = max((c.parameters for c in all_lists if not c.objection), default=0)
    return [_compared(candidate, largest) for candidate in all_lists]


def choose_block_lists(model: nn.Module, blocks: Sequence[str] = ()) -> list[str]:
    """Return the names of the lists to probe.

    Args:
        model: the model.
        blocks: names that the user gave; if empty, all candidates without an objection are taken.

    Raises:
        ValueError: there is no candidate; a name is not that of a list of blocks; a list is not an
            attribute of the model itself.
    """
    name, lists = type(model).__name__, dict(outermost_lists(model))
    if blocks:
        unknown = [path for path in blocks if path not in lists]
        if unknown:
            raise ValueError(
                f"blocks={unknown[0]!r}: {name} has no list of blocks of that name; "
                f"{_listed(model)}"
            )
        return _reachable(name, list(blocks))
    if not lists:
        raise ValueError(
            f"{name} is not supported, and it has no list of blocks (an nn.ModuleList of two or "
            "more modules that have submodules and the same forward signature)"
        )
    taken = [candidate.path for candidate in candidates(model) if not candidate.objection]
    if not taken:
        raise ValueError(unclear_message(model, "no list in it is certain to hold its blocks"))
    return _reachable(name, taken)


def unclear_message(model: nn.Module, reason: str) -> str:
    """Return the error message for a model whose blocks were not detected.

    Args:
        model: the model.
        reason: why detection failed, as the end of a sentence.
    """
    paths = [candidate.path for candidate in candidates(model)]
    example = next((path for path in paths if "." not in path), "transformer_blocks")
    return (
        f"{type(model).__name__} is not a known class, and {reason}. {_listed(model)}. "
        "Name the lists that the hidden state runs through, for example "
        f'ak.patch(model, blocks="{example}")'
    )


def outermost_lists(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.ModuleList]]:
    """Yield the lists of blocks that are not inside other lists, with their dotted names."""
    for name, child in model.named_children():
        path = f"{prefix}{name}"
        if isinstance(child, nn.ModuleList) and _holds_blocks(child):
            yield path, child
        elif not isinstance(child, nn.ModuleList):
            yield from outermost_lists(child, f"{path}.")


def _holds_blocks(blocks: nn.ModuleList) -> bool:
    if len(blocks) < 2 or not all(next(block.children(), None) is not None for block in blocks):
        return False
    # Containers such as a ModuleDict have no forward of their own.
    return all(callable(getattr(block, "forward", None)) for block in blocks)


def _candidate(model: nn.Module, path: str, blocks: nn.ModuleList) -> Candidate:
    signatures = {str(inspect.signature(own_forward(block))) for block in blocks}
    parameters = sum(parameter.numel() for parameter in blocks.parameters())
    objection = ""
    words = [word for word in OTHER_LISTS if word in path.lower()]
    if words:
        objection = f"its name ({words[0]}) suggests that the hidden state does not run through it"
    elif len(signatures) > 1:
        objection = "its modules take different arguments"
    elif isinstance(model.get_submodule(path.rpartition(".")[0]), nn.ModuleDict):
        objection = "it is in a ModuleDict, where it cannot be replaced"
    return Candidate(path, type(blocks[0]).__name__, len(blocks), parameters, objection)


def _compared(candidate: Candidate, largest: int) -> Candidate:
    if candidate.objection or candidate.parameters >= LEAST_SHARE * largest:
        return candidate
    share = candidate.parameters / largest
    return replace(candidate, objection=f"it has {share:.2f} of the parameters of the largest one")


def _reachable(name: str, paths: list[str]) -> list[str]:
    """Return `paths` if they are attributes of the model itself; other lists cannot be replaced."""
    nested = [path for path in paths if "." in path]
    if nested:
        owner, _, attribute = nested[0].rpartition(".")
        raise ValueError(
            f"the list {nested[0]} is inside the submodule {owner} of {name}; patch that one: "
            f"ak.patch(model.{owner}, blocks={attribute!r})"
        )
    return paths


def _listed(model: nn.Module) -> str:
    names = "; ".join(map(str, candidates(model)))
    return f"Lists in it: {names}" if names else "It has no list of blocks"
