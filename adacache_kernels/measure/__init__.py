"""Measure generations: quality, time and cost.

It imports no other wing.
"""
