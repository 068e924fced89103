"""What objects are made of where they show themselves in a notebook: tables, maps and lines, as HTML.

It knows text and numbers, nothing of nets; all text is escaped, and every size is bounded.
"""

from gatewise.display.lines import line_chart
from gatewise.display.maps import heat_map
from gatewise.display.markup import Markup, block, escape, number, places, table

__all__ = [
    "Markup",
    "block",
    "escape",
    "heat_map",
    "line_chart",
    "number",
    "places",
    "table",
]
