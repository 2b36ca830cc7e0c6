"""Mechanisms of the baselines: which blocks or modules reuse what."""
