"""Figures by matplotlib (the extra `plot`), returned as its Figure objects."""

from gatewise.plots.figures import save
from gatewise.plots.flow import matrix, profiles, spectrum
from gatewise.plots.gates import gates

__all__ = ["gates", "matrix", "profiles", "save", "spectrum"]
