"""Groups of ranks, found by the structures in which other libraries keep them.

A backend that communicates with nobody gives this one process a world of four ranks. The libraries
are doubles: modules and attributes with the names that their sources have.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy, fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

from adacache_kernels.models.other_libraries.find_groups import find_rank_groups
from adacache_kernels.models.other_libraries.rank_groups import RankGroup, check_given
from tests.support.fake_world import fake_world

Found = list[tuple[str, tuple[int, ...], str]]


@pytest.fixture
def world() -> Iterator[Any]:
    """Make this process rank 0 of four ranks."""
    with fake_world(4) as group_of_all:
        yield group_of_all


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes a module with given attributes look imported."""

    def add(name: str, **attributes: Any) -> None:
        module = ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)

    return add


def group(*ranks: int) -> Any:
    return dist.new_group(list(ranks))


def found(model: nn.Module, given: Any = None) -> Found:
    return [(each.role, each.ranks, each.origin) for each in groups(model, given)]


def groups(model: nn.Module, given: Any = None) -> Sequence[RankGroup]:
    return find_rank_groups(model, check_given(given))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 8), nn.Linear(8, 8)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(2))


class SpaceAndTime(nn.Module):
    """The block lists of STDiT3."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial_blocks = nn.ModuleList([Block()])
        self.temporal_blocks = nn.ModuleList([Block()])


def with_attributes(model: nn.Module, **attributes: Any) -> nn.Module:
    for name, value in attributes.items():
        setattr(model, name, value)
    return model


def not_set_up() -> Any:
    raise AssertionError("the group is not initialized")


def coordinator(*ranks: int) -> Any:
    value = SimpleNamespace(device_group=group(*ranks))
    return lambda: value


def test_one_process_is_not_searched() -> None:
    class Untouchable(nn.Module):
        def modules(self) -> Iterator[nn.Module]:
            raise AssertionError("a search costs time at the beginning of each generation")

    assert groups(Untouchable()) == ()


def test_a_model_that_no_library_spreads_has_no_groups(world: Any) -> None:
    assert found(Model()) == []


def test_data_parallel_ranks_decide_alone(world: Any) -> None:
    wrapped = DistributedDataParallel(Model())
    assert found(wrapped) == found(wrapped.module) == []


LIBRARIES = {
    "xfuser.core.distributed.parallel_state": ("xDiT", ""),
    "vllm_omni.diffusion.distributed.parallel_state": (
        "vLLM-Omni",
        "vllm.distributed.parallel_state",
    ),
    "sglang.multimodal_gen.runtime.distributed.parallel_state": ("SGLang", ""),
    "fastvideo.distributed.parallel_state": ("FastVideo", ""),
}


@pytest.mark.parametrize("module", LIBRARIES)
def test_coordinators(module: str, world: Any, imported: Any) -> None:
    library, of_tensors = LIBRARIES[module]
    functions = {
        "get_sp_group": coordinator(0, 1),
        "get_cfg_group": coordinator(0, 2),
        "get_pp_group": coordinator(0),
    }
    tensors = {"get_tp_group": coordinator(0, 3)}
    if of_tensors:
        imported(module, **functions)
        imported(of_tensors, **tensors)
    else:
        imported(module, **functions, **tensors)
    assert found(Model()) == [
        ("shards", (0, 1), library),
        ("replicas", (0, 2), library),
        ("replicas", (0, 3), library),
    ]


@pytest.mark.parametrize("module", LIBRARIES)
def test_coordinators_that_are_not_set_up(module: str, world: Any, imported: Any) -> None:
    names = ("get_sp_group", "get_cfg_group", "get_pp_group", "get_tp_group")
    imported(module, **dict.fromkeys(names, not_set_up))
    assert found(Model()) == []


def test_a_server_of_texts_in_the_same_process_has_groups_of_its_own(
    world: Any, imported: Any
) -> None:
    imported("vllm.distributed.parallel_state", get_tp_group=coordinator(0, 1))
    assert found(Model()) == []


@pytest.mark.parametrize("module", LIBRARIES)
def test_pipeline_parallelism_is_refused(module: str, world: Any, imported: Any) -> None:
    library, _ = LIBRARIES[module]
    imported(module, get_pp_group=coordinator(0, 1))
    with pytest.raises(ValueError, match=f"{library} splits this model over 2 ranks") as error:
        groups(Model())
    assert "use sequence parallelism (ulysses or ring), or do not call patch()" in str(error.value)


OPEN_SORA = [
    "opensora.acceleration.parallel_states",
    "opensora_base.opensora.acceleration.parallel_states",
]


@pytest.mark.parametrize("module", OPEN_SORA)
@pytest.mark.parametrize(("model", "cut"), [(SpaceAndTime, "space"), (Model, "sequence")])
def test_open_sora(
    module: str, model: type[nn.Module], cut: str, world: Any, imported: Any
) -> None:
    imported(module, get_sequence_parallel_group=lambda: world)
    (only,) = groups(with_attributes(model(), enable_sequence_parallelism=True))
    assert (only.role, only.ranks, only.origin, only.cut) == (
        "shards",
        (0, 1, 2, 3),
        "Open-Sora",
        cut,
    )


@pytest.mark.parametrize("module", OPEN_SORA)
def test_open_sora_on_ranks_with_videos_of_their_own(
    module: str, world: Any, imported: Any
) -> None:
    imported(module, get_sequence_parallel_group=lambda: world)
    assert found(with_attributes(SpaceAndTime(), enable_sequence_parallelism=False)) == []


@pytest.mark.parametrize(
    ("module", "variable"),
    [
        ("opensora.utils.parallel_states", "nccl_info"),
        ("opensora.acceleration.parallel_states", "hccl_info"),
    ],
)
def test_open_sora_plan(module: str, variable: str, world: Any, imported: Any) -> None:
    info = SimpleNamespace(group=group(0, 1))
    imported(module, **{variable: info}, get_sequence_parallel_state=lambda: True)
    (only,) = groups(Model())
    assert (only.role, only.ranks, only.origin) == ("shards", (0, 1), "Open-Sora-Plan")
    assert only.cut == "unknown"
    imported(module, **{variable: info}, get_sequence_parallel_state=lambda: False)
    assert found(Model()) == []


@pytest.mark.parametrize(("model", "cut"), [(SpaceAndTime, "space"), (Model, "sequence")])
def test_videosys(model: type[nn.Module], cut: str, world: Any) -> None:
    manager = SimpleNamespace(dp_group=group(0), cp_group=group(0, 2), sp_group=group(0, 1))
    shards, branches = groups(with_attributes(model(), parallel_manager=manager))
    assert (shards.role, shards.ranks, shards.cut) == ("shards", (0, 1), cut)
    assert (branches.role, branches.ranks, branches.splits_rows) == ("replicas", (0, 2), True)
    assert not shards.splits_rows


def test_videosys_before_it_sets_up_groups(world: Any) -> None:
    manager = SimpleNamespace(dp_group=world, cp_group=None, sp_group=None)
    assert found(with_attributes(Model(), parallel_manager=manager)) == []
    assert found(with_attributes(Model(), parallel_manager=None)) == []


def test_colossalai(world: Any) -> None:
    model = Model()
    config = SimpleNamespace(
        enable_sequence_parallelism=True, sequence_parallel_process_group=group(0, 1)
    )
    for block in model.blocks:
        with_attributes(block, processor=SimpleNamespace(shard_config=config))
    assert found(model) == [("shards", (0, 1), "ColossalAI's sequence parallelism")]
    config.enable_sequence_parallelism = False
    assert found(model) == []


def test_fsdp2(world: Any) -> None:
    model = Model()
    for module in (*model.blocks, model):
        fully_shard(module, mesh=init_device_mesh("cpu", (4,)))
    assert found(model) == [("videos", (0, 1, 2, 3), "FSDP")]


def test_fsdp2_with_replicas(world: Any) -> None:
    """The ranks with copies of one part exchange nothing in a forward."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    model = Model()
    for module in (*model.blocks, model):
        fully_shard(module, mesh=mesh)
    assert found(model) == [("videos", (0, 1), "FSDP")]


def split_tensors(model: nn.Module, mesh: Any) -> nn.Module:
    plan: dict[str, Any] = {"blocks.*.up": ColwiseParallel(), "blocks.*.down": RowwiseParallel()}
    return parallelize_module(model, mesh, plan)


def test_tensor_parallelism(world: Any) -> None:
    model = split_tensors(Model(), init_device_mesh("cpu", (4,)))
    assert found(model) == [("replicas", (0, 1, 2, 3), "tensor parallelism")]


def test_tensor_parallelism_inside_fsdp2(world: Any) -> None:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    model = split_tensors(Model(), mesh["tensor"])
    for module in (*model.blocks, model):
        fully_shard(module, mesh=mesh["data"])
    assert found(model) == [
        ("replicas", (0, 1), "tensor parallelism"),
        ("videos", (0, 2), "FSDP"),
    ]


@pytest.mark.filterwarnings("ignore:The `NO_SHARD` sharding strategy is deprecated")
@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (ShardingStrategy.FULL_SHARD, [("videos", (0, 1), "FSDP")]),
        (ShardingStrategy.NO_SHARD, []),
    ],
)
def test_fsdp1(strategy: Any, expected: Found, world: Any) -> None:
    model, of_two = Model(), group(0, 1)
    for index, block in enumerate(model.blocks):
        model.blocks[index] = FullyShardedDataParallel(
            block, of_two, sharding_strategy=strategy, device_id=torch.device("cpu")
        )
    assert found(model) == expected


def test_the_same_ranks_decide_once(world: Any, imported: Any) -> None:
    """FSDP over the ranks of a video needs no agreement beside that of the shards."""
    model = Model()
    fully_shard(model, mesh=init_device_mesh("cpu", (4,)))
    imported(
        "xfuser.core.distributed.parallel_state",
        get_sp_group=coordinator(0, 1, 2, 3),
        get_cfg_group=coordinator(0),
    )
    assert found(model) == [("shards", (0, 1, 2, 3), "xDiT")]


def test_given_groups_replace_all_others(world: Any) -> None:
    model = Model()
    fully_shard(model, mesh=init_device_mesh("cpu", (4,)))
    assert found(model, group(0, 1)) == [("shards", (0, 1), "process_group=")]
    by_role = {"videos": group(0, 2), "shards": group(0, 1)}
    assert [each[:2] for each in found(model, by_role)] == [("shards", (0, 1)), ("videos", (0, 2))]


@pytest.mark.parametrize("given", ["nccl", 2, {"shards": None}])
def test_what_is_no_group_is_named(given: Any, world: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a torch\.distributed\.ProcessGroup, or a map"):
        check_given(given)


def test_an_unknown_role_is_named(world: Any) -> None:
    with pytest.raises(ValueError, match="role 'cfg'; expected 'shards', 'replicas', 'videos'"):
        check_given({"cfg": world})
