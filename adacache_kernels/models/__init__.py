"""Describe models: where their blocks, streams, layouts and frames are. No caching logic.

It may import ops, and the wings below it.
"""

from __future__ import annotations

from .adapter import Adapter, BlockList, BlockRun, Residual, Stream
from .find_adapter import ADAPTERS, adapter_for
from .find_block_lists import choose_block_lists, unclear_message
from .frames import Frames
from .layout import Layout
from .misfit import Misfit
from .probe.first_forward import Probe
from .probe.unclear import Unclear
from .probe.video_input import GivenFrames, batch_of, check_frames

__all__ = [
    "ADAPTERS",
    "Adapter",
    "BlockList",
    "BlockRun",
    "Frames",
    "GivenFrames",
    "Layout",
    "Misfit",
    "Probe",
    "Residual",
    "Stream",
    "Unclear",
    "adapter_for",
    "batch_of",
    "check_frames",
    "choose_block_lists",
    "unclear_message",
]
