"""What is seen and measured in a trained model: one module a question."""

from gatewise.insight.ablation import Ablation, ablate
from gatewise.insight.directions import Direction, direction
from gatewise.insight.fading import Fading, fading
from gatewise.insight.lens import Fitted, Lens, Said, fit, lens
from gatewise.insight.marks import MARKS, marks
from gatewise.insight.patching import Patched, patch, patch_control
from gatewise.insight.points import Plane, SlowPoints, principal_plane, slow_points
from gatewise.insight.probes import Probe, probe
from gatewise.insight.reading import (
    LongReading,
    half_life,
    keeping,
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
from gatewise.insight.task_sensitivity import task_sensitivity
from gatewise.insight.trajectories import as_states, states_along
from gatewise.insight.units import Follower, Worth, followers, worth

__all__ = [
    "MARKS",
    "Ablation",
    "Direction",
    "Fading",
    "Fitted",
    "Follower",
    "Index",
    "Lens",
    "LongReading",
    "Patched",
    "Pattern",
    "Place",
    "Plane",
    "Probe",
    "Said",
    "Sensitivity",
    "SlowPoints",
    "Worth",
    "ablate",
    "as_states",
    "direction",
    "fading",
    "find",
    "fit",
    "followers",
    "half_life",
    "keeping",
    "lens",
    "make_index",
    "marks",
    "open_index",
    "patch",
    "patch_control",
    "pattern_of",
    "principal_plane",
    "probe",
    "profile_of",
    "read_long",
    "saturation",
    "selectivity",
    "sensitivity",
    "slow_points",
    "states_along",
    "task_sensitivity",
    "untrained",
    "windows_of",
    "worth",
]
