"""How profiles, spectra and exponents show themselves in a notebook. It knows their data, not their classes."""

from __future__ import annotations

from torch import Tensor

from gatewise.display import Markup, block, line_chart, table

_LAGS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_MOST = 16
_STEPS = 2000
"""Steps up to which a line is made of all of them."""


def profile_html(
    norms: Tensor, wrt: str, layer: int, decay: float, reach: int, mean_lag: float
) -> Markup:
    """The norms by lag on a logarithmic axis, some of them in a table, and what they come to."""
    what = "the whole state" if wrt == "state" else wrt
    rows = [[f"lag {n:,}", f"{float(norms[n]):.2e}"] for n in _LAGS if n < len(norms)]
    rows += [
        ["changes by", f"{decay:+.4f} nats a step"],
        ["reach (1 %)", f"{reach:,} steps"],
        ["mean lag", f"{mean_lag:.1f} steps"],
    ]
    chart = line_chart(
        {what: _line(norms)}, "lag n, steps", f"|d cost / d {wrt}|", logarithmic=True
    )
    title = f"Sensitivity of the cost to {what} of layer {layer}, by lag"
    return block(title, chart, table((), rows))


def spectrum_html(times: Tensor, singular: Tensor, radius: Tensor) -> Markup:
    """What the steps of column 0 do to small changes of the state, over time."""
    values = singular[:, 0]
    lines = {
        "largest singular value": _line(values[:, 0]),
        "median singular value": _line(values[:, values.shape[1] // 2]),
        "spectral radius": _line(radius[:, 0]),
    }
    head = ["", "mean", "least", "most"]
    rows: list[list[str | float]] = [
        [name, sum(line) / len(line), min(line), max(line)] for name, line in lines.items()
    ]
    first, last = int(times[0]), int(times[-1])
    title = f"Jacobians of {len(times):,} steps, times {first:,} to {last:,}"
    chart = line_chart(lines, "step", "of d state[t] / d state[t-1]", start=first)
    return block(title, chart, table(head, rows))


def exponents_html(values: Tensor, history: Tensor, dimension: Tensor) -> Markup:
    """The exponents of the columns, the largest first, and how the first one settled."""
    count = values.shape[1]
    shown = min(count, _MOST)
    head = ["column", *(f"exponent {k + 1}" for k in range(shown)), "dimension"]
    rows: list[list[str | float]] = [
        [str(k), *(f"{value:+.4f}" for value in row[:shown].tolist()), float(dimension[k])]
        for k, row in enumerate(values[:_MOST])
    ]
    more = f" (the first {shown} of {count:,})" if shown < count else ""
    chart = line_chart(
        {"exponent 1": _line(history[:, 0, 0])}, "step", "exponent 1 so far, nats/step"
    )
    title = f"Lyapunov exponents in nats per step{more}"
    return block(title, table(head, rows, len(values) - len(rows)), chart)


def _line(values: Tensor) -> list[float]:
    """All of a row of numbers, or every so manieth."""
    found: list[float] = values.detach()[:: max(1, len(values) // _STEPS)].double().cpu().tolist()
    return found
