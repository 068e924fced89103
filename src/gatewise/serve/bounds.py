"""How much a request may ask for: checked as its body is read into a model, before anything else is made.

Knows no protocol. A body that is above a bound is answered with 400, one that is above the cap with 413.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict

MOST_BYTES = 1 << 20
"""Of a body."""
MOST_TEXT = 500_000
"""Characters of a text that is to be continued, and of one behind the place."""
MOST_TOKENS = 4096
"""Tokens of a continuation."""
MOST_SAMPLES = 32
"""Continuations of one text."""
MOST_TOGETHER = 64
"""Continuations of one request, of all its texts together."""
MOST_SCORED = 20_000
"""Tokens of which a request may ask for the log-probabilities, or characters of a text for that."""
MOST_TEXTS = 16
MOST_STOPS = 16
STOP_LENGTH = 256
MOST_BIASES = 300
MOST_SECONDS = 60.0
"""After which a request is answered with what there is."""


def _whole(value: Any) -> Any:
    """2.0 is a whole number in JSON; true and "2" are none."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, Strict(), BeforeValidator(_whole)]

Text = Annotated[str, Field(max_length=MOST_TEXT)]
Name = Annotated[str, Field(max_length=256)]
Flag = Annotated[bool, Strict()]
# of a list the first error is enough: a megabyte of them would hold up everybody
Id = Annotated[int, Field(ge=0, le=2**31 - 1), Strict()]
Ids = Annotated[list[Id], Field(min_length=1, max_length=MOST_TEXT, fail_fast=True)]
Seed = Annotated[Whole, Field(ge=-(2**63), le=2**64 - 1)]
Tokens = Annotated[Whole, Field(ge=0, le=MOST_TOKENS)]
Samples = Annotated[Whole, Field(ge=1, le=MOST_SAMPLES)]
Count = Annotated[Whole, Field(ge=1, le=100_000)]
Stop = Annotated[str, Field(min_length=1, max_length=STOP_LENGTH)]
Stops = Annotated[list[Stop], Field(max_length=MOST_STOPS, fail_fast=True)]
Part = Annotated[float, Field(ge=0, le=1), Strict()]
Temperature = Annotated[float, Field(ge=0, le=100), Strict()]
TopK = Annotated[Whole, Field(ge=-1, le=2**31 - 1)]
Milliseconds = Annotated[float, Field(le=1e9, ge=-1), Strict()]


class Body(BaseModel):
    """A request's body: what a protocol does not know is ignored, as its servers do."""

    model_config = ConfigDict(extra="ignore", frozen=True)


def seed_of(seed: int | None) -> int | None:
    """A seed as it is drawn with."""
    return None if seed is None else seed % 2**63
