"""Run the forwards of one model under a policy.

It may import config, memory, schedule, models, ops and kernels.
"""
