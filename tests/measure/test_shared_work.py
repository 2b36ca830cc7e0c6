"""The ranks of a launcher that share out work: their place, their signs of life, their errors."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from adacache_kernels.cli import checks
from adacache_kernels.measure.shared_work import (
    MissingRankError,
    Place,
    SharedWork,
    launched_place,
)


def together(folder: Path, *functions: Callable[[SharedWork], Any], limit: float = 20) -> list[Any]:
    """Return what each rank's function returns, or its error."""

    def run(rank: int) -> Any:
        try:
            with SharedWork(Place(rank, len(functions), rank), folder, limit) as work:
                return functions[rank](work)
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(run, range(len(functions))))


def shared(work: SharedWork) -> list[Any]:
    return work.gather("own", [index for index in range(7) if work.is_own(index)])


def test_the_work_is_shared_and_nothing_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    for _ in range(2):
        first, *others = together(folder, shared, shared, shared)
        assert first == [[0, 3, 6], [1, 4], [2, 5]] and others == [[], []]
        assert list(folder.iterdir()) == []
    assert shared(SharedWork()) == [[*range(7)]]


def test_an_error_is_passed_on_and_forgotten_in_the_next_run(tmp_path: Path) -> None:
    def fail(work: SharedWork) -> None:
        raise ValueError("no such thing\nmore")

    first, second, third = together(tmp_path, shared, fail, lambda work: work.told("it", 1))
    assert isinstance(second, ValueError)
    for error in (first, third):
        assert isinstance(error, MissingRankError)
        text = str(error)
        assert text.startswith("rank 1 of 3 stopped with ValueError: no such thing. What is done")
    assert (tmp_path / ".rank-1").exists()
    assert together(tmp_path, shared, shared, shared)[0] == [[0, 3, 6], [1, 4], [2, 5]]


def test_the_last_words_of_a_rank_that_stops_count(tmp_path: Path) -> None:
    def tell_and_fail(work: SharedWork) -> None:
        work.tell("own", b"5")
        raise ValueError("later")

    first, _ = together(tmp_path, lambda work: work.gather("own", 4), tell_and_fail)
    # It has the value; the error is found when it waits for the end.
    assert isinstance(first, MissingRankError) and "stopped with ValueError: later" in str(first)


def gathering(is_over: threading.Event) -> Callable[[SharedWork], Any]:
    """Return a function that gathers a value of each rank, and sets the event at its end."""

    def gather(work: SharedWork) -> Any:
        try:
            return work.gather("own", 0)
        finally:
            is_over.set()

    return gather


def test_a_rank_that_is_silent_counts_as_dead(tmp_path: Path) -> None:
    def be_silent(work: SharedWork) -> None:
        work._is_ending.set()
        is_over.wait(30)

    is_over = threading.Event()
    first, _ = together(tmp_path, gathering(is_over), be_silent, limit=2)
    assert "rank 1 of 2 has given no sign of life for 2 seconds; it died" in str(first)


def test_a_rank_that_was_started_again_is_found(tmp_path: Path) -> None:
    def come_again(work: SharedWork) -> None:
        work._token = "another"
        is_over.wait(30)

    is_over = threading.Event()
    first, _ = together(tmp_path, gathering(is_over), come_again)
    assert "rank 1 of 2 was started again" in str(first)


def test_signs_of_an_earlier_run_are_no_signs_of_life(tmp_path: Path) -> None:
    sign = {"token": "old", "beats": 3, "run": "old", "error": None}
    (tmp_path / ".rank-1").write_text(json.dumps(sign))
    with pytest.raises(MissingRankError, match="rank 1 of 2 has given no sign of life for 1 sec"):
        SharedWork(Place(0, 2, 0), tmp_path, limit=1).__enter__()


@pytest.mark.parametrize("early", [0, 1])
def test_an_error_of_an_earlier_run_does_not_count(early: int, tmp_path: Path) -> None:
    sign = {"token": "old", "beats": 3, "run": "old", "error": "ValueError: it"}
    for rank in (0, 1):
        (tmp_path / f".rank-{rank}").write_text(json.dumps(sign))
    ranks = [SharedWork(Place(rank, 2, rank), tmp_path, 20) for rank in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(ranks[early].__enter__)
        time.sleep(0.3)  # It sees the old sign of the other rank.
        ranks[1 - early].__enter__()
        waiting.result()
        ends = [pool.submit(work.__exit__, None, None, None) for work in ranks]
        assert [end.result() for end in ends] == [None, None]


@pytest.mark.parametrize("size", [None, "1"])
def test_no_launcher(size: str | None) -> None:
    environment = {} if size is None else {"WORLD_SIZE": size, "RANK": "x"}
    assert launched_place(environment) == Place(0, 1, 0)


def test_the_place_of_a_launcher() -> None:
    environment = {"WORLD_SIZE": "16", "RANK": "9", "LOCAL_RANK": "1"}
    assert launched_place(environment) == Place(9, 16, 1)


@pytest.mark.parametrize(
    ("rank", "size", "local"),
    [(None, "2", "0"), ("0", "2", None), ("2", "2", "0"), ("-1", "2", "0"), ("0", "two", "0"),
     ("0", "2", "2"), ("0", "", "0"), ("0", "0", "0"), ("\u00b2", "2", "0")],
)  # fmt: skip
def test_an_environment_without_a_place(
    rank: str | None, size: str | None, local: str | None
) -> None:
    given = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": local}
    environment = {name: value for name, value in given.items() if value is not None}
    with pytest.raises(ValueError, match=r"no rank of a launcher.*or unset WORLD_SIZE"):
        launched_place(environment)


def test_each_rank_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert checks.check_device(None) == "cuda"
    environment = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert checks.check_device(None) == "cuda:1"
    assert checks.check_device("cpu") == "cpu"
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="local rank 2 needs cuda:2, and this machine shows 2"):
        checks.check_device(None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert checks.check_device(None) == "cpu"
