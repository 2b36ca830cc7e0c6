"""Speedup and communication against the number of ranks, measured on a CPU and computed for GPUs."""
