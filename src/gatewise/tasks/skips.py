"""What was left out of a data set, and why: counted, listed, and said in one line."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Skips:
    """Things that could not be used.

    >>> skips = Skips()
    >>> skips.add("a.tsv, line 3", "an empty side")
    >>> skips.summary()
    'skipped: 1 with an empty side (a.tsv, line 3)'

    Args:
        entries: (where, reason) of each.
    """

    entries: list[tuple[str, str]] = field(default_factory=list)

    def add(self, where: str, reason: str) -> None:
        """One more."""
        self.entries.append((where, reason))

    def __len__(self) -> int:
        return len(self.entries)

    def summary(self, named: int = 3) -> str:
        """How many by reason, the first of each named; "" if nothing was left out."""
        if not self.entries:
            return ""
        parts = []
        for reason, count in Counter(reason for _, reason in self.entries).items():
            places = [where for where, why in self.entries if why == reason]
            more = ", ..." if count > named else ""
            parts.append(f"{count:,} with {reason} ({'; '.join(places[:named])}{more})")
        return "skipped: " + ", ".join(parts)
