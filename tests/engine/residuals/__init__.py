"""Tests of what block lists add, and of writes into the streams."""
