"""The measurements of a calibration on the disk, so that a killed one goes on where it was.

A calibration is a fixed sequence of measurements: each depends on the request and on the results
before it. Started again with the same request, it reads the results that are stored, and makes the
others. Each is a file of its own that is written as a whole, so none is ever cut off.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..measure.shared_work import SharedWork
from ..schedule.calibrated_for import identity
from ..schedule.files import write_whole
from ..schedule.json_file import read_json

FORMAT = 1
UNREADABLE = (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Measurement:
    """The result of one measurement.

    Args:
        values: for JSON.
        arrays: by name.
    """

    values: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)


Asked = tuple[str, Callable[[], Measurement]]
"""The key of a measurement, and the function that makes it."""


class Checkpoint:
    """The measurements so far, in the order in which they were made.

    Args:
        folder: of the files; None stores nothing.
        request: what the measurements depend on, for JSON.
        work: ranks that share out the measurements, in one folder; by default, this one makes all.

    Raises:
        OSError: the folder cannot be written.
        ValueError: the folder holds the measurements of another request, or something else; or
            there are several ranks and no folder.
    """

    def __init__(
        self,
        folder: str | Path | None,
        request: Mapping[str, Any],
        work: SharedWork | None = None,
    ) -> None:
        self.work = work or SharedWork()
        if self.work.size > 1 and folder is None:
            raise ValueError("several ranks share out measurements in a folder; give checkpoint=")
        self._folder = None if folder is None else Path(folder)
        self._count = 0
        if self._folder is not None:
            _open(self._folder, request)

    @property
    def is_resumed(self) -> bool:
        """Return True if the next measurement is stored."""
        return self._folder is not None and self._path(self._count).exists()

    def recall_each(self, asked: Sequence[Asked]) -> Iterator[Measurement]:
        """Yield the next measurements: the stored ones, else new ones, which are stored.

        A measurement is made when it is wanted. With several ranks, each rank makes its own part,
        and waits for the others' ones.

        Args:
            asked: for each measurement, its key and the function that makes it. A stored
                measurement with another key is replaced.

        Raises:
            OSError: one cannot be stored, for instance on a full disk.
            MissingRankError: another rank has died or stopped.
        """
        if self._folder is None:
            for _, measure in asked:
                yield measure()
            return
        first = self._count
        own = [index for index in range(len(asked)) if self.work.is_own(index)]
        for index, (key, _) in enumerate(asked):
            self._count += 1
            path = self._path(first + index)
            found = _read(path, key)
            while found is None and own:
                self._make(first + own[0], asked[own.pop(0)])
                found = _read(path, key)
            yield found or self.work.wait(partial(_read, path, key), [index % self.work.size])

    def make_own(self, asked: Sequence[Asked]) -> None:
        """Make this rank's part of the next measurements, without a wait for the others'."""
        for index, each in enumerate(asked):
            if self.work.is_own(index):
                self._make(self._count + index, each)
        self._count += len(asked)

    def _make(self, number: int, asked: Asked) -> None:
        """Make and store a measurement, unless it is stored."""
        key, measure = asked
        if _read(self._path(number), key) is None:
            write_whole(self._path(number), packed(key, measure()))

    def _path(self, number: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{number:06d}.npz"


def request_for(pipe: Any, cases: Sequence[object], **others: Any) -> dict[str, Any]:
    """Return what measurements of a pipeline depend on, for JSON.

    Args:
        pipe: the pipeline, or a bare model.
        cases: the cases; the `repr` of each identifies it.
        others: more properties.
    """
    model = pipe if isinstance(pipe, nn.Module) else getattr(pipe, "transformer", None)
    scheduler = getattr(pipe, "scheduler", None)
    return {
        "format": FORMAT,
        "model": identity(model),
        "scheduler": None if scheduler is None else identity(scheduler),
        "device": _device_of(model),
        "threads": torch.get_num_threads(),
        "cases": list(map(repr, cases)),
        **others,
    }


def _device_of(model: object) -> str:
    tensor = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    if tensor is None or tensor.device.type != "cuda":
        return "none" if tensor is None else tensor.device.type
    return torch.cuda.get_device_name(tensor.device)


def _open(folder: Path, request: Mapping[str, Any]) -> None:
    """Make the folder, or check that it is of the same request."""
    path = folder / "request.json"
    if not folder.exists():
        folder.mkdir(exist_ok=True)
    # In this order: another rank may write the request now, and its measurements after it.
    is_empty = not any(folder.glob("[!.]*"))
    if not path.exists():
        if not is_empty:
            raise ValueError(f"{folder} is no checkpoint of a calibration; name another folder")
        write_whole(path, json.dumps(request))
        return
    try:
        before = read_json(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; remove the folder to begin again") from error
    now = json.loads(json.dumps(request))
    names = [name for name in now if not isinstance(before, dict) or before.get(name) != now[name]]
    if names:
        raise ValueError(
            f"{folder} has the measurements of another calibration, which differs in "
            f"{', '.join(names)}; repeat that request to go on, or remove the folder to begin again"
        )


def packed(key: str, measurement: Measurement) -> bytes:
    """Return the content of a measurement's file."""
    text = json.dumps({"key": key, "values": measurement.values})
    file = io.BytesIO()
    arrays = {f"array {name}": array for name, array in measurement.arrays.items()}
    np.savez(file, text=np.frombuffer(text.encode(), np.uint8), **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def unpacked(file: BinaryIO | Path) -> tuple[str, Measurement]:
    """Return the key and the measurement of a file."""
    with np.load(file, allow_pickle=False) as arrays:
        text = json.loads(arrays["text"].tobytes())
        names = [name for name in arrays.files if name != "text"]
        found = {name.removeprefix("array "): arrays[name] for name in names}
    return text["key"], Measurement(text["values"], found)


def _read(path: Path, key: str) -> Measurement | None:
    """Return the measurement of a file, None without one that can be read and has this key."""
    try:
        stored_key, measurement = unpacked(path)
        return measurement if stored_key == key else None
    except FileNotFoundError:
        return None
    except UNREADABLE:
        return None
