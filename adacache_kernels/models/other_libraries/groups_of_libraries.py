"""Find the groups of ranks that other libraries keep in global variables.

None of these libraries is imported here: a library that was not imported has set up no groups.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from .groups_of_models import VIDEOSYS, cut_of
from .rank_groups import Cut, RankGroup, Role, attribute, is_group


@dataclass(frozen=True)
class Coordinated:
    """A library whose functions return coordinators: objects with a `device_group`.

    Args:
        name: the name for people.
        module: the module with the functions `get_sp_group`, `get_cfg_group` and `get_pp_group`.
        tp_module: the module with `get_tp_group`; empty: the same module.
        cut: how it cuts a video into shards.
    """

    name: str
    module: str
    tp_module: str = ""
    cut: Cut = "sequence"


COORDINATED = (
    Coordinated("xDiT", "xfuser.core.distributed.parallel_state"),
    Coordinated(
        "vLLM-Omni",
        "vllm_omni.diffusion.distributed.parallel_state",
        tp_module="vllm.distributed.parallel_state",
    ),
    # It may cut the frames before the forward, or the tokens in it; each request decides.
    Coordinated(
        "SGLang", "sglang.multimodal_gen.runtime.distributed.parallel_state", cut="unknown"
    ),
    Coordinated("FastVideo", "fastvideo.distributed.parallel_state"),
)
OPEN_SORA = (
    "opensora.acceleration.parallel_states",
    "opensora_base.opensora.acceleration.parallel_states",
)
"""Modules of Open-Sora 1.x, and of its copy in the repository of AdaCache's authors."""
OPEN_SORA_PLAN = (
    ("opensora.utils.parallel_states", "nccl_info"),
    ("opensora.acceleration.parallel_states", "hccl_info"),
)
"""Modules of Open-Sora-Plan, and the variables with the group; the second one is for NPUs."""


def groups_of_libraries(model: nn.Module) -> Iterator[RankGroup]:
    """Yield the groups that imported libraries have set up, also groups of one rank.

    Raises:
        ValueError: a library splits models by their blocks.
    """
    for library in COORDINATED:
        yield from _of_coordinators(library)
    # Open-Sora sets a group in every process, and gives each model this switch.
    if getattr(model, "enable_sequence_parallelism", False):
        for name in OPEN_SORA:
            group = _called(name, "get_sequence_parallel_group")
            yield RankGroup(group, "shards", "Open-Sora", cut_of(model))
    for name, variable in OPEN_SORA_PLAN:
        if _called(name, "get_sequence_parallel_state"):
            group = attribute(sys.modules.get(name), variable, "group")
            # Its pipeline gives each rank a part of the frames.
            yield RankGroup(group, "shards", "Open-Sora-Plan", "unknown")


def padding_of_frames(group: RankGroup) -> int:
    """Return the tokens by which a library has padded each frame, for the forward that runs now."""
    if group.origin != VIDEOSYS or group.cut != "space":
        return 0
    by_name = attribute(sys.modules.get("videosys.core.distributed.comm"), "PAD_DICT") or {}
    return int(by_name.get("spatial", 0))


def _of_coordinators(library: Coordinated) -> Iterator[RankGroup]:
    if library.module not in sys.modules:
        return
    pipeline = _group(library.module, "get_pp_group")
    if is_group(pipeline) and pipeline.size() > 1:
        raise ValueError(
            f"{library.name} splits this model over {pipeline.size()} ranks by its blocks "
            "(pipeline parallelism). No rank sees what all blocks add, so the model cannot be "
            "cached: use sequence parallelism (ulysses or ring), or do not call patch()"
        )
    functions: tuple[tuple[str, str, Role], ...] = (
        (library.module, "get_sp_group", "shards"),
        (library.module, "get_cfg_group", "replicas"),
        (library.tp_module or library.module, "get_tp_group", "replicas"),
    )
    for module, function, role in functions:
        yield RankGroup(_group(module, function), role, library.name, library.cut)


def _group(module: str, function: str) -> Any:
    return attribute(_called(module, function), "device_group")


def _called(module: str, function: str) -> Any:
    """Return what a function of an imported module returns; None if its groups are not set up."""
    call: Callable[[], Any] | None = getattr(sys.modules.get(module), function, None)
    if call is None:
        return None
    try:
        return call()
    except (AssertionError, RuntimeError, ValueError, KeyError):
        return None
