"""`gatewise inspect units`: what units follow, what they are worth, how long they remember."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from gatewise.cli import screen
from gatewise.cli.inspecting import Text, check_least, given_text, marked, say_unknown
from gatewise.cli.options import Json
from gatewise.cli.runs import Opening, OpeningFlags, RunPath, open_run
from gatewise.cli.saving import check_new, save_arrays
from gatewise.errors import DataError, OptionError

if TYPE_CHECKING:
    from gatewise.insight import Follower, LongReading, Probe, Worth
    from gatewise.insight.marks import Marks
    from gatewise.run import LanguageRun

_LONGEST = 5


def inspect_units(
    run: RunPath,
    text: Text,
    /,
    *,
    follow: Annotated[
        str | None,
        Parameter(
            help="brackets, capitals, comments, ends (of lines), far (from their beginnings), indentation, quotes, "
            "or a regular expression between slashes."
        ),
    ] = None,
    record: Annotated[
        str,
        Parameter(
            help="Gates and states to look at, with commas between them. Default: c (h of a cell without it); without "
            "--follow all gates."
        ),
    ] = "",
    top: Annotated[int, Parameter(help="How many units to show.")] = 10,
    worth: Annotated[
        int,
        Parameter(help="Hold so many of the best at 0, one after the other and together; 0: none."),
    ] = 3,
    characters: Annotated[int, Parameter(help="Read at most so much of the text.")] = 100_000,
    out: Annotated[
        Path | None,
        Parameter(help="Save tokens, costs, marks and every value as a NumPy .npz file."),
    ] = None,
    opening: OpeningFlags = Opening(),  # noqa: B008
    json: Json = False,
) -> int:
    """What units follow; `gatewise inspect units --help` says more."""
    check_new(out, endings=(".npz",))
    check_least(top=(top, 1), worth=(worth, 0), characters=(characters, 2))
    opened = open_run(run, opening, "read")
    given = given_text(text, characters)
    say_unknown(opened, given)
    looked = _Look(opened, given, _names(opened, record, follow), follow, opening.engine)
    if out is not None:
        looked.save(out)
    if follow is None:
        _say_memory(looked, json=json)
    else:
        _say_followers(looked, top, worth, json=json)
    return 0


def _names(run: LanguageRun, record: str, follow: str | None) -> list[str]:
    asked = [name.strip() for name in record.split(",") if name.strip()]
    law = run.model.stack.directions()[0].law
    if asked:
        return asked
    if not follow and not law.graph.gates:
        raise OptionError(
            f"--record: the cell {law.name} has no gates; expected --record h, or --follow to see what its units follow"
        )
    return ["c" if "c" in law.states else "h"] if follow else list(law.graph.gates)


class _Look:
    """A text that was read, and where the mark is."""

    def __init__(
        self,
        run: LanguageRun,
        text: str,
        names: Sequence[str],
        follow: str | None,
        engine: str,
    ) -> None:
        from gatewise.insight import read_long

        self.run, self.text, self.follow, self.engine = run, text, follow, engine
        self.reading: LongReading = read_long(run, text, record=names, engine=engine)
        self.where: Marks | None = None
        if follow is not None:
            ids = self.reading.ids
            self.where = marked(run, ids, follow)
            if not self.where.any() or self.where.all():
                count = int(self.where.sum())
                raise DataError(
                    f"--follow {follow}: expected tokens with it and without, found {count:,} of {len(ids):,} "
                    "with it: choose another text or mark"
                )

    def probes(self) -> dict[str, Probe]:
        """What all units of each gate or state together say of the mark; none where a half has no such tokens, or no others."""
        from gatewise.insight import probe

        assert self.where is not None
        half = len(self.where) // 2
        if any(not part.any() or part.all() for part in (self.where[:half], self.where[half:])):
            return {}
        return {path: probe(values, self.where) for path, values in self.reading.record.items()}

    def worth(self, units: Sequence[tuple[str, int]]) -> Worth:
        """What it costs to hold units at 0."""
        from gatewise.insight import worth

        assert self.where is not None
        return worth(self.run, self.text, self.where, units, self.reading, engine=self.engine)

    def save(self, out: Path) -> None:
        import numpy as np

        reading = self.reading
        tokens = np.array([self.run.tokenizer.tokens[i] for i in reading.ids.tolist()])
        arrays: dict[str, Any] = {"ids": reading.ids, "tokens": tokens, "nats": reading.nats}
        if self.where is not None:
            arrays["marks"] = self.where
        save_arrays(out, arrays | reading.record)


def _say_followers(looked: _Look, top: int, count: int, *, json: bool) -> None:
    from gatewise.insight import followers

    assert looked.where is not None
    found = followers(looked.reading, looked.where, top)
    places = [(one.path, one.unit) for one in found]
    sets = [[one] for one in places[:count]]
    if count > 1:
        sets.append(places[:count])
    values = [looked.worth(units) for units in sets]
    together = values.pop() if count > 1 else None
    if json:
        screen.out_json(_document(looked, found, values, together))
    else:
        screen.out(_table(looked, found, values, together))


def _table(
    looked: _Look, found: Sequence[Follower], values: Sequence[Worth], together: Worth | None
) -> str:
    assert looked.where is not None
    share = float(looked.where.mean())
    head = f"{looked.follow}: {share:.1%} of {len(looked.where):,} tokens"
    held = ["at 0: nats inside", "outside"] if values else ["", ""]
    rows = [["", "unit", "score", "inside", "outside", *held]]
    for k, one in enumerate(found):
        cells = _change(values[k]) if k < len(values) else ["", ""]
        means = [f"{one.score:+.3f}", f"{one.inside:+.3f}", f"{one.outside:+.3f}"]
        rows.append([one.path, str(one.unit), *means, *cells])
    if together is not None:
        rows.append([f"the first {len(values)} together", "", "", "", "", *_change(together)])
    lines = [head, screen.table(rows, indent="")]
    probes = looked.probes()
    lines += [_probed(path, one) for path, one in probes.items()]
    if not probes:
        lines.append("no linear probe: one half of the text has no such tokens, or no others")
    if values:
        lines.append(
            f"cost of the next token with no unit held: {values[0].before_inside:.4f} nats inside, "
            f"{values[0].before_outside:.4f} outside"
        )
    return "\n".join(lines)


def _probed(path: str, found: Probe) -> str:
    return (
        f"all units of {path} together (a linear probe, on the second half): right on {found.accuracy:.1%} of "
        f"the tokens, on {found.balanced:.1%} on average of those with and without it (always the more frequent: {found.most_frequent:.1%})"
    )


def _change(value: Worth) -> list[str]:
    return [f"{value.inside:+.4f}", f"{value.outside:+.4f}"]


def _document(
    looked: _Look, found: Sequence[Follower], values: Sequence[Worth], together: Worth | None
) -> dict[str, Any]:
    assert looked.where is not None
    units = [dataclasses.asdict(one) for one in found]
    for one, value in zip(units, values, strict=False):
        one["held"] = dataclasses.asdict(value)
    return {
        "run": str(looked.run.path),
        "follow": looked.follow,
        "tokens": len(looked.where),
        "marked": int(looked.where.sum()),
        "units": units,
        "probes": {
            path: {
                "accuracy": one.accuracy,
                "balanced": one.balanced,
                "most_frequent": one.most_frequent,
            }
            for path, one in looked.probes().items()
        },
        "held_together": None if together is None else dataclasses.asdict(together),
    }


def _say_memory(looked: _Look, *, json: bool) -> None:
    """Saturation of each gate, and how long units remember."""
    from gatewise.insight import half_life, keeping, saturation

    rows = [["", "units", "below .1", "above .9", "mean"]]
    documents = []
    for path, values in looked.reading.record.items():
        mean, shares = f"{values.mean():+.3f}", ["", ""]
        if values.min() >= 0 and values.max() <= 1:  # what opens and closes
            low, high = saturation(values)
            shares = [f"{low.mean():.1%}", f"{high.mean():.1%}"]
            documents.append({"path": path, "below": low, "above": high})
        rows.append([path, str(values.shape[1]), *shares, mean])
    lines = [screen.table(rows, indent=""), "share of the time, mean of the units"]
    kept = keeping(looked.run.model.stack.directions()[0].law)
    for path, values in looked.reading.record.items():
        if kept is not None and path.rpartition(".")[2] == kept[0]:
            lives = half_life(values if kept[1] else 1 - values)
            lines.append(f"{path}: {_lives(lives)}")
            documents.append({"path": path, "half_life": lives})
    if json:
        screen.out_json({"run": str(looked.run.path), "gates": documents})
    else:
        screen.out("\n".join(lines))


def _lives(lives: Any) -> str:
    """How long units remember: the median, and the longest."""
    order = lives.argsort()[::-1][:_LONGEST].tolist()
    longest = ", ".join(f"{lives[k]:,.0f} (unit {k})" for k in order)
    middle = float(sorted(lives.tolist())[len(lives) // 2])
    return f"half of it is forgotten in {middle:.1f} steps (median); longest: {longest}"
