"""Lets the reference pages read docstrings whose sections follow each other without blank lines."""

from __future__ import annotations

import re
from typing import Any

import griffe

SECTION = re.compile(r"(?<!\n)\n(?=[ ]*(?:Args|Attributes|Returns|Yields|Raises):\n)")


class TightSections(griffe.Extension):
    """Puts the blank line before `Returns:` that the parser wants and the source does not need."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = SECTION.sub("\n\n", obj.docstring.value)
