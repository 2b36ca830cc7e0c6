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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

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


class Checkpoint:
    """The measurements so far, in the order in which they were made.

    Args:
        folder: of the files; None stores nothing.
        request: what the measurements depend on, for JSON.

    Raises:
        OSError: the folder cannot be written.
        ValueError: the folder holds the measurements of another request, or something else.
    """

    def __init__(self, folder: str | Path | None, request: Mapping[str, Any]) -> None:
        self._folder = None if folder is None else Path(folder)
        self._count = 0
        if self._folder is not None:
            _open(self._folder, request)

    @property
    def is_resumed(self) -> bool:
        """Return True if the next measurement is stored."""
        return self._folder is not None and self._path.exists()

    def recall(self, key: str, measure: Callable[[], Measurement]) -> Measurement:
        """Return the next measurement: the stored one, else that of `measure`, which is stored.

        Args:
            key: describes the measurement; a stored one with another key is replaced.
            measure: makes the measurement.

        Raises:
            OSError: it cannot be stored, for instance on a full disk.
        """
        if self._folder is None:
            return measure()
        path = self._path
        self._count += 1
        known = _read(path, key)
        if known is None:
            known = measure()
            write_whole(path, _packed(key, known))
        return known

    @property
    def _path(self) -> Path:
        assert self._folder is not None
        return self._folder / f"{self._count:06d}.npz"


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
        return "none" if tensor is None else str(tensor.device)
    return torch.cuda.get_device_name(tensor.device)


def _open(folder: Path, request: Mapping[str, Any]) -> None:
    """Make the folder, or check that it is of the same request."""
    path = folder / "request.json"
    if not folder.exists():
        folder.mkdir()
    if not path.exists():
        if any(folder.glob("[!.]*")):
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


def _packed(key: str, measurement: Measurement) -> bytes:
    text = json.dumps({"key": key, "values": measurement.values})
    file = io.BytesIO()
    arrays = {f"array {name}": array for name, array in measurement.arrays.items()}
    np.savez(file, text=np.frombuffer(text.encode(), np.uint8), **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def _read(path: Path, key: str) -> Measurement | None:
    """Return the measurement of a file, None without one that can be read and has this key."""
    try:
        with np.load(path, allow_pickle=False) as file:
            text = json.loads(file["text"].tobytes())
            names = [name for name in file.files if name != "text"]
            arrays = {name.removeprefix("array "): file[name] for name in names}
        return Measurement(text["values"], arrays) if text["key"] == key else None
    except FileNotFoundError:
        return None
    except UNREADABLE:
        return None
