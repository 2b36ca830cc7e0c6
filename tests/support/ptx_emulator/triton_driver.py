"""A Triton driver without a GPU: `kernel[grid](cpu_tensors)` runs the compiled PTX here.

Triton specialises and compiles as for a GPU of the chosen architecture. Only loading and launching
differ. It does not work with TRITON_INTERPRET.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.compiler.compiler import CompiledKernel

from .errors import EmulatorError
from .machine import MAX_STEPS, Kernel, Order, launch, load_kernel
from .memory import ALIGNMENT, GlobalMemory, Traffic
from .shadow import Initialised

WARP = 32
FIRST_DEVICE = 1000
"""Device numbers: a number of its own for each architecture, far from those of real GPUs."""

PROPERTIES = {
    "max_shared_mem": 232448,
    "max_num_regs": 65536,
    "multiprocessor_count": 132,
    "warpSize": WARP,
    "sm_clock_rate": 1,
    "mem_clock_rate": 1,
    "mem_bus_width": 1,
}


@dataclass(frozen=True)
class Launch:
    """The record of one launch."""

    name: str
    grid: tuple[int, int, int]
    num_warps: int
    shared: int
    """Bytes of dynamic shared memory."""
    steps: int
    """Instructions executed, each counted once for all the lanes that execute it together."""
    traffic: dict[str, Traffic]
    """By argument name; arguments in the same memory share one record."""
    kernel: Kernel
    """The executed kernel: the compiled one, or its replacement."""
    original: Kernel
    compiled: CompiledKernel = field(repr=False)
    arguments: dict[str, Any] | None = field(repr=False, default=None)
    """The kernel's arguments by name, if `keep_arguments` is set."""

    @property
    def bytes_loaded(self) -> int:
        """Return the bytes read from global memory."""
        return sum(traffic.bytes_loaded for traffic in self._distinct())

    @property
    def bytes_stored(self) -> int:
        """Return the bytes written to global memory."""
        return sum(traffic.bytes_stored for traffic in self._distinct())

    def _distinct(self) -> list[Traffic]:
        return list({id(traffic): traffic for traffic in self.traffic.values()}.values())


class EmulatorDriver(DriverBase):
    """The driver; every launch is appended to `launches`, which the test may clear."""

    def __init__(
        self,
        arch: int = 90,
        *,
        check: bool = True,
        order: Order = None,
        thread_races: bool = True,
        max_steps: int = MAX_STEPS,
        guard_views: bool = False,
        keep_arguments: bool = False,
    ) -> None:
        """Store the options of `launch`, and two more.

        `guard_views` bounds accesses to the views that are passed, not to their whole storage.
        `keep_arguments` keeps the arguments of each launch in its record.
        """
        super().__init__()
        self.arch = arch
        self.check = check
        self.order = order
        self.thread_races = thread_races
        self.max_steps = max_steps
        self.guard_views = guard_views
        self.keep_arguments = keep_arguments
        self.launches: list[Launch] = []
        self.substitutes: dict[Kernel | str, Kernel] = {}
        """The replacements of kernels, by the kernel or by its PTX name."""
        self.utils = SimpleNamespace(
            get_device_properties=lambda device: dict(PROPERTIES),
            unload_module=lambda module: None,
        )
        self._most_steps: dict[Kernel, int] = {}
        self._unwritten: dict[int, tuple[torch.UntypedStorage, Initialised]] = {}

    def mark_uninitialised(self, tensor: torch.Tensor) -> torch.Tensor:
        """Mark a tensor's storage as never written, until kernels write it; return it."""
        storage = tensor.untyped_storage()
        written = Initialised(storage.nbytes() + 2 * ALIGNMENT)
        # The driver keeps the storage, so that no other tensor gets its address.
        self._unwritten[storage.data_ptr()] = (storage, written)
        return tensor

    @contextmanager
    def substituted(self, original: Kernel, replacement: Kernel) -> Iterator[None]:
        """Run a replacement, such as a mutant, instead of the original."""
        before_limit, before_substitutes = self.max_steps, dict(self.substitutes)
        # A mutant that runs much longer than the kernel never ends.
        usual = self._most_steps.get(original, before_limit)
        self.max_steps = min(before_limit, 3 * usual + 1000)
        self.substitutes[original] = replacement
        try:
            yield
        finally:
            self.max_steps, self.substitutes = before_limit, before_substitutes

    def run(
        self, compiled: CompiledKernel, grid: tuple[int, int, int], values: Sequence[Any]
    ) -> None:
        """Execute one launch of a kernel that Triton compiled."""
        names, types = list(compiled.src.signature), list(compiled.src.signature.values())
        arguments = list(_flatten(names, types, values))
        memory, addresses, owners = self._expose(arguments)
        packed = [_argument(kind, value, addresses.get(name)) for name, kind, value in arguments]
        original = load_kernel(compiled.asm["ptx"])
        by_name = self.substitutes.get(original.name, original)
        kernel = self.substitutes.get(original, by_name)
        metadata = compiled.metadata
        execution = launch(
            kernel,
            grid,
            WARP * metadata.num_warps,
            packed,
            memory,
            shared=metadata.shared,
            order=self.order,
            check=self.check,
            thread_races=self.thread_races,
            max_steps=self.max_steps,
        )
        if kernel is original:
            longest = self._most_steps.get(kernel, 0)
            self._most_steps[kernel] = max(longest, execution.steps)
        traffic = {name: execution.traffic[owner] for name, owner in owners.items()}
        kept = dict(zip(names, values, strict=False)) if self.keep_arguments else None
        self.launches.append(
            Launch(
                name=original.name,
                grid=grid,
                num_warps=metadata.num_warps,
                shared=metadata.shared,
                steps=execution.steps,
                traffic=traffic,
                kernel=kernel,
                original=original,
                compiled=compiled,
                arguments=kept,
            )
        )

    def _expose(
        self, arguments: list[tuple[str, str, Any]]
    ) -> tuple[GlobalMemory, dict[str, int], dict[str, str]]:
        """Put the memory of all tensors into an address space; return also their buffers' names."""
        tensors = {name: value for name, _, value in arguments if hasattr(value, "data_ptr")}
        for name, tensor in tensors.items():
            if tensor.device.type != "cpu":
                raise EmulatorError(f"{name} is on {tensor.device}: the emulator takes CPU tensors")
        memory, addresses, owners = GlobalMemory(), {}, {}
        for start, stop, storage, names in _regions(tensors, self.guard_views):
            written = self._unwritten.get(storage.data_ptr(), (None, True))[1]
            if self.guard_views and written is not True:
                raise EmulatorError("guard_views cannot track memory marked as uninitialised")
            raw = torch.empty(0, dtype=torch.uint8).set_(storage)
            begin = start - storage.data_ptr()
            base = memory.add(
                raw[begin : begin + stop - start],
                "+".join(names),
                initialised=written,
                misalignment=start % ALIGNMENT,
            )
            for name in names:
                addresses[name] = base + tensors[name].data_ptr() - start
                owners[name] = "+".join(names)
        return memory, addresses, {name: owners[name] for name in tensors}

    # The methods below are Triton's interface of a driver.

    @staticmethod
    def is_active() -> bool:
        """Return False: only `install` and `emulated` choose this driver."""
        return False

    def map_python_to_cpp_type(self, ty: str) -> str:
        """Return nothing of use: no C++ launcher is built."""
        return ty

    def get_current_target(self) -> GPUTarget:
        """Return the architecture that kernels are compiled for."""
        return GPUTarget("cuda", self.arch, WARP)

    def get_current_device(self) -> int:
        """Return one device for each architecture: Triton caches kernels by device."""
        return FIRST_DEVICE + self.arch

    def set_current_device(self, device: int) -> None:
        """Do nothing: there is one device."""

    def get_current_stream(self, device: int) -> int:
        """Return 0: launches are synchronous."""
        return 0

    def get_device_capability(self, device: int = 0) -> tuple[int, int]:
        """Return the major and minor number of the architecture."""
        return divmod(self.arch, 10)

    def get_active_torch_device(self) -> torch.device:
        """Return the device of the tensors."""
        return torch.device("cpu")

    def get_benchmarker(self) -> Callable[..., Any]:
        """Return a benchmarker that runs a candidate once and reports equal times."""

        def benchmark(
            run: Callable[[], Any], *, quantiles: Sequence[float] | None = None, **options: Any
        ) -> list[float]:
            run()
            return [1.0] * len(quantiles or [0.5])

        return benchmark

    def get_empty_cache_for_benchmark(self) -> torch.Tensor:
        """Return nothing: there is no cache."""
        return torch.empty(1)

    def clear_cache(self, cache: torch.Tensor) -> None:
        """Do nothing: there is no cache."""


def install(arch: int = 90, **options: Any) -> EmulatorDriver:
    """Make the emulator Triton's driver from now on; the options are those of EmulatorDriver."""
    driver = EmulatorDriver(arch, **options)
    _activate(driver)
    return driver


@contextmanager
def emulated(
    arch: int = 90, *, order: Order = None, check: bool = True, **options: Any
) -> Iterator[EmulatorDriver]:
    """Run Triton kernels in the emulator inside the block."""
    driver = EmulatorDriver(arch, order=order, check=check, **options)
    with active(driver):
        yield driver


@contextmanager
def active(driver: EmulatorDriver) -> Iterator[None]:
    """Make the driver Triton's driver inside the block."""
    config = triton.runtime.driver
    before_driver, before_handles = config._active, CompiledKernel._init_handles
    try:
        _activate(driver)
        yield
    finally:
        config._active = before_driver
        CompiledKernel._init_handles = before_handles


def _activate(driver: EmulatorDriver) -> None:
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise EmulatorError("kernels decorated under TRITON_INTERPRET are never compiled")
    triton.runtime.driver.set_active(driver)
    CompiledKernel._init_handles = _init_handles


def _init_handles(self: CompiledKernel) -> None:
    """Replace the method that loads a kernel onto a GPU."""
    if self._run is not None:
        return

    def run(x: int, y: int, z: int, stream: int, function: Any, *rest: Any) -> None:
        # The arguments follow the packed metadata, the launch metadata and two hooks.
        triton.runtime.driver.active.run(self, (x, y, z), rest[4:])

    self._run = run


def _flatten(
    names: Sequence[str], types: Sequence[Any], values: Sequence[Any]
) -> Iterator[tuple[str, str, Any]]:
    """Return the arguments that reach the kernel, with the members of tuples one by one."""
    for name, kind, value in zip(names, types, values, strict=False):
        if kind == "constexpr":
            continue
        if isinstance(kind, tuple):
            members = [f"{name}.{index}" for index in range(len(kind))]
            yield from _flatten(members, kind, value)
        else:
            yield name, kind, value


def _argument(kind: str, value: Any, address: int | None) -> Any:
    if address is not None:
        return address
    if value is None:
        return 0
    match kind:
        case "fp32":
            return np.float32(value)
        case "fp64":
            return np.float64(value)
        case "fp16":
            return np.float16(value)
    if kind.startswith(("i", "u")):
        return int(value)
    raise EmulatorError(f"an argument of type {kind}")


Region = tuple[int, int, torch.UntypedStorage, list[str]]
"""Host addresses from where to where, in which storage, for which arguments."""


def _regions(tensors: dict[str, torch.Tensor], views: bool) -> list[Region]:
    """Return the pieces of memory behind the tensors; overlapping views share one piece."""
    spans = []
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        start, stop = storage.data_ptr(), storage.data_ptr() + storage.nbytes()
        if views:
            start, stop = tensor.data_ptr(), tensor.data_ptr() + _span(tensor)
        spans.append((start, stop, storage, name))
    regions: list[Region] = []
    for start, stop, storage, name in sorted(spans, key=lambda span: span[:2]):
        if regions and (start < regions[-1][1] or start == regions[-1][0]):
            before = regions[-1]
            regions[-1] = (before[0], max(stop, before[1]), before[2], [*before[3], name])
        else:
            regions.append((start, stop, storage, [name]))
    return regions


def _span(tensor: torch.Tensor) -> int:
    """Return the bytes from the first element of a view to the end of its last."""
    if tensor.numel() == 0:
        return 0
    extents = zip(tensor.shape, tensor.stride(), strict=True)
    last = sum((size - 1) * stride for size, stride in extents)
    return (last + 1) * tensor.element_size()
