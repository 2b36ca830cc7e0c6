"""Tests of the step clock and of the evidence that it is fed with."""
