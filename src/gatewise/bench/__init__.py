"""Measures gatewise beside its peers."""
