"""Find the block lists of a model of an unknown class from its structure alone."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import nn

from .block_calls import registered, whole_list
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
    """An `nn.ModuleList`, or an `nn.ModuleDict`, that may hold the blocks.

    Args:
        path: its dotted name in the model.
        block: class of its first block.
        count: number of blocks.
        parameters: number of parameters of all blocks.
        objection: the reason why it is not chosen; empty if there is none.
        is_unlikely: True if its name is the only objection, so the user may know better.
        is_dict: True if it is an `nn.ModuleDict`.
    """

    path: str
    block: str
    count: int
    parameters: int
    objection: str = ""
    is_unlikely: bool = False
    is_dict: bool = False

    def __str__(self) -> str:
        reason = f": {self.objection}" if self.objection else ""
        return f"{self.path}, {self.count} {self.block}, {self.parameters:,} parameters{reason}"


def candidates(model: nn.Module) -> list[Candidate]:
    """Return all lists that may hold the blocks, with the objection to each."""
    all_lists = [_candidate(model, path, blocks) for path, blocks in outermost_lists(model)]
    if any(not candidate.objection and not candidate.is_dict for candidate in all_lists):
        all_lists = [_beside_lists(candidate) for candidate in all_lists]
    largest = max((c.parameters for c in all_lists if not c.objection), default=0)
    return [_compared(candidate, largest) for candidate in all_lists]


def choose_block_lists(model: nn.Module, blocks: Sequence[str] = ()) -> list[str]:
    """Return the names of the lists to probe.

    Args:
        model: the model.
        blocks: names that the user gave; if empty, all candidates without an objection are taken.

    Raises:
        ValueError: there is no candidate; a name is not that of a list of blocks.
    """
    name, lists = type(model).__name__, dict(outermost_lists(model))
    if blocks:
        unknown = [path for path in blocks if path not in lists]
        if unknown:
            raise ValueError(
                f"blocks={unknown[0]!r}: {name} has no list of blocks of that name; "
                f"{_listed(model)}"
            )
        return list(blocks)
    if not lists:
        raise ValueError(
            f"{name} is not supported, and it has no list of blocks (an nn.ModuleList of two or "
            "more modules that have submodules and the same forward signature)"
        )
    taken = [candidate.path for candidate in candidates(model) if not candidate.objection]
    if not taken:
        likely = [candidate for candidate in candidates(model) if candidate.is_unlikely]
        advice = likely[0].path if len(likely) == 1 else ""
        raise ValueError(
            unclear_message(model, "no list in it is certain to hold its blocks", advice)
        )
    return taken


def unclear_message(model: nn.Module, reason: str, advice: str = "") -> str:
    """Return the error message for a model whose blocks were not detected.

    Args:
        model: the model.
        reason: why detection failed, as the end of a sentence.
        advice: a list that can be cached if it is named; empty if none is known.
    """
    message = f"{type(model).__name__} is not a known class, and {reason}. {_listed(model)}"
    if not advice:
        return f"{message}. So it cannot be cached"
    return f'{message}. One of them can be cached alone: ak.patch(model, blocks="{advice}")'


def outermost_lists(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, list[nn.Module]]]:
    """Yield the lists of blocks that are not inside other lists, with their dotted names."""
    for name, child in model.named_children():
        path, blocks = f"{prefix}{name}", whole_list(model, name)
        if blocks and _holds_blocks(blocks):
            yield path, blocks
        elif not isinstance(child, nn.ModuleList):
            yield from outermost_lists(child, f"{path}.")


def _holds_blocks(blocks: list[nn.Module]) -> bool:
    if len(blocks) < 2 or not all(next(block.children(), None) is not None for block in blocks):
        return False
    return not any(isinstance(block, nn.ModuleList | nn.ModuleDict) for block in blocks)


def _candidate(model: nn.Module, path: str, blocks: list[nn.Module]) -> Candidate:
    signatures = {str(inspect.signature(own_forward(block))) for block in blocks}
    own = {parameter for block in blocks for parameter in block.parameters()}
    parameters = sum(parameter.numel() for parameter in own)
    objection, is_unlikely = "", False
    words = [word for word in OTHER_LISTS if word in path.lower()]
    if words:
        is_unlikely = True
        objection = f"its name ({words[0]}) suggests that the hidden state does not run through it"
    elif len(signatures) > 1:
        objection = "its modules take different arguments"
    elif isinstance(registered(model, path.rpartition(".")[0]), nn.ModuleDict):
        objection = "it is in a ModuleDict, where it cannot be replaced"
    kind, is_dict = type(blocks[0]).__name__, isinstance(registered(model, path), nn.ModuleDict)
    return Candidate(path, kind, len(blocks), parameters, objection, is_unlikely, is_dict)


def _beside_lists(candidate: Candidate) -> Candidate:
    if candidate.objection or not candidate.is_dict:
        return candidate
    return replace(candidate, objection="it is an nn.ModuleDict beside lists of blocks")


def _compared(candidate: Candidate, largest: int) -> Candidate:
    if candidate.objection or candidate.parameters >= LEAST_SHARE * largest:
        return candidate
    share = candidate.parameters / largest
    return replace(candidate, objection=f"it has {share:.2f} of the parameters of the largest one")


def _listed(model: nn.Module) -> str:
    names = "; ".join(map(str, candidates(model)))
    return f"Lists in it: {names}" if names else "It has no list of blocks"
