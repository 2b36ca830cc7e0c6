"""Codebooks, which map a distance to a rate."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from .json_file import short

HIGHEST_RATE = 100_000
"""Highest rate of a codebook, more steps than a generation has."""

_HELP = "a codebook is {threshold: rate}, thresholds rising, rates integers >= 1"


@dataclass(frozen=True)
class Codebook:
    """Pairs of a distance threshold and a rate (arXiv 2411.02397, "Adaptive Caching").

        rate(c) = rates[i] of the first i with c < thresholds[i], else rates[-1]

    with `c` the distance.

    Args:
        thresholds: distances, strictly rising; the last one may be infinite.
        rates: numbers of steps from a computed step to the next one, at least 1.
    """

    thresholds: tuple[float, ...]
    rates: tuple[int, ...]

    def __iter__(self) -> Iterator[tuple[float, int]]:
        return zip(self.thresholds, self.rates, strict=True)

    def __len__(self) -> int:
        return len(self.rates)

    def rate(self, distance: float) -> int:
        """Return the steps from a computed step to the next one; 1 if the distance is NaN."""
        if math.isnan(distance):
            return 1
        return next((r for t, r in self if distance < t), self.rates[-1])

    def capped(self, most: int) -> Codebook:
        """Return a codebook with the same thresholds, and no rate above `most`."""
        return Codebook(self.thresholds, tuple(min(rate, most) for rate in self.rates))


def parse_codebook(value: object) -> Codebook:
    """Return the codebook of a dict or of a sequence of pairs (threshold, rate).

    A threshold of None is infinite.

    Raises:
        TypeError: `value` is not a dict or pairs, or a threshold is not a number.
        ValueError: `value` is empty, thresholds do not rise, or a rate is not an integer of at
            least 1. The message names the entry.
    """
    if isinstance(value, Codebook):
        return value
    pairs = [_pair(entry) for entry in _entries(value)]
    if not pairs:
        raise ValueError(f"the codebook is empty; {_HELP}")
    thresholds = tuple(threshold for threshold, _ in pairs)
    for lower, upper in itertools.pairwise(thresholds):
        if upper <= lower:
            raise ValueError(f"the codebook's threshold {upper} follows {lower}; {_HELP}")
    return Codebook(thresholds, tuple(rate for _, rate in pairs))


def plain_pairs(pairs: Iterable[tuple[float, int]]) -> list[list[float | int | None]]:
    """Return pairs for JSON; an infinite threshold, which JSON lacks, becomes None."""
    return [[None if math.isinf(threshold) else threshold, rate] for threshold, rate in pairs]


def _entries(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return list(value)
    raise TypeError(f"the codebook is {value!r}; {_HELP}, as a dict or a sequence of pairs")


def _pair(entry: object) -> tuple[float, int]:
    if isinstance(entry, str | bytes) or not isinstance(entry, Iterable):
        raise TypeError(f"the codebook holds {entry!r}; {_HELP}")
    items = tuple(entry)
    if len(items) != 2:
        raise ValueError(f"the codebook holds {entry!r}, not a pair; {_HELP}")
    threshold, rate = items
    threshold = math.inf if threshold is None else threshold
    if isinstance(threshold, bool) or not isinstance(threshold, int | float):
        raise TypeError(f"the codebook's threshold {threshold!r} is not a number; {_HELP}")
    if isinstance(threshold, int) and abs(threshold) > sys.float_info.max:
        raise ValueError(f"the codebook's threshold {short(threshold)} is too large; {_HELP}")
    if math.isnan(threshold):
        raise ValueError(f"the codebook's threshold {threshold} is not a number; {_HELP}")
    if isinstance(rate, bool) or not isinstance(rate, int):
        raise ValueError(
            f"the codebook's rate {rate!r} (at {threshold}) is not an integer; {_HELP}"
        )
    if rate < 1:
        raise ValueError(f"the codebook's rate {rate} (at {threshold}) is below 1; {_HELP}")
    if rate > HIGHEST_RATE:
        raise ValueError(
            f"the codebook's rate {short(rate)} (at {threshold}) is above {HIGHEST_RATE}; {_HELP}"
        )
    return float(threshold), rate
