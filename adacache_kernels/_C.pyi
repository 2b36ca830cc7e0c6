from collections.abc import Sequence
from typing import TypedDict, type_check_only

@type_check_only
class BuildConfig(TypedDict):
    version: str
    compiler: str
    cuda: str
    cuda_architectures: list[str]
    cuda_kernels: list[str]
    instruction_sets: list[str]
    instruction_set: str

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
    sums: int,
    threads: int,
) -> None: ...
def residual_update(
    slot: View, x_out: View, x_in: View, accumulate: bool, threads: int
) -> None: ...
def conditional_add(
    x: View,
    residuals: Sequence[View],
    scales: Sequence[View | None],
    coefficients: int,
    flag: int,
    threads: int,
) -> None: ...
def decide(
    state: int,
    sums: int,
    shape: Sequence[int],
    codebook: int,
    entries: int,
    step: int,
    metric: int,
    has_previous: bool,
    apply_moreg: bool,
    in_window: bool,
    moreg_a: float,
    moreg_b: int,
    moreg_d: float,
    mograd_mul: float,
) -> None: ...
def instruction_sets() -> list[str]: ...
def set_instruction_set(name: str) -> None: ...
def build_config() -> BuildConfig: ...
