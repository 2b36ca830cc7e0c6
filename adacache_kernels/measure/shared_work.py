"""Share out independent work over the ranks that torchrun or `accelerate launch` has started.

The ranks communicate by hidden files in a folder that all of them see, and not by
torch.distributed: nothing hangs if a rank dies, and the results are on the disk. Each rank writes a
sign of life at short intervals. A rank that waits for another one also waits for its signs.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

LIMIT = 120.0
"""Seconds without a sign of life after which a rank counts as dead."""
INTERVAL = 0.5
"""Seconds between two signs of life."""
POLL = 0.05
"""Seconds between two looks at the files of another rank."""
GO_ON = "What is done is stored: repeat the command, with any number of ranks, to make the rest"

Found = TypeVar("Found")


class MissingRankError(RuntimeError):
    """Another rank has died, has stopped with an error, or was never started."""


@dataclass(frozen=True)
class Place:
    """The place of this process among those that a launcher has started.

    Args:
        rank: its number.
        size: the number of processes.
        local_rank: its number on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0


def launched_place(environment: Mapping[str, str] = os.environ) -> Place:
    """Return the place that a launcher has written to RANK, WORLD_SIZE and LOCAL_RANK.

    Raises:
        ValueError: the variables do not describe a place.
    """
    if environment.get("WORLD_SIZE", "1") == "1":
        return Place()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    texts = [environment.get(name, "") for name in names]
    values = [int(text) if text.isascii() and text.isdigit() else -1 for text in texts]
    rank, size, local_rank = values
    if min(values) < 0 or not rank < size or not local_rank < size:
        given = ", ".join(f"{name}={text!r}" for name, text in zip(names, texts, strict=True))
        raise ValueError(
            f"the environment has {given}, which is no rank of a launcher; start the command with "
            "torchrun or accelerate launch, or unset WORLD_SIZE to run it alone"
        )
    return Place(rank, size, local_rank)


class SharedWork:
    """The ranks that share out work, as a context. One rank alone writes no files.

    The ranks meet at the start of the context, and rank 0 waits for all others at its end.

    Args:
        place: of this process.
        folder: for the files; all ranks see it. It is made if it does not exist.
        limit: seconds without a sign of life after which a rank counts as dead.
    """

    def __init__(
        self, place: Place | None = None, folder: Path | None = None, limit: float = LIMIT
    ) -> None:
        place = place or Place()
        self.rank, self.size = place.rank, place.size
        self._folder = folder or Path()
        self._limit = limit
        self._token = secrets.token_hex(8)
        self._run = ""
        self._tokens: list[str] = []
        self._beats = 0
        self._is_ending = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)

    @property
    def others(self) -> list[int]:
        """Return the other ranks."""
        return [rank for rank in range(self.size) if rank != self.rank]

    def is_own(self, index: int) -> bool:
        """Return True if the piece of work with this index is for this rank."""
        return index % self.size == self.rank

    def __enter__(self) -> SharedWork:
        """Meet the other ranks.

        Raises:
            MissingRankError: one does not come.
            OSError: the folder cannot be written.
        """
        if self.size == 1:
            return self
        self._folder.mkdir(parents=True, exist_ok=True)
        self._write_sign()
        self._beating.start()
        try:
            self._tokens = self._meet()
            self._run = self._tokens[0]
        except BaseException as error:
            self._stop(error)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Tell the others that this rank has ended.

        Raises:
            MissingRankError: on rank 0, another one has not ended well.
        """
        if self.size == 1:
            return
        self._stop(error)
        if error is not None:
            return
        # The last file that this rank writes: after it, the folder may be removed.
        self.tell("end", b"")
        if self.rank == 0:
            for rank in self.others:
                self.told("end", rank)
            for path in [*self._folder.glob(".rank-*"), *self._folder.glob(".run*")]:
                path.unlink(missing_ok=True)

    def tell(self, name: str, content: bytes) -> None:
        """Store a content for the other ranks.

        Raises:
            OSError: it cannot be stored.
        """
        self._write(self._told_path(name, self.rank), content)

    def told(self, name: str, rank: int) -> bytes:
        """Wait for a content that another rank tells, and return it.

        Raises:
            MissingRankError: the rank has died or stopped.
        """
        return self.wait(lambda: _content(self._told_path(name, rank)), [rank])

    def gather(self, name: str, value: Any) -> list[Any]:
        """Return the values of all ranks on rank 0, and none on the others.

        Args:
            name: of this gathering.
            value: of this rank, for JSON.

        Raises:
            MissingRankError: a rank has died or stopped.
        """
        if self.size > 1 and self.rank > 0:
            self.tell(name, json.dumps(value).encode())
            return []
        return [value, *(json.loads(self.told(name, rank)) for rank in self.others)]

    def wait(self, find: Callable[[], Found | None], ranks: Iterable[int]) -> Found:
        """Return what `find` returns, as soon as it is not None.

        Args:
            find: called again and again.
            ranks: the ranks that it waits for.

        Raises:
            MissingRankError: a rank has died or stopped.
        """
        watched = [_Watched(self, rank) for rank in ranks]
        while True:
            # Before the search: a rank that stops has written its files already.
            lost = [text for each in watched if (text := each.look())]
            found = find()
            if found is not None:
                return found
            if lost:
                raise MissingRankError(f"{lost[0]}. {GO_ON}")
            time.sleep(POLL)

    def _meet(self) -> list[str]:
        """Wait for all ranks on rank 0, and for rank 0 on the others; return all tokens."""
        path = self._folder / ".run"
        if self.rank > 0:
            return self.wait(lambda: self._run_with_me(path), [0])
        for old in self._folder.glob(".run*"):
            old.unlink(missing_ok=True)
        tokens = [self._token]
        for rank in self.others:
            tokens.append(self.wait(_Watched(self, rank).living_token, [rank]))
        self._write(path, json.dumps(tokens).encode())
        return tokens

    def _run_with_me(self, path: Path) -> list[str] | None:
        tokens: list[str] = json.loads(_content(path) or b"[]")
        return tokens if self._token in tokens else None

    def _beat(self) -> None:
        while not self._is_ending.wait(INTERVAL):
            with suppress(OSError):  # The next sign may be written.
                self._write_sign()

    def _stop(self, error: BaseException | None) -> None:
        """End the signs of life; the last one has the error."""
        self._is_ending.set()
        self._beating.join()
        if error is not None:
            lines = str(error).strip().splitlines() or [""]
            with suppress(OSError):
                self._write_sign(f"{type(error).__name__}: {lines[0]}")

    def _write_sign(self, error: str | None = None) -> None:
        self._beats += 1
        sign = {"token": self._token, "beats": self._beats, "run": self._run, "error": error}
        self._write(self._sign_path(self.rank), json.dumps(sign).encode())

    def _write(self, path: Path, content: bytes) -> None:
        temporary = path.with_name(f".rank-{self.rank}-{secrets.token_hex(4)}.part")
        temporary.write_bytes(content)
        temporary.replace(path)

    def _sign_path(self, rank: int) -> Path:
        return self._folder / f".rank-{rank}"

    def _told_path(self, name: str, rank: int) -> Path:
        return self._folder / f".run-{self._run}-{name}-{rank}"


class _Watched:
    """A rank whose signs of life this one looks at, from now on."""

    def __init__(self, work: SharedWork, rank: int) -> None:
        self._work, self._rank = work, rank
        self._since = time.monotonic()
        self._first = self._last = self._sign()

    def look(self) -> str | None:
        """Look at the last sign, and return the reason if the rank is lost."""
        work, sign, now = self._work, self._sign(), time.monotonic()
        if sign != self._last:
            self._since, self._last = now, sign
        name = f"rank {self._rank} of {work.size}"
        if sign is not None and work._tokens and sign["token"] != work._tokens[self._rank]:
            return f"{name} was started again"
        # Before the ranks have met, an error that was there already may be of an earlier run.
        if sign is not None and sign["error"] and (work._tokens or sign != self._first):
            return f"{name} stopped with {sign['error']}"
        silent = f"for {work._limit:g} seconds"
        if now - self._since <= work._limit:
            return None
        if sign is None:
            return (
                f"{name} was not seen in {work._folder} {silent}; start all ranks, with a folder "
                "that all their machines share, or unset WORLD_SIZE to run alone"
            )
        return f"{name} has given no sign of life {silent}; it died, or its machine is unreachable"

    def living_token(self) -> str | None:
        """Return the token of the rank, as soon as its signs change."""
        sign = self._sign()
        if sign is None or sign["error"]:
            return None
        if self._first is None or sign["token"] != self._first["token"]:
            self._first = sign
            return None
        return str(sign["token"]) if sign["beats"] != self._first["beats"] else None

    def _sign(self) -> dict[str, Any] | None:
        content = _content(self._work._sign_path(self._rank))
        sign: dict[str, Any] | None = None if content is None else json.loads(content)
        return sign


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
