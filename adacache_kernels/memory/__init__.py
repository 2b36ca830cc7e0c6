"""Hold residuals: the arena, its plan, its slots and its budget.

It may import models, ops and kernels.
"""
