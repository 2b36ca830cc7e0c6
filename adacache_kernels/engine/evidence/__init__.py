"""Collect the evidence of a forward call: to which generation, step and branch it belongs.

Nothing here reads a tensor on a device. docs/development/evidence.md has the rules.
"""
