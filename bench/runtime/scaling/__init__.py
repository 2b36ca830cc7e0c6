"""Speedup and collectives against the number of ranks: measured on a CPU, computed for GPUs."""
