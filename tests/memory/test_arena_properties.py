"""Random sequences of calls: no tensor overlaps, moves or changes, and the budget holds."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from torch import Tensor

from adacache_kernels.memory import ArenaOutOfMemoryError
from adacache_kernels.memory.arena import Lease
from tests.support.arenas import PAGE, aligned, byte_spec, extent, make_arena

BUDGET = 48 * PAGE
SIZES = st.lists(
    st.one_of(st.integers(0, 3 * PAGE), st.sampled_from([256, PAGE, 8 * PAGE])), max_size=5
)
CHOICE = st.integers(0, 2**16)


@dataclass
class View:
    """A tensor that is still in use, and the value written in it."""

    tensor: Tensor
    value: int
    address: int


@dataclass
class User:
    lease: Lease
    sizes: list[int] = field(default_factory=list)  # of the slots in the lease
    views: list[View] = field(default_factory=list)  # of slots that are, or were, in the lease


class ArenaMachine(RuleBasedStateMachine):
    kind = "virtual"

    def __init__(self) -> None:
        super().__init__()
        self.arena = make_arena(self.kind, max_bytes=BUDGET, chunk_bytes=4 * PAGE)
        self.users: list[User] = []
        self.orphans: list[View] = []  # views whose lease is gone
        self.values = itertools.cycle(range(1, 256))
        self.seen: list[int] = []  # the lowest and the highest address
        self.reserved = self.arena.stats().reserved
        self.has_others = False

    def pick(self, choice: int) -> User:
        return self.users[choice % len(self.users)]

    def views(self) -> list[View]:
        return [*self.orphans, *(view for user in self.users for view in user.views)]

    def fill(self, user: User, tensors: list[Tensor]) -> None:
        for tensor in tensors:
            value = next(self.values)
            user.views.append(View(tensor.fill_(value), value, tensor.data_ptr()))

    @precondition(lambda self: len(self.users) < 3)
    @rule()
    def lease(self) -> None:
        self.users.append(User(self.arena.lease()))

    @precondition(lambda self: self.users)
    @rule(choice=CHOICE, sizes=SIZES)
    def grow(self, choice: int, sizes: list[int]) -> None:
        user, before = self.pick(choice), self.arena.stats()
        try:
            tensors = user.lease.tensors([byte_spec(size) for size in sizes])
        except ArenaOutOfMemoryError:
            after = self.arena.stats()
            assert after.failures == before.failures + 1
            assert {**vars(after), "failures": 0} == {**vars(before), "failures": 0}
            assert before.mapped + aligned(sizes, PAGE) > BUDGET  # refused for a reason
            return
        user.sizes += sizes
        self.fill(user, tensors)

    @precondition(lambda self: self.users)
    @rule(choice=CHOICE, sizes=SIZES, keep_views=st.booleans())
    def replan(self, choice: int, sizes: list[int], keep_views: bool) -> None:
        user = self.pick(choice)
        views, user.views, user.sizes = user.views, [], []
        if not keep_views:
            views = []
        maps = self.arena.stats().maps
        try:
            tensors = user.lease.replan([byte_spec(size) for size in sizes])
        except ArenaOutOfMemoryError:
            self.orphans += views
            return
        user.sizes = sizes
        # Without a new chunk the old one is reused, and old views may change.
        self.orphans += views if self.arena.stats().maps > maps else []
        del views
        self.fill(user, tensors)

    @precondition(lambda self: self.users)
    @rule(choice=CHOICE)
    def replan_the_same(self, choice: int) -> None:
        user = self.pick(choice)
        user.views = []
        try:
            first = user.lease.replan([byte_spec(size) for size in user.sizes])
        except ArenaOutOfMemoryError:
            user.sizes = []
            return
        before = self.arena.stats()
        again = user.lease.replan([byte_spec(size) for size in user.sizes])
        sized = [(a, b) for a, b in zip(first, again, strict=True) if a.numel()]
        assert all(a.data_ptr() == b.data_ptr() for a, b in sized)
        assert (before.maps, before.unmaps) == (self.arena.stats().maps, self.arena.stats().unmaps)
        self.fill(user, again)

    @precondition(lambda self: self.users)
    @rule(choice=CHOICE)
    def release(self, choice: int) -> None:
        user = self.pick(choice)
        user.lease.release()
        self.orphans += user.views
        user.views, user.sizes = [], []

    @precondition(lambda self: self.users)
    @rule(choice=CHOICE)
    def drop_lease(self, choice: int) -> None:
        user = self.pick(choice)
        self.users.remove(user)
        self.orphans += user.views

    @precondition(lambda self: self.views())
    @rule(choice=CHOICE)
    def drop_view(self, choice: int) -> None:
        views = self.views()
        view = views[choice % len(views)]
        for held in (self.orphans, *(user.views for user in self.users)):
            held[:] = [other for other in held if other is not view]

    @invariant()
    def bytes_and_addresses_stay(self) -> None:
        for view in self.views():
            assert view.tensor.data_ptr() == view.address
            assert (view.tensor == view.value).all()

    @invariant()
    def nothing_overlaps(self) -> None:
        extents = sorted(extent(view.tensor) for view in self.views() if view.tensor.numel())
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(extents))
        if self.kind == "virtual":
            assert all(start % 256 == 0 for start, _ in extents)

    @precondition(lambda self: self.kind == "virtual")
    @invariant()
    def addresses_are_in_the_reservation(self) -> None:
        # If the reservation is fragmented, a new chunk gets addresses outside of it.
        self.has_others |= self.arena.stats().reserved != self.reserved
        self.seen += [
            address for view in self.views() for address in extent(view.tensor) if address
        ]
        if self.seen:
            self.seen = [min(self.seen), max(self.seen)]
            assert self.has_others or self.seen[1] - self.seen[0] <= self.reserved

    @invariant()
    def stats_are_right(self) -> None:
        now = self.arena.stats()
        assert now.mapped <= now.peak_mapped <= now.budget == BUDGET
        assert now.in_use <= now.peak_in_use <= now.peak_mapped
        assert now.in_use == sum(aligned(user.sizes) for user in self.users) <= now.mapped
        assert now.planned == sum(sum(user.sizes) for user in self.users)
        assert now.slots == sum(len(user.sizes) for user in self.users)
        assert now.leases == len(self.users)
        assert now.chunks == now.maps - now.unmaps

    def teardown(self) -> None:
        self.users.clear()
        self.orphans.clear()
        now = self.arena.stats()
        assert (now.mapped, now.in_use, now.chunks, now.slots, now.leases) == (0, 0, 0, 0, 0)


class TorchArenaMachine(ArenaMachine):
    kind = "torch"


FEW = settings(max_examples=200, stateful_step_count=30, deadline=None)
TestVirtualArena = pytest.mark.filterwarnings("error")(ArenaMachine.TestCase)
TestVirtualArena.settings = FEW
TestTorchArena = TorchArenaMachine.TestCase
TestTorchArena.settings = FEW
