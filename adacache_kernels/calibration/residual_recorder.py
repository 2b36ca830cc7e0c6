"""Records the residuals of unpatched steps, as a sample of their elements."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..options import Metric


class ResidualRecorder:
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
        self._metric: dict[tuple[str, int], list[tuple[Tensor, float]]] = {}
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

    def take_metric(self, place: tuple[str, int], residual: Tensor) -> None:
        """The residual that the distances of a computed step are of, at one location."""
        kept = self._metric.setdefault(place, [])
        flat = residual.reshape(-1)
        kept.append((flat[self._indices(flat)].float().cpu(), _motion(residual)))

    def distances(self, metric: Metric) -> NDArray[np.float64]:
        """[step, later step], ||R_step - R_later|| / ||R_step||, mean over the locations.

        Raises:
            ValueError: nothing was measured in some step.
        """
        self._check_measured()
        found = [
            _distances(torch.stack([sample for sample, _ in kept]), metric)
            for kept in self._metric.values()
        ]
        return np.asarray(sum(found) / len(found))

    @property
    def metric_motion(self) -> list[float]:
        """The motion score of the measured residual at each step, at the last location."""
        self._check_measured()
        return [score for _, score in list(self._metric.values())[-1]]

    def _check_measured(self) -> None:
        steps = {len(kept) for kept in self._metric.values()}
        if steps != {len(self.motion)}:
            raise ValueError(
                "no distances of a metric block were measured; a codebook goes by them, so "
                'calibrate without measure="forecast-error", or for kind="profile"'
            )

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


def _distances(rows: Tensor, metric: Metric) -> NDArray[np.float64]:
    if metric == "cosine":
        unit = rows / rows.norm(dim=1, keepdim=True)
        found = (1 - unit @ unit.T).clamp(min=0)
    else:
        power = 1.0 if metric == "l1" else 2.0
        found = torch.cdist(rows, rows, p=power) / rows.norm(p=power, dim=1)[:, None]
    return np.asarray(found.double())


def _products(rows: Tensor | int) -> NDArray[np.float64]:
    assert isinstance(rows, Tensor)
    products: NDArray[np.float64] = (rows @ rows.T).numpy()
    return products
