"""The PTX types: their widths, and the numpy types that represent them."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Mask: TypeAlias = npt.NDArray[np.bool_] | None
"""The lanes that take part; None for all of them."""

UNSIGNED: dict[int, np.dtype[Any]] = {width: np.dtype(f"uint{width}") for width in (8, 16, 32, 64)}
SIGNED: dict[int, np.dtype[Any]] = {width: np.dtype(f"int{width}") for width in (8, 16, 32, 64)}
FLOAT: dict[str, np.dtype[Any]] = {f"f{width}": np.dtype(f"float{width}") for width in (16, 32, 64)}

INTEGER_TYPES = frozenset(f"{kind}{width}" for kind in "bus" for width in (8, 16, 32, 64))
FLOAT_TYPES = frozenset({"f16", "bf16", "f32", "f64"})
PACKED_FLOAT_TYPES = frozenset({"f16x2", "bf16x2", "f32x2"})
FP8_TYPES = frozenset({"e4m3x2", "e5m2x2"})

WIDTH = {name: int(name[1:]) for name in INTEGER_TYPES}
WIDTH |= {"f16": 16, "bf16": 16, "f32": 32, "f64": 64, "pred": 1, "b128": 128}
WIDTH |= {"f16x2": 32, "bf16x2": 32, "f32x2": 64, "e4m3x2": 16, "e5m2x2": 16}


def dtype_of(ptx_type: str) -> np.dtype[Any]:
    """Return the numpy type of one value; bf16 and packed types are bit patterns."""
    if ptx_type == "pred":
        return np.dtype(np.bool_)
    if ptx_type in FLOAT:
        return FLOAT[ptx_type]
    if ptx_type in INTEGER_TYPES and ptx_type.startswith("s"):
        return SIGNED[WIDTH[ptx_type]]
    return UNSIGNED[WIDTH[ptx_type]]


def bits_of(ptx_type: str) -> str:
    """Return the untyped PTX name of the same width: f32 gives b32."""
    return f"b{WIDTH[ptx_type]}"
