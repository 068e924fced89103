"""rnn-writer's two endpoints, for its unmodified client.

The client compares the echo of its text byte by byte, ignores the status, knows an error by `message`, and puts a
space behind what it inserts. Its first server drew a temperature for every completion, and wrote until a sentence ended;
so does this one, with an end to its work.
"""

from __future__ import annotations

import random
import re
import time
from urllib.parse import unquote_plus

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from pydantic import BaseModel
from starlette.responses import Response

from gatewise.complete import Request
from gatewise.generate import SamplingOptions
from gatewise.serve.bounds import MOST_TEXT
from gatewise.serve.refusals import Refused, as_json
from gatewise.serve.runs import Loaded
from gatewise.serve.service import Message, Route, Service, errors

MOST = 10
"""Completions of a request."""
CHARACTERS = 140
FEWEST, MOST_WORDS = 3, 20
_TEMPERATURES = (0.5, 0.6, 0.7, 0.8, 0.9)
_ROUNDS = 3
"""How often is drawn again for completions that are too short."""
_SECONDS = 2.0
_END = re.compile(r"[.!?]")


class Completions(BaseModel):
    """What the client reads."""

    start_text: str
    completions: list[str]
    time: str


def router(service: Service) -> APIRouter:
    """The endpoints."""
    routes = APIRouter(route_class=Route, tags=["rnn-writer"])

    @routes.get("/", response_model=dict[str, str], summary="That it runs")
    async def root() -> Response:
        return as_json({"message": "Have fun!"})

    @routes.get(
        "/generate",
        response_model=Completions,
        responses=errors(Message),
        summary="Continue a text",
        openapi_extra={"parameters": _PARAMETERS},
    )
    async def generate(request: HttpRequest) -> Response:
        started = time.perf_counter()
        query = _query(request.scope["query_string"])
        _, loaded = service.find(_decoded(query.get("model", "")))
        prefix = _decoded(query.get("start_text", ""))
        wanted = _wanted(query.get("n", "1"))
        with loaded.held():
            found = await _completions(service, request, loaded, prefix, wanted)
        if not found:
            raise Refused(503, "the model has nothing to say here: write on", retry_after=1)
        return as_json(
            {
                "start_text": query.get("start_text", ""),
                "completions": found,
                "time": f"{time.perf_counter() - started:.2f}",
            }
        )

    return routes


_PARAMETERS = [
    {
        "name": name,
        "in": "query",
        "required": False,
        "schema": {"type": "string"},
        "description": text,
    }
    for name, text in {
        "start_text": "what stands before the cursor",
        "n": "how many completions, 1 to 10",
        "model": "which run; without one the first",
    }.items()
]


def _query(raw: bytes) -> dict[str, str]:
    """The parts of a query as they were sent: the first of each name."""
    found: dict[str, str] = {}
    for part in raw.decode("latin-1").split("&"):
        name, _, value = part.partition("=")
        found.setdefault(name, value)
    return found


def _decoded(value: str) -> str:
    """What a part says; what is no UTF-8 becomes U+FFFD."""
    text = unquote_plus(value, errors="replace")
    if len(text) > MOST_TEXT:
        raise Refused(400, f"expected a text of at most {MOST_TEXT:,} characters")
    return text


def _wanted(text: str) -> int:
    """How many are asked for, at most 10.

    Raises:
        Refused: that is no number.
    """
    digits = unquote_plus(text).strip()
    if not digits:
        return 1
    if not (digits.isascii() and digits.isdigit()):
        raise Refused(400, "n: expected a whole number of 1 or more")
    return max(1, min(MOST, int(digits[-20:]) if len(digits) <= 20 else MOST))


async def _completions(
    service: Service, http: HttpRequest, loaded: Loaded, prefix: str, n: int
) -> list[str]:
    """Up to n different completions: whole sentences, or as much of one as there is."""
    good: dict[str, None] = {}
    rest: dict[str, None] = {}
    end = time.monotonic() + _SECONDS
    for _ in range(_ROUNDS):
        left = end - time.monotonic()
        if len(good) >= n or left <= 0:
            break
        request = _request(prefix, n - len(good), left)
        (answer,) = await service.answers(http, loaded, [request])
        for sample in answer.samples:
            text, fits = shaped(sample.text)
            if text:
                (good if fits else rest).setdefault(text)
    return [*good, *(one for one in rest if one not in good)][:n]


def _request(prefix: str, n: int, seconds: float) -> Request:
    # before the end of the fourth sentence stand more than three words
    options = SamplingOptions(
        n=n, max_tokens=CHARACTERS, max_characters=CHARACTERS, sentences=FEWEST + 1
    )
    return Request(prefix, options, "", seconds, [random.choice(_TEMPERATURES) for _ in range(n)])


def shaped(text: str) -> tuple[str, bool]:
    """A completion as far as its sentence goes, and whether it has as many words as it should.

    It ends with the first full stop after more than three words; the space behind it is the client's.
    """
    for mark in _END.finditer(text):
        if len(text[: mark.start()].split()) > FEWEST:
            text = text[: mark.end()]
            break
    words = len(text.split())
    if words > MOST_WORDS:
        found = re.match(rf"\s*(?:\S+\s+){{{MOST_WORDS - 1}}}\S+", text)
        text = text if found is None else found[0]
    return text.rstrip(), words >= FEWEST
