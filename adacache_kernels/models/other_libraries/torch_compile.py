"""What `torch.compile` has done to a module, and the refusal to be compiled as a whole.

A user compiles blocks, or a whole model, before or after `patch`, in any of these ways:

    module.compile()                                 # a compiled call beside the module's own
    module = torch.compile(module)                   # a wrapper with the module inside
    module.forward = torch.compile(module.forward)   # a compiled function on the instance
"""

from __future__ import annotations

import functools
import inspect
from typing import Any, NoReturn

import torch
from torch import nn

COMPILE_BLOCKS = (
    "compile the blocks instead, before or after patch(): model.compile_repeated_blocks(), or "
    "block.compile() for each block"
)
NOT_AS_A_WHOLE = (
    "a patched model cannot be compiled as a whole, for one graph cannot decide in every step anew "
    f"whether the blocks run; {COMPILE_BLOCKS}"
)


def uncompiled(module: nn.Module) -> nn.Module:
    """The module inside the wrapper of `torch.compile`; the module itself where there is none."""
    inside = module._modules.get("_orig_mod")
    return module if inside is None else inside


def is_compiled(module: nn.Module) -> bool:
    """Whether the module as a whole is compiled, in one of the three ways."""
    wrapped = uncompiled(module) is not module
    return wrapped or _has_compiled_call(module) or _has_compiled_forward(module)


def hides_hooks_of(module: nn.Module, submodule: str) -> bool:
    """Whether a forward hook of `module.<submodule>` would run inside compiled code.

    There it is either not seen at all, or traced once and called with what it was given then.
    """
    inner = getattr(module, submodule, None)
    return is_compiled(module) or (isinstance(inner, nn.Module) and _has_compiled_call(inner))


def check_not_compiled(model: nn.Module) -> None:
    """Refuse to patch a model that is compiled as a whole.

    Raises:
        ValueError: it is; says in which way, and how to undo it.
    """
    name = type(uncompiled(model)).__name__
    if uncompiled(model) is not model:
        raise ValueError(
            f"this {name} is wrapped by torch.compile; {NOT_AS_A_WHOLE}; the model itself is "
            "model._orig_mod"
        )
    if _has_compiled_call(model):
        raise ValueError(
            f"model.compile() was called on this {name}; {NOT_AS_A_WHOLE}; "
            "model._compiled_call_impl = None undoes it"
        )
    if _has_compiled_forward(model):
        raise ValueError(
            f"the forward of this {name} is compiled; {NOT_AS_A_WHOLE}; del model.forward undoes it"
        )


@functools.cache
def refuse_to_be_traced() -> Any:
    """A function that raises RuntimeError out of code that `torch.compile` is tracing.

    An exception that is merely raised there would make dynamo give up tracing without a word and
    run the same code uncompiled. With `fullgraph=True` dynamo raises, too, and quotes the reason.
    """
    disable: Any = torch.compiler.disable
    takes_reason = "reason" in inspect.signature(disable).parameters
    return disable(_refuse, **({"reason": NOT_AS_A_WHOLE} if takes_reason else {}))


def _refuse() -> NoReturn:
    raise RuntimeError(f"this patched model is called from compiled code; {NOT_AS_A_WHOLE}")


def _has_compiled_call(module: nn.Module) -> bool:
    return getattr(module, "_compiled_call_impl", None) is not None


def _has_compiled_forward(module: nn.Module) -> bool:
    return hasattr(vars(module).get("forward"), "_torchdynamo_orig_callable")
