"""Record and Control: what to read inside a net and what to set, as data.

A name is a gate, a state or a stage of the cell ("f", "c", "f.pre", "c.new"), or a whole path
("layers.0.f", "layers.1.reverse.c"). A short name means that value in every layer and direction.
Both are honoured where the name is defined: every later use, in this step and the next, sees the
controlled value, and what is recorded is what the net used. Time counts from the start of the sequence.
"""

from __future__ import annotations

from gatewise.probe.blocks import active_control, controlled
from gatewise.probe.control import FIXED, MEMORY, Control, Rule
from gatewise.probe.parts import control_of, joined, record_of
from gatewise.probe.record import Record, Records, in_sequence

__all__ = [
    "FIXED",
    "MEMORY",
    "Control",
    "Record",
    "Records",
    "Rule",
    "active_control",
    "control_of",
    "controlled",
    "in_sequence",
    "joined",
    "record_of",
]
