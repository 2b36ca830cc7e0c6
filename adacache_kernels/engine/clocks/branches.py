"""The guidance branches of one generation: by name, by conditions, and only then by order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..evidence.conditions import Conditions

MOST_BRANCHES = 64
"""A generation has at most a few windows with two or three branches each. More different calls mean
that the conditions change with every call."""


@dataclass
class Branch:
    """One guidance branch.

    Args:
        name: its name in the generation.
        context: the name of its `cache_context`; None outside of any.
        conditions: the conditions of its last call.
        number: changes with the conditions.
        is_ambiguous: True if one step had two calls that cannot be told apart.
    """

    name: str
    context: str | None
    conditions: Conditions
    number: int
    is_ambiguous: bool = False


class Branches:
    """The branches of a generation, in the order of their first calls."""

    def __init__(self) -> None:
        self._all: dict[str, Branch] = {}
        self._number = 0

    def __len__(self) -> int:
        return len(self._all)

    @property
    def names(self) -> set[str]:
        """Return the names of all branches."""
        return set(self._all)

    def with_conditions(self, context: str | None, arguments: Mapping[str, Any]) -> list[Branch]:
        """Return the branches of this context whose last call had the same conditions."""
        return [
            branch
            for branch in self._of(context)
            if branch.conditions.difference(arguments) is None
        ]

    def first_unseen(self, context: str | None, seen: list[str]) -> Branch | None:
        """Return the first branch of this context that had no call in the present step."""
        return next((branch for branch in self._of(context) if branch.name not in seen), None)

    def change(self, branch: Branch, arguments: Mapping[str, Any]) -> str:
        """Give a branch other conditions; return the name of an argument that has changed."""
        difference = branch.conditions.difference(arguments)
        branch.conditions = Conditions(arguments)
        branch.number = self._next_number()
        return difference or ""

    def add(self, context: str | None, arguments: Mapping[str, Any]) -> Branch:
        """Add a branch."""
        count = len(self._of(context))
        name = str(count) if context is None else context
        if context is not None and count:
            name = f"{context}/{count}"
        branch = Branch(name, context, Conditions(arguments), self._next_number())
        self._all[name] = branch
        return branch

    def _of(self, context: str | None) -> list[Branch]:
        return [branch for branch in self._all.values() if branch.context == context]

    def _next_number(self) -> int:
        self._number += 1
        return self._number
