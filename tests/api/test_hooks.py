"""Hooks of diffusers and accelerate, added before or after the patch and removed in any order.

With a hook and patched at rate 1, a model returns the same bits as with the hook alone. With reuse,
it returns the same as patched alone. The parameters of another model, or those that a hook has read
from a file, are at other addresses; outputs are then equal except for rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adacache_kernels as ak
from tests.support.offloading import hooks, offload_with_prefetch
from tests.support.rounding import close, close_numbers, close_summaries
from tests.support.tiny_models.common_models import TINY, denoise

STEPS = 7
ALWAYS = {1.0: 1}
EVERY_THIRD = {float("inf"): 3}
COMPUTED = [1, 2, 5, 6, 7]
CPU = torch.device("cpu")
Add = Callable[[nn.Module], Any]


def build(name: str = "wan") -> nn.Module:
    return TINY[name].build()


def run(model: nn.Module, name: str = "wan") -> list[Tensor]:
    return denoise(TINY[name], model, STEPS)


def patch(model: nn.Module, codebook: dict[float, int]) -> nn.Module:
    return ak.patch(model, codebook=codebook, num_inference_steps=STEPS)


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def by_group(model: nn.Module, folder: Path, **settings: Any) -> None:
    """Keep parameters on disk; memory contains them only after a hook has loaded them."""
    from diffusers.hooks import apply_group_offloading

    apply_group_offloading(model, CPU, CPU, offload_to_disk_path=str(folder), **settings)


def by_blocks(model: nn.Module, folder: Path) -> None:
    by_group(model, folder, offload_type="block_level", num_blocks_per_group=2)


def by_leaves(model: nn.Module, folder: Path) -> None:
    by_group(model, folder, offload_type="leaf_level")


def layerwise(model: nn.Module, _folder: Path) -> None:
    model.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)


def accelerates(model: nn.Module, _folder: Path) -> None:
    from accelerate import cpu_offload

    cpu_offload(model, execution_device=CPU)


def dispatched(model: nn.Module, _folder: Path) -> None:
    from accelerate import dispatch_model

    dispatch_model(model, device_map={"": "cpu"}, force_hooks=True)


def with_hook(model: nn.Module, _folder: Path) -> None:
    from accelerate import cpu_offload_with_hook

    cpu_offload_with_hook(model, execution_device=CPU)


OTHERS = [by_blocks, by_leaves, layerwise, accelerates, dispatched, with_hook]


@pytest.mark.parametrize("name", ["wan", "cogvideox"])
@pytest.mark.parametrize("first", ["theirs", "ours"])
@pytest.mark.parametrize("add", OTHERS)
def test_a_hook_before_and_after(add: Any, first: str, name: str, tmp_path: Path) -> None:
    alone = build(name)
    add(alone, tmp_path)
    with_the_hook = run(alone, name)

    model = build(name)
    if first == "theirs":
        add(model, tmp_path)
    patch(model, ALWAYS)
    if first == "ours":
        add(model, tmp_path)
    patched = run(model, name)
    ak.unpatch(model)
    assert same(patched, run(model, name))
    assert close(patched, with_the_hook)

    patch(model, EVERY_THIRD)
    reused, summary = run(model, name), ak.summary(model)
    assert summary.computed_steps == COMPUTED
    assert not close(reused, with_the_hook)
    assert same(run(model, name), reused), "the next generation"
    if add is not layerwise:
        never_hooked = patch(build(name), EVERY_THIRD)
        assert close(reused, run(never_hooked, name))
        assert close_numbers(summary.distances, ak.summary(never_hooked).distances)


@pytest.mark.parametrize("name", ["latte", "allegro"])
@pytest.mark.parametrize("add", [by_blocks, by_leaves])
def test_modules_that_a_step_skips_are_loaded_when_needed(
    add: Any, name: str, tmp_path: Path
) -> None:
    never_hooked, model = (patch(build(name), EVERY_THIRD) for _ in range(2))
    add(model, tmp_path)
    assert close(run(model, name), run(never_hooked, name))
    assert close_summaries(ak.summary(model), ak.summary(never_hooked))
    assert ak.summary(model).computed_steps == COMPUTED


@pytest.mark.parametrize("name", ["wan", "latte"])
@pytest.mark.parametrize("kind", ["block_level", "leaf_level"])
def test_a_reused_step_breaks_a_chain_of_prefetches(kind: str, name: str) -> None:
    never_hooked, model = (patch(build(name), EVERY_THIRD) for _ in range(2))
    blocks = {"num_blocks_per_group": 1} if kind == "block_level" else {}
    offload_with_prefetch(model, offload_type=kind, **blocks)
    assert close(run(model, name), run(never_hooked, name))
    assert close_summaries(ak.summary(model), ak.summary(never_hooked))
    assert close(run(model, name), run(never_hooked, name))


def test_a_chain_that_diffusers_does_not_repair_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In diffusers 0.36, the modules after the skipped blocks run without being loaded."""
    model = patch(build(), EVERY_THIRD)
    offload_with_prefetch(model, is_detectable=False, offload_type="leaf_level")
    assert bool(run(model)[-1].isnan().all())
    ak.unpatch(model)

    refused = build()
    offload_with_prefetch(refused, offload_type="leaf_level")
    for hook in hooks(refused):
        hook.config.stream = object()
    monkeypatch.setattr("diffusers.__version__", "0.36.0")
    with pytest.raises(ValueError, match=r"diffusers 0\.36 cannot do.*0\.37, or.*use_stream=False"):
        patch(refused, EVERY_THIRD)
    monkeypatch.undo()
    patch(refused, EVERY_THIRD)


class CountingHook:
    """A hook of diffusers on the whole model that counts its calls."""

    def __new__(cls) -> Any:
        from diffusers.hooks import ModelHook

        class Counts(ModelHook):
            calls = 0

            def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
                self.calls += 1
                return args, kwargs

        return Counts()


def register(model: nn.Module) -> Any:
    from diffusers.hooks import HookRegistry

    hook = CountingHook()
    HookRegistry.check_if_exists_or_initialize(model).register_hook(hook, "counts")
    return hook


def register_new_forward(model: nn.Module) -> Any:
    """Register a hook that calls the model's forward itself."""
    from diffusers.hooks import HookRegistry

    hook = CountingHook()

    def new_forward(_module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return hook.fn_ref.original_forward(*args, **kwargs)

    hook.new_forward = new_forward
    HookRegistry.check_if_exists_or_initialize(model).register_hook(hook, "counts")
    return hook


def deregister(model: nn.Module) -> None:
    model._diffusers_hook.remove_hook("counts")


def accelerate(model: nn.Module) -> Any:
    from accelerate.hooks import ModelHook, add_hook_to_module

    class Counts(ModelHook):
        calls = 0

        def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return args, kwargs

    hook = Counts()
    add_hook_to_module(model, hook)
    return hook


def decelerate(model: nn.Module) -> None:
    from accelerate.hooks import remove_hook_from_module

    remove_hook_from_module(model)


LIBRARIES = [
    (register, deregister),
    (register_new_forward, deregister),
    (accelerate, decelerate),
]


@pytest.mark.parametrize(("add", "remove"), LIBRARIES)
@pytest.mark.parametrize("order", ["add patch unpatch remove", "add patch remove unpatch"])
@pytest.mark.parametrize("patch_first", [False, True])
def test_the_order_of_removal(add: Any, remove: Any, order: str, patch_first: bool) -> None:
    """In every order, the patch leaves nothing behind, and there is no warning."""
    if patch_first:
        order = " ".join({"add": "patch", "patch": "add"}.get(w, w) for w in order.split())
    model, never_patched = build(), build()
    add(never_patched)
    remove(never_patched)
    plain, hooked, patched = run(model), False, False
    for word in order.split():
        if word == "add":
            hook, hooked = add(model), True
        elif word == "remove":
            remove(model)
            hooked = False
        elif word == "patch":
            patch(model, EVERY_THIRD)
            patched = True
        else:
            ak.unpatch(model)
            patched = False
        before = hook.calls if hooked else 0
        assert same(run(model), plain) is not patched
        assert not patched or ak.summary(model).computed_steps == COMPUTED
        assert not hooked or hook.calls == before + STEPS
    assert set(vars(model)) - {"forward"} == set(vars(never_patched)) - {"forward"}
    forward = model.forward
    assert getattr(forward, "__func__", None) is type(model).forward and forward.__self__ is model


def test_two_libraries_on_one_model() -> None:
    model = build()
    of_diffusers = register(model)
    of_accelerate = accelerate(model)
    patch(model, EVERY_THIRD)
    reused = run(model)
    assert (of_diffusers.calls, of_accelerate.calls) == (STEPS, STEPS)
    decelerate(model)
    assert same(run(model), reused)
    deregister(model)
    assert same(run(model), reused)
    assert ak.summary(model).computed_steps == COMPUTED
    ak.unpatch(model)
    assert close(run(model), run(build()))


def test_wrappers_that_hide_the_signature_of_a_block() -> None:
    """Older versions of diffusers do so. Wan passes all arguments of its blocks by position."""
    from diffusers.hooks import HookRegistry

    model = patch(build(), EVERY_THIRD)
    expected = run(model)
    ak.unpatch(model)
    for module in (model, *model.blocks):
        HookRegistry.check_if_exists_or_initialize(module).register_hook(CountingHook(), "counts")
        del module.forward.__wrapped__
    patch(model, EVERY_THIRD)
    assert same(run(model), expected)
    assert ak.summary(model).computed_steps == COMPUTED


def test_a_wrapper_of_the_user_that_stays_does_not_break_a_later_patch() -> None:
    model = patch(build(), EVERY_THIRD)
    reused = run(model)
    ours = model.forward
    model.forward = lambda *args, **kwargs: ours(*args, **kwargs)
    with pytest.warns(ak.AdaCacheWarning, match="wrapped this model's forward"):
        ak.unpatch(model)
    model.forward = ours
    patch(model, EVERY_THIRD)
    assert same(run(model), reused)
    ak.unpatch(model)
    assert close(run(model), run(build()))


def test_a_forward_that_another_library_restores_causes_a_warning() -> None:
    model = build()
    theirs = model.forward
    patch(model, EVERY_THIRD)
    model.forward = theirs
    plain = run(model)
    with pytest.warns(ak.AdaCacheWarning, match=r"set this model's forward since patch\(\)"):
        assert ak.summary(model).computed_steps == []
    ak.unpatch(model)
    assert model.forward is theirs
    assert same(run(model), plain)
