"""What is seen and measured in a trained model: one module a question."""

from gatewise.insight.ablation import Ablation, ablate
from gatewise.insight.marks import MARKS, marks
from gatewise.insight.points import Plane, SlowPoints, principal_plane, slow_points
from gatewise.insight.probes import Probe, probe
from gatewise.insight.reading import (
    LongReading,
    half_life,
    read_long,
    saturation,
    selectivity,
)
from gatewise.insight.search import (
    Index,
    Pattern,
    Place,
    find,
    make_index,
    open_index,
    pattern_of,
)
from gatewise.insight.sensitivity import (
    Sensitivity,
    profile_of,
    sensitivity,
    untrained,
    windows_of,
)
from gatewise.insight.units import Follower, Worth, followers, worth

__all__ = [
    "MARKS",
    "Ablation",
    "Follower",
    "Index",
    "LongReading",
    "Pattern",
    "Place",
    "Plane",
    "Probe",
    "Sensitivity",
    "SlowPoints",
    "Worth",
    "ablate",
    "find",
    "followers",
    "half_life",
    "make_index",
    "marks",
    "open_index",
    "pattern_of",
    "principal_plane",
    "probe",
    "profile_of",
    "read_long",
    "saturation",
    "selectivity",
    "sensitivity",
    "slow_points",
    "untrained",
    "windows_of",
    "worth",
]
