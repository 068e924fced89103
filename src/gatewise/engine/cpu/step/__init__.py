"""Whole tokens in one call: the kernels of generation and streaming."""
