"""Whole models: compiling a patched one and patching a compiled one are both refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import adacache_kernels as ak
from tests.support.compiling import Counter, assert_same_bits, no_recompiles
from tests.support.tiny_models.common_models import TINY, denoise

STEPS = 7
REFUSED = r"cannot be compiled as a whole.*compile_repeated_blocks"


@pytest.mark.parametrize("fullgraph", [False, True])
@pytest.mark.parametrize("way", ["model.compile()", "torch.compile(model)", "torch.compile(f)"])
def test_a_patched_model_that_is_compiled_as_a_whole_refuses_to_run(
    way: str, fullgraph: bool
) -> None:
    tiny, counter = TINY["wan"], Counter()
    model: Any = ak.patch(tiny.build(), num_inference_steps=STEPS)
    options: dict[str, Any] = {"backend": counter.backend, "fullgraph": fullgraph}
    called = model
    if way == "model.compile()":
        model.compile(**options)
    elif way == "torch.compile(model)":
        called = torch.compile(model, **options)
    else:
        called = torch.compile(lambda **inputs: model(**inputs), **options)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=REFUSED), torch.no_grad():
            tiny.call(called, tiny.noise(), 1)
    assert counter.graphs == (0, 0)
    assert ak.summary(model).computed_steps == []

    ak.unpatch(model)
    denoise(tiny, called, 2)
    assert counter.graphs[0] == 1


def test_a_compiled_wrapper_around_a_patched_model_counts_as_patched() -> None:
    tiny = TINY["wan"]
    compiled = torch.compile(ak.patch(tiny.build(), num_inference_steps=STEPS), backend="eager")
    assert ak.is_patched(compiled)
    assert ak.summary(compiled).model == "WanTransformer3DModel"
    ak.reset(compiled)
    ak.unpatch(compiled)
    assert not ak.is_patched(compiled)


def test_dynamo_detects_a_patch_that_comes_after_it_has_compiled() -> None:
    """Its code is valid while the instance has no `forward` of its own; nothing runs unpatched."""
    tiny, counter = TINY["wan"], Counter()
    model = tiny.build()
    compiled = torch.compile(model, backend=counter.backend)
    expected = denoise(tiny, compiled, 2)  # type: ignore[arg-type]
    ak.patch(model, num_inference_steps=STEPS)
    with pytest.raises(RuntimeError, match=REFUSED):
        denoise(tiny, compiled, 2)  # type: ignore[arg-type]
    ak.unpatch(model)
    with no_recompiles():
        assert_same_bits(denoise(tiny, compiled, 2), expected)  # type: ignore[arg-type]
    assert counter.graphs[0] == 1


def test_a_patched_model_is_not_exported() -> None:
    tiny = TINY["wan"]
    model = ak.patch(tiny.build(), num_inference_steps=STEPS)
    inputs = dict(
        hidden_states=tiny.noise(), encoder_hidden_states=tiny.text(), timestep=torch.full((1,), 9)
    )
    with pytest.raises(RuntimeError, match=REFUSED):
        torch.export.export(model, (), inputs, strict=True)


def test_a_model_that_is_compiled_as_a_whole_is_not_patched() -> None:
    model: Any = TINY["wan"].build()
    wrapped = torch.compile(model, backend="eager")
    with pytest.raises(ValueError, match=rf"wrapped by torch\.compile.*{REFUSED}.*_orig_mod"):
        ak.patch(wrapped, num_inference_steps=STEPS)
    pipeline = SimpleNamespace(transformer=wrapped, scheduler=object())
    with pytest.raises(ValueError, match=REFUSED):
        ak.patch(pipeline)
    assert not ak.is_patched(pipeline)
    model.forward = torch.compile(model.forward, backend="eager")
    with pytest.raises(ValueError, match=rf"forward .* compiled; .*{REFUSED}.*del model\.forward"):
        ak.patch(model, num_inference_steps=STEPS)
    del model.forward
    model.compile(backend="eager")
    with pytest.raises(ValueError, match=rf"model\.compile\(\) was called.*{REFUSED}"):
        ak.patch(model, num_inference_steps=STEPS)
    model._compiled_call_impl = None
    ak.patch(model, num_inference_steps=STEPS)
