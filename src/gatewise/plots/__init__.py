"""Figures by matplotlib (the extra `plot`), returned as its Figure objects."""

from gatewise.plots.coloured import coloured
from gatewise.plots.fading import fading
from gatewise.plots.figures import COLOURS, DASHES, new, save
from gatewise.plots.flow import matrix, profiles, spectrum
from gatewise.plots.gates import gates
from gatewise.plots.paths import paths

__all__ = [
    "COLOURS",
    "DASHES",
    "coloured",
    "fading",
    "gates",
    "matrix",
    "new",
    "paths",
    "profiles",
    "save",
    "spectrum",
]
