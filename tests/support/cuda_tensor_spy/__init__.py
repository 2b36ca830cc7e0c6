"""CUDA tensors without a GPU, and a spy that notes where the host would wait for it.

    with fake_cuda(), SyncSpy() as spy:
        to_fake_cuda(model)(torch.zeros(2, 3, device="cuda"))
    assert spy.waits == []

A first check of code for GPUs, not the last: there is no device here, no kernel runs, and what
torch's CUDA allocator or a driver do is not seen.
"""

from .device import fake_cuda, to_fake_cuda
from .guard import why_not
from .spy import SyncSpy
from .waits import Wait

__all__ = ["SyncSpy", "Wait", "fake_cuda", "to_fake_cuda", "why_not"]
