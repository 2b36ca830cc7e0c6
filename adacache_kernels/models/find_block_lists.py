"""Block lists of a model of which nothing is known, from its structure alone."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from .other_libraries.forward_wrappers import own_forward

# Parts of names of lists that the hidden stream does not run through.
NOT_THE_STREAM = (
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
"""Of the parameters of the largest list. At released sizes refiners have 0.014 to 0.067, and what
has to be cached 0.24 and more."""


@dataclass(frozen=True)
class Candidate:
    """An `nn.ModuleList` that may hold the blocks.

    Args:
        path: its dotted name in the model.
        block: class of its first block.
        count: of its blocks.
        parameters: in all of them.
        against: why it is not taken; empty if nothing is against it.
    """

    path: str
    block: str
    count: int
    parameters: int
    against: str = ""

    def __str__(self) -> str:
        reason = f": {self.against}" if self.against else ""
        return f"{self.path}, {self.count} {self.block}, {self.parameters:,} parameters{reason}"


def candidates(model: nn.Module) -> list[Candidate]:
    """All lists that may hold blocks, and what is against each."""
    found = [_candidate(model, path, blocks) for path, blocks in outermost_lists(model)]
    largest = max((c.parameters for c in found if not c.against), default=0)
    return [_weighed(candidate, largest) for candidate in found]


def choose_block_lists(model: nn.Module, blocks: Sequence[str] = ()) -> list[str]:
    """Names of the lists to probe: `blocks` if there are such, else the candidates that nothing is
    against.

    Raises:
        ValueError: none; names that are no lists of blocks; lists that cannot be stood in for.
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
            f"{name} is not supported, and no list of blocks was found in it: an nn.ModuleList of "
            "two or more modules with modules inside and one forward signature"
        )
    taken = [candidate.path for candidate in candidates(model) if not candidate.against]
    if not taken:
        raise ValueError(unclear_message(model, "nothing in it is surely its list of blocks"))
    return _reachable(name, taken)


def unclear_message(model: nn.Module, reason: str) -> str:
    """The message that says why detection gave up, what there is, and what settles it."""
    paths = [candidate.path for candidate in candidates(model)]
    example = next((path for path in paths if "." not in path), "transformer_blocks")
    return (
        f"{type(model).__name__} is not a class that is known, and {reason}. {_listed(model)}. "
        "Name those that the hidden state runs through, for example "
        f'ak.patch(model, blocks="{example}")'
    )


def outermost_lists(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.ModuleList]]:
    """Lists of blocks that are not inside other ones, by dotted name."""
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
    against = ""
    named = [word for word in NOT_THE_STREAM if word in path.lower()]
    if named:
        against = f"by its name ({named[0]}) it is beside the hidden state"
    elif len(signatures) > 1:
        against = "its modules take different arguments"
    elif isinstance(model.get_submodule(path.rpartition(".")[0]), nn.ModuleDict):
        against = "it is in a ModuleDict, where nothing can stand in for it"
    return Candidate(path, type(blocks[0]).__name__, len(blocks), parameters, against)


def _weighed(candidate: Candidate, largest: int) -> Candidate:
    if candidate.against or candidate.parameters >= LEAST_SHARE * largest:
        return candidate
    share = candidate.parameters / largest
    against = f"it has {share:.2f} of the parameters of the largest one"
    values = (candidate.path, candidate.block, candidate.count, candidate.parameters)
    return Candidate(*values, against)


def _reachable(name: str, paths: list[str]) -> list[str]:
    """Lists that are attributes of the model itself, which alone can be stood in for."""
    nested = [path for path in paths if "." in path]
    if nested:
        owner, _, attribute = nested[0].rpartition(".")
        raise ValueError(
            f"the list {nested[0]} is inside the submodule {owner} of {name}; patch that one: "
            f"ak.patch(model.{owner}, blocks={attribute!r})"
        )
    return paths


def _listed(model: nn.Module) -> str:
    found = "; ".join(map(str, candidates(model)))
    return f"Lists in it: {found}" if found else "There is none in it"
