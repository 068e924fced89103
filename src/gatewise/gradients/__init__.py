"""How gradients flow through time: sensitivities, lag profiles, Jacobians, Lyapunov exponents.

Everything here asks a net (a cell, a stack or a drop-in of `gatewise.nn`) through the one entry point
over time; no cell is treated apart.
"""

from gatewise.gradients.flow import flow
from gatewise.gradients.jacobians import Spectrum, jacobians, spectra
from gatewise.gradients.lags import Profile, by_lag, lag_profile
from gatewise.gradients.lyapunov import Exponents, lyapunov

__all__ = [
    "Exponents",
    "Profile",
    "Spectrum",
    "by_lag",
    "flow",
    "jacobians",
    "lag_profile",
    "lyapunov",
    "spectra",
]
