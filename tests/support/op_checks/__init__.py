"""Operands of the ops, calls of single backends, and checks against the references."""
