"""Measure on the device, decide on the device, and bring the decision to the host."""
