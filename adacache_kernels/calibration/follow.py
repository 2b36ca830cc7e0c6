"""The ranks of a calibration that do not search: they make the measurements that rank 0 wants.

Only rank 0 chooses settings. If every rank chose its own, a last digit that differs would lead them
to different measurements.
"""

from __future__ import annotations

import itertools
import json

from ..config.calibration_file import Calibration
from .jobs import unpacked_jobs
from .measured_cases import MeasuredCases
from .record import Case


def tell_end(measured: MeasuredCases[Case], calibration: Calibration) -> None:
    """Tell the other ranks the result."""
    work = measured.checkpoint.work
    if work.size > 1:
        content = json.dumps(calibration.to_dict()).encode()
        work.tell(f"jobs-{measured.told}", content)


def follow(measured: MeasuredCases[Case]) -> Calibration:
    """Do this rank's part of all jobs that rank 0 tells, and return its result.

    Raises:
        ValueError: an outcome is not finite.
        MissingRankError: rank 0 has died or stopped.
    """
    for number in itertools.count():
        content = measured.checkpoint.work.told(f"jobs-{number}", 0)
        if content.startswith(b"{"):
            return Calibration.from_dict(json.loads(content))
        jobs = unpacked_jobs(content)
        measured.checkpoint.make_own([measured.asked(job) for job in jobs])
    raise AssertionError("rank 0 tells the end")
