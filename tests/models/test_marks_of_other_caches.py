"""Attributes that other caches leave on a model: which of them show that a cache is on."""

from __future__ import annotations

from typing import Any

import pytest

import adacache_kernels as ak
from tests.models.unknown_models import REUSING, Model, run


class State:
    """The state of a cache while it is on."""

    rel_l1_thresh = 0.1


class WithMethods(Model):
    """A model with methods that turn a cache on and off, as VideoX-Fun's have."""

    def __init__(self) -> None:
        super().__init__()
        self.teacache: State | None = None
        self.magcache: State | None = None
        self.cfg_skip_ratio = None

    def enable_teacache(self) -> None:
        self.teacache = State()

    def enable_magcache(self) -> None:
        self.magcache = State()

    def disable_teacache(self) -> None:
        self.teacache = None


def test_a_method_is_no_mark() -> None:
    model = WithMethods().eval()
    ak.patch(model, **REUSING)
    run(model)
    assert ak.summary(model).reused_steps


@pytest.mark.parametrize("name", ["teacache", "magcache"])
def test_the_state_of_a_cache_is_a_mark(name: str) -> None:
    model = WithMethods().eval()
    getattr(model, f"enable_{name}")()
    with pytest.raises(ValueError, match=f"another cache is on for WithMethods .its {name} is set"):
        ak.patch(model, **REUSING)
    assert not ak.is_patched(model)


def test_following_the_advice_about_a_state() -> None:
    model = WithMethods().eval()
    model.enable_teacache()
    with pytest.raises(ValueError, match=r"so that model\.teacache is None"):
        ak.patch(model, **REUSING)
    model.disable_teacache()
    ak.patch(model, **REUSING)
    run(model)
    assert ak.summary(model).reused_steps


def test_a_cache_that_begins_after_the_patch_is_refused() -> None:
    model = WithMethods().eval()
    ak.patch(model, **REUSING)
    run(model)
    model.enable_teacache()
    ak.reset(model)
    with pytest.raises(ValueError, match="another cache is on"):
        run(model)


@pytest.mark.parametrize("name", ["enable_teacache", "enable_magcache", "enable_easycache"])
@pytest.mark.parametrize("on_class", [True, False])
def test_following_the_advice_about_a_switch(name: str, on_class: bool) -> None:
    kind = type("Switched", (Model,), {})
    model: Any = kind().eval()
    owner = kind if on_class else model
    setattr(owner, name, True)
    with pytest.raises(ValueError, match=f"set {name} to False where it was set"):
        ak.patch(model, **REUSING)
    setattr(owner, name, False)
    ak.patch(model, **REUSING)
    run(model)
    assert ak.summary(model).reused_steps
