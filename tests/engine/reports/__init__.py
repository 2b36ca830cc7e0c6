"""Tests of the summary, the reasons and the warnings of a generation."""
