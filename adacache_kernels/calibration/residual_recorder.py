"""A recorder of the residuals of unpatched steps, as a sample of their elements."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..options import Metric


class ResidualRecorder:
    """The inner products of the residuals of all steps of a generation.

        gram[s, t] = sum over branches of <R_s, R_t>, over the same sample of their elements

    R is the residual of the video stream, `[B, F, S, C]` for each block list. `motion` has the
    motion score of each step's residual, of the first branch and the last block list.

    Args:
        sample: elements to store of a residual; a smaller one is stored whole.
    """

    def __init__(self, sample: int) -> None:
        self._sample = sample
        self._residuals: dict[str, dict[str, list[Tensor]]] = {}
        self._metric: dict[tuple[str, int], list[tuple[Tensor, float]]] = {}
        self.motion: list[float] = []

    def take(self, branch: str, residuals: Mapping[str, Tensor]) -> None:
        """Store the residuals of one computed step, `[B, F, S, C]` each, by block list."""
        by_list = self._residuals.setdefault(branch, {})
        if branch == next(iter(self._residuals)):
            # MoReg measures the last location.
            self.motion.append(_motion(list(residuals.values())[-1]))
        for name, residual in residuals.items():
            by_list.setdefault(name, []).append(self._sampled(residual))

    def take_metric(self, block: tuple[str, int], residual: Tensor) -> None:
        """Store the residual `[B, F, S, C]` of the metric block at (block list, index)."""
        stored = self._metric.setdefault(block, [])
        stored.append((self._sampled(residual), _motion(residual)))

    def distances(self, metric: Metric) -> NDArray[np.float64]:
        """Return `[step, later step]`, ||R_step - R_later|| / ||R_step||.

        It is the mean over the metric blocks.

        Raises:
            ValueError: a step has no measurement.
        """
        self._check_measured()
        by_block = [
            _distances(torch.stack([sample for sample, _ in stored]), metric)
            for stored in self._metric.values()
        ]
        return np.asarray(sum(by_block) / len(by_block))

    @property
    def metric_motion(self) -> list[float]:
        """Return the motion score of the last metric block's residual at each step."""
        self._check_measured()
        return [score for _, score in list(self._metric.values())[-1]]

    def _check_measured(self) -> None:
        steps = {len(stored) for stored in self._metric.values()}
        if steps != {len(self.motion)}:
            raise ValueError(
                "no distances of a metric block were measured, but a codebook needs them; "
                'calibrate without measure="forecast-error", or for kind="profile"'
            )

    def grams(self) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
        """Return the Gram matrix of the sum of all block lists, and those of each list.

        Each is `[steps, steps]`.

        Raises:
            ValueError: the branches ran in different steps.
        """
        branches = self._residuals.values()
        steps = {len(stored) for by_list in branches for stored in by_list.values()}
        if len(steps) != 1:
            raise ValueError(f"branches ran {sorted(steps)} times; each must run in every step")
        stacks = [
            {name: torch.stack(stored).double() for name, stored in by_list.items()}
            for by_list in branches
        ]
        names = list(stacks[0])
        total = sum(_products(sum(rows[name] for name in names)) for rows in stacks)
        by_name = {name: sum(_products(rows[name]) for rows in stacks) for name in names}
        return np.asarray(total), {name: np.asarray(gram) for name, gram in by_name.items()}

    def _sampled(self, residual: Tensor) -> Tensor:
        """Return the same elements of all residuals of one size, in float32 on the host."""
        flat = residual.reshape(-1)
        count = flat.numel()
        if count > self._sample:
            # A new generator each time: every step gives the same elements.
            generator = torch.Generator().manual_seed(count)
            indices = torch.randint(count, (self._sample,), generator=generator)
            flat = flat[indices.to(flat.device)]
        # A copy: the next step may overwrite the residual's memory.
        return flat.to("cpu", torch.float32, copy=True)


def _motion(residual: Tensor) -> float:
    """Return ||R[1:] - R[:-1]|| / (||R[1:]|| + ||R[:-1]||) over the frames of `[B, F, S, C]`.

    It is 0 for a single frame.
    """
    later, earlier = residual[:, 1:].float(), residual[:, :-1].float()
    size = float(later.abs().sum() + earlier.abs().sum())
    return float((later - earlier).abs().sum()) / size if size else 0.0


def _distances(rows: Tensor, metric: Metric) -> NDArray[np.float64]:
    """Return the distances `[steps, steps]` of `rows [steps, elements]`."""
    if metric == "cosine":
        unit = rows / rows.norm(dim=1, keepdim=True)
        distances = (1 - unit @ unit.T).clamp(min=0)
    else:
        power = 1.0 if metric == "l1" else 2.0
        distances = torch.cdist(rows, rows, p=power) / rows.norm(p=power, dim=1)[:, None]
    return np.asarray(distances.double())


def _products(rows: Tensor | int) -> NDArray[np.float64]:
    """Return the inner products `[steps, steps]` of `rows [steps, elements]`."""
    assert isinstance(rows, Tensor)
    products: NDArray[np.float64] = (rows @ rows.T).numpy()
    return products
