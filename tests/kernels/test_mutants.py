"""A sample of the mutants of each kernel; mutation_survey.py runs all, see mutants.md."""

from __future__ import annotations

import pytest

from tests.tools import mutation_survey

SAMPLE = 60


@pytest.mark.parametrize("name", mutation_survey.checks())
def test_most_mutants_are_detected(name: str) -> None:
    """At least 95 % of all mutants are detected; in an unlucky sample of 60, at least 88 %."""
    report = mutation_survey.survey_kernel(mutation_survey.checks()[name], sample=SAMPLE)
    assert report.judged >= SAMPLE // 2
    assert report.detected >= 0.88, str(report)
