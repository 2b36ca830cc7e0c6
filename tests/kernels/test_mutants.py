"""A sample of the mutants of each kernel; mutation_survey.py runs all, see mutants.md."""

from __future__ import annotations

import pytest

from tests.tools import mutation_survey

SAMPLE = 60


@pytest.mark.parametrize("name", mutation_survey.checks())
def test_most_mutants_are_noticed(name: str) -> None:
    """Of all mutants at least 95 %; of a sample of 60, with bad luck, at least 88 %."""
    report = mutation_survey.survey_kernel(mutation_survey.checks()[name], sample=SAMPLE)
    assert report.judged >= SAMPLE // 2
    assert report.noticed >= 0.88, str(report)
