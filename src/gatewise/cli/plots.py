"""Pictures by matplotlib (the extra `plot`): attention, maps, classes, numbers, heat maps, images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gatewise.errors import OptionError
from gatewise.plots.figures import FORMATS, need
from gatewise.plots.figures import new as _figure
from gatewise.plots.figures import plain as _plain
from gatewise.plots.figures import save as _save

_CELL = 0.32  # inches


def check(path: Path) -> None:
    """Refuse what cannot be drawn, before anything is computed.

    Raises:
        OptionError: the file is there, its folder is not, or its name says no known format.
        FailedError: matplotlib is not installed.
    """
    if path.suffix.lower() not in FORMATS:
        raise OptionError(f"--plot: expected a file of {', '.join(FORMATS)}, found {path}")
    if os.path.lexists(path):
        raise OptionError(f"{path} exists: expected a new file, choose another --plot")
    if not path.parent.is_dir():
        raise OptionError(f"--plot: {path.parent} is no folder to write {path.name} into")
    need()


def attention(path: Path, source: Sequence[str], target: Sequence[str], weights: Any) -> None:
    """Weights (T, S) as a picture: a row for each token that is written.

    Args:
        path: of the picture.
        source, target: tokens as shown.
        weights: shares from 0 to 1.
    """
    width = 1.8 + _CELL * len(source)
    height = 1.6 + _CELL * len(target)
    figure = _figure(width, height)
    axes = figure.add_subplot()
    axes.imshow(weights.numpy(), cmap="Greys", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(source)), [_plain(t) for t in source], rotation=60, ha="left")
    axes.set_yticks(range(len(target)), [_plain(t) for t in target])
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=9)
    _save(figure, path)


def scatter(
    path: Path,
    points: Any,
    names: Sequence[str],
    shares: Sequence[float],
    region: tuple[float, float, float, float] | None = None,
) -> None:
    """Points (n, 2) with their names written beside them.

    Args:
        path: of the picture.
        points: where each is.
        names: what is written.
        shares: of the variance, that each axis shows.
        region: x0, x1, y0, y1 to look at; default: all.
    """
    figure = _figure(9, 7)
    axes = figure.add_subplot()
    xs, ys = points[:, 0].tolist(), points[:, 1].tolist()
    axes.scatter(xs, ys, s=7, color="#36648b")
    axes.margins(0.08)
    if region is not None:
        axes.set_xlim(*region[:2])
        axes.set_ylim(*region[2:])
    left, right = axes.get_xlim()
    for x, y, name in zip(xs, ys, names, strict=True):
        last = x > right - 0.2 * (right - left)  # its name would leave the picture
        place, side = ((-3, 2), "right") if last else ((3, 2), "left")
        axes.annotate(
            _plain(name),
            (x, y),
            place,
            textcoords="offset points",
            ha=side,
            fontsize=7,
            clip_on=True,
        )
    axes.set_xlabel(f"first component ({shares[0]:.0%} of the variance)")
    axes.set_ylabel(f"second component ({shares[1]:.0%})")
    _save(figure, path)


def heat(path: Path, panels: Sequence[Any], across: str, down: str) -> None:
    """Tables of shares side by side, a number in each cell.

    Args:
        path: of the picture.
        panels: (title, columns, rows, shares from 0 to 1 by row) of each.
        across, down: what columns and rows are.
    """
    columns, rows = len(panels[0][1]), len(panels[0][2])
    figure = _figure(len(panels) * (1.6 + 0.75 * columns), 1.5 + 0.6 * rows)
    for k, (title, xs, ys, shares) in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), k)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(columns), [str(x) for x in xs])
        axes.set_yticks(range(rows), [str(y) for y in ys])
        for row, line in enumerate(shares):
            for column, share in enumerate(line):
                ink = "white" if share > 0.6 else "black"
                axes.text(column, row, f"{share:.2f}", ha="center", va="center", color=ink)
        axes.set_xlabel(across)
        axes.set_ylabel(down)
        axes.set_title(title, fontsize=9)
        axes.tick_params(length=0)
    _save(figure, path)


def confusion(
    path: Path,
    classes: Sequence[str],
    counts: Any,
    reliability: Sequence[dict[str, Any]],
    title: str,
) -> None:
    """A confusion matrix, shaded by the share of each true class, and beside it the calibration.

    Args:
        path: of the picture.
        classes: their names.
        counts: examples by (true, predicted), (C, C).
        reliability: certainty and accuracy of each bin, as `ClassTally.reliability` gives them.
        title: of which examples it is.
    """
    size = max(3.2, 0.36 * len(classes) + 1.2)
    figure = _figure(size + 4.0, size)
    left, right = figure.subplots(1, 2, width_ratios=[size, 3.4])
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    left.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*counts.nonzero(), strict=True):
        color = "white" if shares[row, column] > 0.55 else "black"
        text = str(counts[row, column])
        left.text(column, row, text, ha="center", va="center", fontsize=6.5, color=color)
    names = [_plain(one) for one in classes]
    left.set_xticks(range(len(names)), names, rotation=60, ha="right")
    left.set_yticks(range(len(names)), names)
    left.tick_params(length=0, labelsize=8)
    left.set(xlabel="predicted", ylabel="true", title=title)
    sure = [one["certainty"] for one in reliability]
    right.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
    right.plot(sure, [one["accuracy"] for one in reliability], marker="o", color="#36648b")
    right.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="certainty", ylabel="share that is right")
    right.set_title("calibration")
    right.set_box_aspect(1)
    _save(figure, path)


def predictions(path: Path, truth: Any, values: Any, title: str) -> None:
    """Predicted numbers over the true ones."""
    figure = _figure(5, 5)
    axes = figure.add_subplot()
    axes.scatter(truth, values, s=8, color="#36648b")
    ends = [min(truth.min(), values.min()), max(truth.max(), values.max())]
    axes.plot(ends, ends, color="#bbbbbb", linewidth=1)
    axes.set(xlabel="true", ylabel="predicted", title=title)
    _save(figure, path)


def over_steps(path: Path, tokens: Sequence[str], scores: Any, classes: Sequence[str]) -> None:
    """What is said after each step, (T, K): probabilities of the likeliest classes, or numbers.

    Args:
        path: of the picture.
        tokens: what is read at each step.
        scores: (T, K).
        classes: names of the K classes; none: numbers.
    """
    letters = len(tokens) <= 40
    figure = _figure(max(5.0, 1.8 + _CELL * len(tokens)) if letters else 9, 3.6)
    axes = figure.add_subplot()
    values = scores.numpy()
    if not classes:
        axes.plot(values[:, 0], color="#36648b")
        axes.set_ylabel("number")
    else:
        for k in (-values.max(0)).argsort()[:6]:
            axes.plot(values[:, k], marker="o" if letters else None, label=_plain(classes[k]))
        axes.set(ylim=(0, 1.02), ylabel="probability")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    if letters and all(len(token) <= 12 for token in tokens):
        axes.set_xticks(range(len(tokens)), [_plain(token) for token in tokens])
    else:
        axes.set_xlabel("steps read")
    _save(figure, path)


def images(path: Path, pictures: Sequence[Any], captions: Sequence[str], columns: int = 4) -> None:
    """Images (H, W, 3) in rows, each with its caption below it.

    Args:
        path: of the picture.
        pictures, captions: in order.
        columns: images in a row.
    """
    import textwrap

    count = min(columns, len(pictures))
    rows = -(-len(pictures) // count)
    figure = _figure(2.4 * count, 2.9 * rows)
    axes = figure.subplots(rows, count, squeeze=False).ravel().tolist()
    for axis in axes:
        axis.set_axis_off()
    for axis, picture, caption in zip(axes, pictures, captions, strict=False):
        axis.imshow(picture)
        wrapped = textwrap.fill(_plain(caption), 30)
        axis.text(0.5, -0.03, wrapped, transform=axis.transAxes, ha="center", va="top", fontsize=8)
    _save(figure, path)
