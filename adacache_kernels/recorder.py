"""Records the residuals of unpatched steps, as a sample of their elements."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Recorder:
    """Inner products of the residuals of all steps of a generation.

        gram[s, t] = sum over branches of <R_s, R_t>, over the same sample of their elements

    R is what the block lists add to the video, each brought to [videos, frames, tokens, channels].

    `motion` is the motion score of each step's residual, of the first branch and the last list.

    Args:
        sample: elements that are kept of a residual, or all if it has fewer.
    """

    def __init__(self, sample: int) -> None:
        self._sample = sample
        self._kept: dict[str, dict[str, list[Tensor]]] = {}
        self.motion: list[float] = []

    def take(self, branch: str, residuals: Mapping[str, Tensor]) -> None:
        """The residuals of one computed step, by block list."""
        lists = self._kept.setdefault(branch, {})
        if branch == next(iter(self._kept)):
            # Motion regularisation looks at the last location.
            self.motion.append(_motion(list(residuals.values())[-1]))
        for name, residual in residuals.items():
            flat = residual.reshape(-1)
            lists.setdefault(name, []).append(flat[self._indices(flat)].float().cpu())

    def grams(self) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
        """Of the sum of all lists, and of each list; [steps, steps].

        Raises:
            ValueError: branches that ran in different steps.
        """
        steps = {len(kept) for lists in self._kept.values() for kept in lists.values()}
        if len(steps) != 1:
            raise ValueError(f"branches ran {sorted(steps)} times; each must run in every step")
        stacks = [
            {name: torch.stack(kept).double() for name, kept in lists.items()}
            for lists in self._kept.values()
        ]
        names = list(stacks[0])
        total = sum(_products(sum(lists[name] for name in names)) for lists in stacks)
        each = {name: sum(_products(lists[name]) for lists in stacks) for name in names}
        return np.asarray(total), {name: np.asarray(gram) for name, gram in each.items()}

    def _indices(self, flat: Tensor) -> Tensor:
        count = flat.numel()
        if count <= self._sample:
            return torch.arange(count, device=flat.device)
        # The same elements at every step: the generator begins anew each time.
        generator = torch.Generator().manual_seed(count)
        return torch.randint(count, (self._sample,), generator=generator).to(flat.device)


def _motion(residual: Tensor) -> float:
    """||R[1:] - R[:-1]|| / (||R[1:]|| + ||R[:-1]||) over the frames; 0 for a single one."""
    later, earlier = residual[:, 1:].float(), residual[:, :-1].float()
    size = float(later.abs().sum() + earlier.abs().sum())
    return float((later - earlier).abs().sum()) / size if size else 0.0


def _products(rows: Tensor | int) -> NDArray[np.float64]:
    assert isinstance(rows, Tensor)
    products: NDArray[np.float64] = (rows @ rows.T).numpy()
    return products
