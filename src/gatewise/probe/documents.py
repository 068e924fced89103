"""JSON from a file: what cannot be used is a DataError."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gatewise.errors import DataError


def read_json(text: str, what: str) -> Any:
    """The value in a JSON document; DataError if it is none."""
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{what} is not JSON: {error}") from None


@contextmanager
def as_data_error(what: str) -> Iterator[None]:
    """What a constructor refuses is, in a file, bad data."""
    try:
        yield
    except DataError:
        raise
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:
        raise DataError(f"{what}: {error}") from None
