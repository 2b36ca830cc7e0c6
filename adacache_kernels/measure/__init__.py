"""Measure generations: quality, time and cost."""
