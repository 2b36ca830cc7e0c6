from collections.abc import Sequence
from typing import Any, TypedDict, type_check_only

@type_check_only
class BuildConfig(TypedDict):
    version: str
    compiler: str
    cuda: str
    cuda_architectures: list[str]
    cuda_kernels: list[str]
    instruction_sets: list[str]
    instruction_set: str

class ArenaError(RuntimeError): ...
class OutOfMemory(ArenaError): ...
class OverBudget(OutOfMemory): ...
class CaptureError(ArenaError): ...

class Slot:
    @property
    def address(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    def __dlpack__(
        self,
        *,
        stream: object = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
        **kwargs: Any,
    ) -> object: ...

class Lease:
    def grow(self, sizes: Sequence[int], stream: int) -> list[Slot]: ...
    def replan(self, sizes: Sequence[int], stream: int) -> list[Slot]: ...
    def release(self, stream: int) -> None: ...
    def acquire(self, stream: int) -> None: ...
    def mark(self, stream: int) -> None: ...

class Arena:
    def __init__(self, device_type: str, device: int, budget: int, chunk_bytes: int) -> None: ...
    def lease(self) -> Lease: ...
    def stats(self) -> dict[str, Any]: ...  # The fields of `memory.arena.ArenaStats`.
    def close(self, stream: int) -> None: ...

class Mailbox:
    def __init__(self, device: int) -> None: ...
    def post(self, stream: int, address: int, sequence: int) -> None: ...
    def arrived(self, sequence: int) -> bool: ...
    def collect(self, sequence: int) -> tuple[list[float], float]: ...

class ConditionalGraph:
    def __init__(self, device: int, before: int, taken: int, otherwise: int, flag: int) -> None: ...
    def launch(self, stream: int) -> None: ...

class View:
    def __init__(
        self, data: int, dtype: int, size: Sequence[int], stride: Sequence[int]
    ) -> None: ...

def distance_update(
    slot: View,
    x_out: View,
    x_in: View | None,
    previous: Sequence[View],
    coefficients: int,
    slot_holds: int,
    strides: Sequence[int],
    metric: int,
    scale: View | None,
    previous_scales: Sequence[View | None],
    sums: int,
    threads: int,
) -> None: ...
def residual_update(slot: View, x_out: View, x_in: View, threads: int) -> None: ...
def conditional_add(
    out: View,
    x: View,
    residuals: Sequence[View],
    scales: Sequence[View | None],
    coefficients: int,
    flag: int,
    threads: int,
) -> None: ...

class DecideSettings:
    def __init__(
        self,
        *,
        metric: int,
        apply_moreg: bool,
        moreg_a: float,
        moreg_b: int,
        moreg_d: float,
        mograd_mul: float,
        uses_mean: bool,
    ) -> None: ...

def decide(
    state: int,
    sums: int,
    shape: Sequence[int],
    codebook: int,
    entries: int,
    settings: DecideSettings,
    step: int,
    has_previous: bool,
    in_window: bool,
    sequence: int,
    videos: int,
    motions: int,
) -> None: ...
def instruction_sets() -> list[str]: ...
def set_instruction_set(name: str) -> None: ...
def build_config() -> BuildConfig: ...
