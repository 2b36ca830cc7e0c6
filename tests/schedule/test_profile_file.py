"""Files of profiles that are wrong: each is refused at load, by file and entry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import adacache_kernels as ak
from adacache_kernels.schedule.profile import Profile
from tests.support.tiny_profile import STEPS

PROFILES = Path(ak.__file__).parent / "demo" / "profiles"
SIZE = STEPS * (STEPS + 1) // 2


def upper(matrix: Any) -> list[float]:
    return [float(value) for value in np.asarray(matrix)[np.triu_indices(len(matrix))]]


def indefinite(size: int = STEPS) -> list[float]:
    matrix = np.eye(size)
    matrix[0, 1] = matrix[1, 0] = 1.001
    return upper(matrix)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gram": indefinite()}, "gram is not positive semidefinite"),
        ({"gram": upper(2 - 3 * np.eye(STEPS) * -1 - 2.9)}, "gram is not positive semidefinite"),
        ({"span_grams": {"blocks": indefinite()}}, r"span_grams\.blocks is not positive"),
        ({"gram": [0.0] * SIZE}, "gram has a step without a positive inner product"),
        ({"gram": [1e200] * SIZE}, "gram has a step without .* or a huge one"),
        ({"gram": [1.0]}, rf"gram has 1 numbers, expected {SIZE} for {STEPS} steps"),
        ({"gram": [1.0] * (SIZE + 1)}, f"gram has {SIZE + 1} numbers"),
        ({"gram": [[1.0]]}, r"gram is \[\[1.0\]\]; it must be a list, each item a finite number"),
        ({"gram": "1, 2"}, "gram is '1, 2'; it must be a list"),
        ({"gram": [None] * SIZE}, "gram is"),
        ({"gram": [True] * SIZE}, "gram is"),
        ({"span_grams": [1]}, r"span_grams is \[1\]; it must be an object"),
        ({"span_grams": {}}, "span_grams is empty"),
        ({"span_grams": {"blocks": 1}}, "span_grams is"),
        ({"num_steps": 10**9}, "num_steps is 1000000000; it must be from 1 to 100000"),
        ({"num_steps": 100_000}, "sensitivity is not 100000 positive numbers"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"num_steps": -1}, "num_steps=-1"),
        ({"num_steps": True}, "num_steps is True; it must be an integer"),
        ({"num_steps": 12.0}, "num_steps is 12.0"),
        ({"sensitivity": [-1.0] * STEPS}, "sensitivity is not 12 positive numbers"),
        ({"sensitivity": [1e300] * STEPS}, "sensitivity is not"),
        ({"moreg_hyp": [1, 1]}, "moreg_hyp has 2 numbers"),
        ({"moreg_hyp": [1, -1, 1]}, "moreg_hyp is"),
        ({"model": {}}, "holds {} as its model, expected a class and its config"),
        ({"model": {"class": 3}}, "as its model"),
        ({"model": {"class": "A", "config": [1]}}, "as its model"),
        ({"model": None}, "model is None; it must be an object"),
        ({"scheduler": "DDIM"}, "scheduler is 'DDIM'; it must be an object or null"),
        ({"scheduler": {}}, "as its scheduler"),
        ({"notes": 3}, "notes is 3"),
        ({"format": "1"}, "format is '1'; it must be an integer"),
        ({"format": 99}, "its format is 99, this version reads 1"),
        ({"more": 1}, "more is unknown"),
    ],
)
def test_a_wrong_entry_is_named(
    tiny_profile: Profile, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(tiny_profile.to_dict() | change))
    with pytest.raises(ValueError, match=rf"broken\.json: .*{message}"):
        Profile.load(path)
    with pytest.raises(ValueError, match=message):
        ak.AdaCacheConfig(profile=tiny_profile.to_dict() | change, computed_steps=4)


@pytest.mark.parametrize("name", ["format", "model", "num_steps", "gram", "span_grams"])
def test_a_missing_entry_is_named(tiny_profile: Profile, name: str) -> None:
    values = tiny_profile.to_dict()
    del values[name]
    with pytest.raises(ValueError, match=f"it has no {name}"):
        Profile.from_dict(values)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"gram": [', '"gram": [NaN, ', r"gram\[0\] is nan"),
        ('"notes": {', '"notes": {"x": [1, -Infinity], ', r"notes\.x\[1\] is -inf"),
        ('"num_steps": 12', '"num_steps": 12, "num_steps": 12', "entry 'num_steps' twice"),
        ('"notes": {', '"notes": {"x": ' + "[" * 999 + "]" * 999 + ", ", "more than 64 levels"),
        ('"sensitivity": [', '"sensitivity": [1e400, ', r"sensitivity\[0\] is inf"),
    ],
)
def test_what_json_should_not_have(
    tiny_profile: Profile, tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "broken.json"
    text = json.dumps(tiny_profile.to_dict())
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=rf"broken\.json: .*{message}"):
        Profile.load(path)


def test_all_profiles_that_ship_are_loaded() -> None:
    paths = [path for path in PROFILES.glob("*.json") if path.stem.isdigit()]
    assert len(paths) > 1
    for path in paths:
        profile = Profile.load(path)
        assert profile.num_steps == int(path.stem)
        assert Profile.from_dict(profile.to_dict()).to_dict() == profile.to_dict()


def test_inner_products_of_few_residuals_are_accepted() -> None:
    """Two directions in 40 steps: 38 eigenvalues are 0, and rounding makes some negative."""
    rows = np.random.default_rng(0).standard_normal((40, 2)) * np.geomspace(1, 1e3, 40)[:, None]
    gram = rows @ rows.T
    profile = Profile(
        model={"class": "A", "config": {}}, scheduler=None, num_steps=40, gram=gram,
        span_grams={"blocks": gram}, sensitivity=np.ones(40),
    )  # fmt: skip
    values = json.loads(json.dumps(profile.to_dict()))
    assert np.linalg.eigvalsh(Profile.from_dict(values).gram).min() < 0


def test_notes_that_are_not_finite_become_null(tiny_profile: Profile, tmp_path: Path) -> None:
    from dataclasses import replace

    notes = {"db": [1.0, float("nan")], "more": {"x": float("inf")}}
    replace(tiny_profile, notes=notes).save(tmp_path / "it.json")
    assert Profile.load(tmp_path / "it.json").notes == {"db": [1.0, None], "more": {"x": None}}
