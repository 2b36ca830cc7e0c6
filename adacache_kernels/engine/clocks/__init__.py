"""Assign a generation, a step and a guidance branch to every forward call."""
