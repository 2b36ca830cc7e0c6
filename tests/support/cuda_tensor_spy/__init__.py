"""CUDA tensors without a GPU, and a spy that records where the host would wait for the GPU.

    with fake_cuda(), SyncSpy() as spy:
        to_fake_cuda(model)(torch.zeros(2, 3, device="cuda"))
    assert spy.waits == []

This is a first check of code for GPUs. There is no device and no kernel runs, so it cannot show
what torch's CUDA allocator or a driver do.
"""

from .device import fake_cuda, to_fake_cuda
from .guard import why_not
from .spy import SyncSpy
from .waits import Wait

__all__ = ["SyncSpy", "Wait", "fake_cuda", "to_fake_cuda", "why_not"]
