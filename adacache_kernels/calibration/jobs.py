"""Measurements to make, and their form in a file for other ranks."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Literal

from numpy.typing import NDArray

from ..schedule.codebook import Codebook
from ..schedule.profile import Profile
from .checkpoint import Measurement, packed, unpacked

ARRAYS = ("gram", "sensitivity")
SPAN = "span "
"""Start of the name of a span's array."""


@dataclass(frozen=True, eq=False)
class Job:
    """A measurement of one case.

    Args:
        kind: "error" of a patched generation, or a "pair" of an unpatched and a patched one.
        case: index of the case: those to fit to, then the held-out ones.
        settings: for `patch`.
        patched_first: the patched generation of a pair comes first.
    """

    kind: Literal["error", "pair"]
    case: int
    settings: Mapping[str, Any]
    patched_first: bool = False

    def key(self, case: object) -> str:
        """Return the key of the measurement; a digest identifies its profile.

        Args:
            case: the case itself.
        """
        plain = dict(self.settings)
        if plain.get("profile") is not None:
            plain["profile"] = _digest(plain["profile"])
        return f"{self.kind} of {case!r} with {sorted(plain.items())}"


def packed_jobs(jobs: Sequence[Job]) -> bytes:
    """Return jobs as the content of a file. Numbers keep all their digits.

    Args:
        jobs: their settings have one profile, or none.
    """
    profile = jobs[0].settings.get("profile")
    values: dict[str, Any] = {"jobs": [_plain_job(job) for job in jobs], "profile": None}
    arrays: dict[str, NDArray[Any]] = {}
    if profile is not None:
        names = ("model", "scheduler", "num_steps", "moreg_hyp", "notes")
        values["profile"] = {name: getattr(profile, name) for name in names}
        values["spans"] = list(profile.span_grams)
        arrays = {name: getattr(profile, name) for name in ARRAYS}
        arrays |= {f"{SPAN}{i}": gram for i, gram in enumerate(profile.span_grams.values())}
    return packed("jobs", Measurement(values, arrays))


def unpacked_jobs(content: bytes) -> list[Job]:
    """Return the jobs that `packed_jobs` was given."""
    _, found = unpacked(io.BytesIO(content))
    values, arrays = found.values, found.arrays
    known: dict[str, Any] = {}
    if values["profile"] is not None:
        plain = values["profile"] | {name: arrays[name] for name in ARRAYS}
        plain["moreg_hyp"] = tuple(plain["moreg_hyp"])
        spans = {name: arrays[f"{SPAN}{i}"] for i, name in enumerate(values["spans"])}
        known["profile"] = Profile(**plain, span_grams=spans)
    return [_parsed_job(plain, known) for plain in values["jobs"]]


def _plain_job(job: Job) -> dict[str, Any]:
    settings = {name: value for name, value in job.settings.items() if name != "profile"}
    codebook = settings.pop("codebook", None)
    if codebook is not None:
        settings["codebook"] = [list(codebook.thresholds), list(codebook.rates)]
    plain = {each.name: getattr(job, each.name) for each in fields(job)}
    return plain | {"settings": settings}


def _parsed_job(plain: Mapping[str, Any], known: Mapping[str, Any]) -> Job:
    settings: dict[str, Any] = {
        name: tuple(value) if name == "moreg_hyp" else value
        for name, value in plain["settings"].items()
    }
    if "codebook" in settings:
        thresholds, rates = settings["codebook"]
        settings["codebook"] = Codebook(tuple(thresholds), tuple(rates))
    return Job(**{**plain, "settings": {**settings, **known}})


@lru_cache(maxsize=4)
def _digest(profile: Profile) -> str:
    return hashlib.sha256(json.dumps(profile.to_dict(), sort_keys=True).encode()).hexdigest()
