"""Recognise modules that `torch.compile` has compiled, and refuse to be compiled as a whole.

A user compiles blocks, or a whole model, before or after `patch`, in one of these ways:

    module.compile()                                 # a compiled call beside the module's own
    module = torch.compile(module)                   # a wrapper with the module inside
    module.forward = torch.compile(module.forward)   # a compiled function on the instance
"""

from __future__ import annotations

import functools
import inspect
from typing import Any, Literal, NoReturn

import torch
from torch import nn

CompiledBy = Literal["wrapper", "call", "forward"]
"""The way in which a module was compiled."""

COMPILE_BLOCKS = (
    "compile the blocks instead, before or after patch(): model.compile_repeated_blocks(), or "
    "block.compile() for each block"
)
NOT_AS_A_WHOLE = (
    "a patched model cannot be compiled as a whole, because one graph cannot decide for every "
    f"step whether the blocks run; {COMPILE_BLOCKS}"
)


def uncompiled(module: nn.Module) -> nn.Module:
    """Return the module inside the wrapper of `torch.compile`, or the module if it has none."""
    inside = module._modules.get("_orig_mod")
    return module if inside is None else inside


def compiled_by(module: nn.Module) -> CompiledBy | None:
    """Return the way in which the module as a whole was compiled; None if it was not."""
    if uncompiled(module) is not module:
        return "wrapper"
    if _has_compiled_call(module):
        return "call"
    if hasattr(vars(module).get("forward"), "_torchdynamo_orig_callable"):
        return "forward"
    return None


def is_compiled(module: nn.Module) -> bool:
    """Return True if the module as a whole is compiled."""
    return compiled_by(module) is not None


def hides_hooks_of(module: nn.Module, submodule: str) -> bool:
    """Return True if a forward hook of `module.<submodule>` would run inside compiled code.

    Compiled code either ignores such a hook, or calls it with the values of the first trace.
    """
    inner = getattr(module, submodule, None)
    return is_compiled(module) or (isinstance(inner, nn.Module) and _has_compiled_call(inner))


def check_not_compiled(model: str, way: CompiledBy | None) -> None:
    """Refuse to patch a model that is compiled as a whole.

    Args:
        model: the class of the model.
        way: the way in which it was compiled, see `compiled_by`.

    Raises:
        ValueError: `way` is not None; the message names the way and how to undo it.
    """
    if way == "wrapper":
        raise ValueError(
            f"this {model} is wrapped by torch.compile; {NOT_AS_A_WHOLE}; the model itself is "
            "model._orig_mod"
        )
    if way == "call":
        raise ValueError(
            f"model.compile() was called on this {model}; {NOT_AS_A_WHOLE}; "
            "model._compiled_call_impl = None undoes it"
        )
    if way == "forward":
        raise ValueError(
            f"the forward of this {model} is compiled; {NOT_AS_A_WHOLE}; del model.forward undoes "
            "it"
        )


@functools.cache
def refuse_to_be_traced() -> Any:
    """Return a function that raises RuntimeError, also if `torch.compile` traces its caller.

    If traced code only raised an exception, dynamo would silently stop tracing and run the code
    uncompiled. With `fullgraph=True`, dynamo raises as well and quotes the reason.
    """
    disable: Any = torch.compiler.disable
    takes_reason = "reason" in inspect.signature(disable).parameters
    return disable(_refuse, **({"reason": NOT_AS_A_WHOLE} if takes_reason else {}))


def _refuse() -> NoReturn:
    raise RuntimeError(f"this patched model is called from compiled code; {NOT_AS_A_WHOLE}")


def _has_compiled_call(module: nn.Module) -> bool:
    return getattr(module, "_compiled_call_impl", None) is not None
