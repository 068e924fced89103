"""Recurrent networks with their gates open."""

__version__ = "0.1.0"
