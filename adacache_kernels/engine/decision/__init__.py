"""Measure on the device, decide there, and bring the decision to the host."""
