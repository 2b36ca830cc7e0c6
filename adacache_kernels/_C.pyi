from collections.abc import Sequence
from typing import TypedDict, type_check_only

@type_check_only
class BuildConfig(TypedDict):
    version: str
    compiler: str
    cuda: str
    cuda_architectures: list[str]
    cuda_kernels: list[str]

class View:
    def __init__(
        self, data: int, dtype: int, size: Sequence[int], stride: Sequence[int]
    ) -> None: ...

def distance_update(
    slot: View,
    x_out: View,
    x_in: View | None,
    strides: Sequence[int],
    metric: int,
    has_previous: bool,
    sums: int,
) -> None: ...
def residual_update(slot: View, x_out: View, x_in: View, accumulate: bool) -> None: ...
def conditional_add(x: View, residuals: Sequence[View], coefficients: int, flag: int) -> None: ...
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
def build_config() -> BuildConfig: ...
