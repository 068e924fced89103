"""Figures by matplotlib (the extra `plot`), returned as its Figure objects."""

from gatewise.plots.figures import save
from gatewise.plots.flow import matrix, profiles, spectrum

__all__ = ["matrix", "profiles", "save", "spectrum"]
