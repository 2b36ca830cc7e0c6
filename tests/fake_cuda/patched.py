"""What a patched model needs of a device, doubled: memory for its cache, and its decisions.

A kernel that has not run decides nothing, so decisions come from the test. All other code of the
package runs as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch

from adacache_kernels import arena, meter, plain_arena
from adacache_kernels.plain_arena import PlainArena
from adacache_kernels.policies import Decision

Rate = Callable[[int], int]
"""From a computed step to the number of steps until the next one."""


@contextmanager
def fake_parts(rate: Rate = lambda step: 3) -> Iterator[None]:
    """Caches lie in fake tensors, and decisions are those of `rate`; inside of `fake_cuda`."""
    with (
        mock.patch.object(arena, "_make_arena", _plain_arena),
        mock.patch.object(plain_arena, "_current_stream", lambda device: None),
        mock.patch.object(meter.Meter, "read", _reader(rate)),
    ):
        yield


def _plain_arena(device: torch.device, budget: int, chunk_bytes: int) -> PlainArena:
    return PlainArena(device, budget, chunk_bytes)


def _reader(rate: Rate) -> Callable[[meter.Meter], Decision | None]:
    def read(self: meter.Meter) -> Decision | None:
        if not self._undecided:
            return None
        self._undecided = False
        return Decision(step=self._step, rate=rate(self._step), distance=0.1, raw_distance=0.1,
                        motion=1.0, not_finite=False, zero_denominator=False)

    return read
