"""Use the functions of the extension module, without torch; check_leaks.sh runs this.

With the argument `leak` it leaks, to show that the checker detects it.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from typing import Any

from tests.support.bare_native import load

PAGE = 4096


def use_arena(native: Any) -> None:
    arena = native.Arena("cpu", 0, 64 * PAGE, PAGE)
    lease = arena.lease()
    slots = lease.grow([1000, 0, 5 * PAGE], stream=0)
    slots += lease.grow([PAGE], stream=0)
    lease.mark(stream=0)
    lease.acquire(stream=0)
    for use in (lease.grow, lease.replan):
        try:
            use([65 * PAGE], stream=0)
        except native.OverBudget:
            continue
        raise AssertionError("a budget was exceeded")
    ctypes.memset(slots[2].address, 1, slots[2].bytes)  # The memory exists as long as its slot.
    capsules = [
        slot.__dlpack__(max_version=version) for slot in slots for version in (None, (1, 0))
    ]
    lease.replan([2 * PAGE], stream=0)
    del slots, capsules
    lease.release(stream=0)
    assert arena.stats()["mapped"] == 0
    arena.close(stream=0)


def use_ops(native: Any) -> None:
    shape, stride = [2, 3, 4, 5], [60, 20, 5, 1]
    buffers = [(ctypes.c_float * 120)(*range(120)) for _ in range(3)]
    slot, x_out, x_in = (native.View(ctypes.addressof(b), 0, shape, stride) for b in buffers)
    numbers = (ctypes.c_float * 64)(*[1] * 64)
    sums = ctypes.addressof(numbers)
    native.distance_update(slot, x_out, x_in, [], 0, 1, [1], 0, None, [], sums, 2)
    bytes_, floats = (ctypes.c_int8 * 120)(), (ctypes.c_float * 24)()
    codes = native.View(ctypes.addressof(bytes_), 3, shape, stride)
    scale = native.View(ctypes.addressof(floats), 0, [2, 3, 4, 1], [12, 4, 1, 1])
    native.distance_update(codes, x_out, x_in, [], 0, 1, [1], 0, scale, [], sums, 2)
    native.residual_update(slot, x_out, x_in, 2)
    for flag in (ctypes.c_int32(1), ctypes.c_int32(0)):
        native.conditional_add(slot, x_in, [x_out], [None], sums, ctypes.addressof(flag), 2)


def use_all(native: Any) -> None:
    for _ in range(20):
        use_arena(native)
        use_ops(native)


def leak(native: Any) -> None:
    """Consume a capsule without freeing its object."""
    capsule = native.Arena("cpu", 0, PAGE, PAGE).lease().grow([1], stream=0)[0].__dlpack__()
    rename = ctypes.pythonapi.PyCapsule_SetName
    rename(ctypes.py_object(capsule), ctypes.c_char_p(b"used_dltensor"))


def main() -> None:
    native = load()
    if "leak" in sys.argv:
        leak(native)
    threads = [threading.Thread(target=use_all, args=(native,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    print("used everything")


if __name__ == "__main__":
    main()
