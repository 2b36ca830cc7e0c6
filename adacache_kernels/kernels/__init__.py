"""Define the Triton kernels, one op a file.

It imports no other wing. Only ops launches a kernel.
"""

from __future__ import annotations

from types import SimpleNamespace


def load() -> SimpleNamespace:
    """Return the kernels, and the types of their arguments, by name.

    Raises:
        ImportError: Triton is missing, or older than 3.6: it takes no tuples of views.
    """
    import triton
    import triton.language as tl

    if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 6):
        raise ImportError(f"found Triton {triton.__version__}")
    from .begin_step import begin_step_kernel
    from .conditional_add import conditional_add_kernel
    from .decide import decide_kernel
    from .distance_update import distance_update_kernel
    from .quantized_update import quantized_update_kernel
    from .residual_update import residual_update_kernel
    from .tile_access import View

    return SimpleNamespace(
        View=View,
        begin_step_kernel=begin_step_kernel,
        conditional_add_kernel=conditional_add_kernel,
        decide_kernel=decide_kernel,
        distance_update_kernel=distance_update_kernel,
        int32=tl.int32,
        int64=tl.int64,
        quantized_update_kernel=quantized_update_kernel,
        residual_update_kernel=residual_update_kernel,
    )
