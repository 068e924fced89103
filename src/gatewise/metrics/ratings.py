"""What people say of captions, on the lecture's four levels, and how far they and the metrics agree.

A file of ratings is JSONL, a line each: {"item": "a.jpg", "caption": "a dog runs", "rater": "ann",
"level": 3}. Agreement and correlations need the extra `ratings`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gatewise.errors import DataError, OptionError

LEVELS = {
    4: "describes without errors",
    3: "describes with minor errors",
    2: "somewhat related to the image",
    1: "unrelated to the image",
}
"""The lecture's four levels; a higher number is a better caption, as in Flickr8k's expert scores."""

_FIELDS = ("item", "caption", "rater", "level")


@dataclass(frozen=True)
class Rating:
    """One person's level for one caption of one thing.

    Args:
        item: what is described: an image's path, say.
        caption: its text.
        rater: who.
        level: 1 to 4, see `LEVELS`.
    """

    item: str
    caption: str
    rater: str
    level: int

    def __post_init__(self) -> None:
        if isinstance(self.level, bool) or self.level not in LEVELS:
            raise DataError(f"expected a level of 1 to 4, found {self.level!r}")


def read_ratings(path: str | Path) -> list[Rating]:
    """The ratings of a JSONL file; of the same person's for the same caption, the last one.

    Raises:
        DataError: with file and line, if a line is not a rating; if there is none.
    """
    found: dict[tuple[str, str, str], Rating] = {}
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            rating = Rating(*(_field(entry, name) for name in _FIELDS))
        except (DataError, TypeError, ValueError) as error:
            raise DataError(f"{path}, line {number}: {_reason(error)}") from None
        found[rating.item, rating.caption, rating.rater] = rating
    if not found:
        raise DataError(f"{path}: expected ratings, a JSON object a line, found none")
    return list(found.values())


def append_rating(path: str | Path, rating: Rating) -> None:
    """Add one to the end of a JSONL file, which is made if it is not there.

    The line is one write, so that several people may rate into one file.
    """
    line = json.dumps(asdict(rating), ensure_ascii=False) + "\n"
    with open(path, "ab", buffering=0) as file:
        file.write(line.encode())


def read_expert_annotations(path: str | Path) -> list[Rating]:
    """Flickr8k's ExpertAnnotations.txt: image, caption's id, three experts' scores, by tabs.

    Hodosh, Young & Hockenmaier 2013. The raters are named expert_1 to expert_3; the caption is the
    id, such as `a.jpg#2`, of the caption of the image a.jpg.

    Raises:
        DataError: with file and line, if a line is another.
    """
    ratings = []
    for number, line in enumerate(_lines(path), 1):
        parts = line.split("\t")
        if len(parts) < 3 or not all(part.strip() in "1234" for part in parts[2:]):
            expected = "image, caption's id and scores of 1 to 4, by tabs"
            raise DataError(f"{path}, line {number}: expected {expected}, found {line[:60]!r}")
        for k, score in enumerate(parts[2:], 1):
            ratings.append(Rating(parts[0], parts[1], f"expert_{k}", int(score)))
    return ratings


@dataclass(frozen=True, eq=False)
class RatingTable:
    """Levels by caption and person.

    Args:
        captions: (item, caption) of each row.
        raters: of each column.
        levels: (captions, raters), NaN where one has not rated.
    """

    captions: list[tuple[str, str]]
    raters: list[str]
    levels: np.ndarray[Any, np.dtype[np.float64]]

    @classmethod
    def of(cls, ratings: Iterable[Rating]) -> RatingTable:
        """The table of these, in the order of their first mention."""
        found = list(ratings)
        rows = {key: k for k, key in enumerate(dict.fromkeys((r.item, r.caption) for r in found))}
        columns = {name: k for k, name in enumerate(dict.fromkeys(r.rater for r in found))}
        levels = np.full((len(rows), len(columns)), np.nan)
        for rating in found:
            levels[rows[rating.item, rating.caption], columns[rating.rater]] = rating.level
        return cls(list(rows), list(columns), levels)

    @property
    def means(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Mean level of each caption over those who rated it, (captions,)."""
        mean: np.ndarray[Any, np.dtype[np.float64]] = np.nanmean(self.levels, axis=1)
        return mean

    def agreement(self) -> float:
        """Krippendorff's alpha for ordinal levels: 1 all agree, 0 as by chance.

        Krippendorff 2011, "Computing Krippendorff's alpha-reliability". NaN where it has no value:
        no caption rated twice, or one level only.

        Raises:
            OptionError: if the package `krippendorff` is not installed.
        """
        several = self.levels[(~np.isnan(self.levels)).sum(1) >= 2]
        seen = several[~np.isnan(several)]
        if not len(several) or len(set(seen.tolist())) < 2:
            return math.nan
        alpha = _module("krippendorff").alpha
        return float(
            alpha(
                reliability_data=several.T,
                value_domain=sorted(LEVELS),
                level_of_measurement="ordinal",
            )
        )

    def summary(self) -> dict[str, Any]:
        """How many ratings each level got, of all and by person; the mean level, as JSON values."""
        known = self.levels[~np.isnan(self.levels)]
        return {
            "captions": len(self.captions),
            "raters": len(self.raters),
            "ratings": int(known.size),
            "mean": float(known.mean()) if known.size else None,
            "levels": [_level(level, known) for level in LEVELS],
            "by_rater": {
                name: [int((self.levels[:, k] == level).sum()) for level in LEVELS]
                for k, name in enumerate(self.raters)
            },
        }


def correlations(scores: Mapping[str, Sequence[float]], people: Any) -> dict[str, dict[str, float]]:
    """How each metric goes with people: Kendall's tau-b and tau-c, Spearman's rho, by scipy.

    Published figures on Flickr8k's expert scores are of either tau; both are given.

    Args:
        scores: by the metric's name, one for each caption, (n,).
        people: their judgement of each caption, (n,): the mean level, say.
    Raises:
        DataError: if lengths differ, or there are fewer than two captions.
        OptionError: if scipy is not installed.
    """
    levels = np.asarray(people, float)
    stats = _module("scipy.stats")
    found = {}
    for name, values in scores.items():
        if len(values) != len(levels) or len(levels) < 2:
            count = f"{len(values):,} of {name} and {len(levels):,}"
            raise DataError(f"expected two scores or more, and as many of people, found {count}")
        found[name] = {
            "tau_b": float(stats.kendalltau(values, levels, variant="b").statistic),
            "tau_c": float(stats.kendalltau(values, levels, variant="c").statistic),
            "spearman": float(stats.spearmanr(values, levels).statistic),
        }
    return found


def _level(level: int, known: Any) -> dict[str, Any]:
    count = int((known == level).sum())
    share = count / known.size if known.size else None
    return {"level": level, "meaning": LEVELS[level], "ratings": count, "share": share}


def _field(entry: Any, name: str) -> Any:
    if not isinstance(entry, dict) or name not in entry:
        raise DataError(f"expected an object with {', '.join(_FIELDS)}, found no {name!r}")
    value = entry[name]
    if name != "level" and not isinstance(value, str):
        raise DataError(f"expected {name!r} as text, found {value!r}")
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, DataError):
        return str(error)
    return f"expected a JSON object, found something else ({error})"


def _lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{path}: expected a file of ratings: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: expected text as UTF-8, found other bytes") from None


def _module(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise OptionError(
            f"agreement and correlations need {package}, which is not installed: "
            "run pip install 'gatewise[ratings]'"
        ) from None
