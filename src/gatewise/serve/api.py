"""What the other protocols cannot say: the runs, the gates of a text, continuations under a control."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from pydantic import BaseModel, ConfigDict, Field, Strict
from starlette.responses import Response

from gatewise.complete import Answer, Request
from gatewise.errors import DataError, GatewiseError, UsageError
from gatewise.generate import SamplingOptions
from gatewise.probe import Control, Record
from gatewise.serve import bounds
from gatewise.serve.refusals import Refused, as_json
from gatewise.serve.runs import Loaded
from gatewise.serve.service import Message, Route, Service, Turns, errors, seconds_of

MOST_READ = 2000
"""Characters of a text whose gates are shown."""
MOST_NUMBERS = 200_000
"""Of an answer with gates."""
MOST_RULES = 32
"""Of a control."""


class Exact(bounds.Body):
    """A body in which a misspelt field is refused: no client sends here what other servers understand."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CompleteBody(Exact):
    """A text to continue."""

    prefix: bounds.Text
    run: bounds.Name | None = None
    suffix: bounds.Text = ""
    n: bounds.Samples = 3
    max_tokens: bounds.Tokens = 64
    temperature: bounds.Temperature = 0.7
    top_k: Annotated[bounds.Whole, Field(ge=0, le=2**31 - 1)] = 0
    top_p: Annotated[float, Strict(), Field(gt=0, le=1)] = 1.0
    min_p: bounds.Part = 0.0
    stop: bounds.Stops = Field(default_factory=list)
    lines: bounds.Count | None = None
    sentences: bounds.Count | None = None
    words: bounds.Count | None = None
    closing: bounds.Flag = False
    confidence: bounds.Part = 0.0
    max_characters: bounds.Count | None = None
    seed: Annotated[bounds.Whole, Field(ge=0, le=2**63 - 1)] | None = None
    seconds: Annotated[float, Strict(), Field(gt=0, le=bounds.MOST_SECONDS)] | None = None
    control: dict[str, Any] | list[Any] | None = None


class Candidate(BaseModel):
    """One continuation."""

    text: str
    logprob: float
    probability: float
    tokens: int
    finish_reason: str


class Seconds(BaseModel):
    """What a request waited for."""

    waited: float
    reading: float
    writing: float


class CompleteAnswer(BaseModel):
    """Different continuations, the best first."""

    run: str
    completions: list[Candidate]
    ended: str
    read: int
    known: int
    written: int
    seconds: Seconds
    seed: int
    notes: list[str]


class GatesBody(Exact):
    """A text, and what is to be seen in it."""

    text: Annotated[str, Field(min_length=1, max_length=MOST_READ)]
    names: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=64)]],
        Field(max_length=16, fail_fast=True),
    ] = Field(default_factory=list)
    run: bounds.Name | None = None
    units: (
        Annotated[
            list[Annotated[bounds.Whole, Field(ge=0, le=1_000_000)]],
            Field(min_length=1, max_length=64, fail_fast=True),
        ]
        | None
    ) = None
    control: dict[str, Any] | list[Any] | None = None


class GatesAnswer(BaseModel):
    """A row for each token; nats of the first are null."""

    run: str
    tokens: list[str]
    nats: list[float | None]
    values: dict[str, list[list[float | None]]]
    notes: list[str]


class RunEntry(BaseModel):
    """A run that is served."""

    name: str
    ready: bool
    step: int | None = None
    parameters: int | None = None
    tokenizer: str | None = None
    vocabulary: int | None = None
    dtype: str | None = None
    controlled: bool
    taken_over: int


class RunList(BaseModel):
    """All of them, the first first."""

    runs: list[RunEntry]


def router(service: Service) -> APIRouter:
    """The endpoints."""
    routes = APIRouter(prefix="/api", route_class=Route, tags=["gatewise"])
    told = errors(Message)
    turns = Turns()

    @routes.get("/runs", response_model=RunList, responses=told, summary="What is served")
    async def runs() -> Response:
        return as_json({"runs": [_entry(served) for served in service.runs]})

    @routes.post(
        "/complete", response_model=CompleteAnswer, responses=told, summary="Continue a text"
    )
    async def complete(body: CompleteBody, http: HttpRequest) -> Response:
        served, loaded = service.find(body.run)
        control = control_of(body.control)
        options = {name: getattr(body, name) for name in _OPTIONS}
        request = Request(
            body.prefix, SamplingOptions(**options), body.suffix, seconds_of(body.seconds)
        )
        with loaded.held():
            acted = loaded
            if control is not None:
                async with turns.one(http):
                    acted = await _controlled(loaded, control)
            (answer,) = await service.answers(http, acted, [request])
        return as_json({"run": served.source.name} | document(answer))

    @routes.post(
        "/gates", response_model=GatesAnswer, responses=told, summary="The gates over a text"
    )
    async def gates(body: GatesBody, http: HttpRequest) -> Response:
        served, loaded = service.find(body.run)
        control = control_of(body.control)
        async with turns.one(http):
            found = await asyncio.to_thread(_gates, loaded, body, control)
        return as_json({"run": served.source.name} | found)

    return routes


_OPTIONS = (
    *("n", "max_tokens", "temperature", "top_k", "top_p", "min_p", "stop", "lines", "sentences"),
    *("words", "closing", "confidence", "max_characters", "seed"),
)


def _entry(served: Any) -> dict[str, Any]:
    loaded = served.loaded
    found = {
        "name": served.source.name,
        "ready": loaded is not None,
        "controlled": served.source.control is not None,
        "taken_over": served.taken_over,
    }
    if loaded is None:
        return found
    run = loaded.run
    return found | {
        "step": run.step,
        "parameters": sum(one.numel() for one in run.model.parameters()),
        "tokenizer": run.tokenizer.kind,
        "vocabulary": run.tokenizer.vocab_size,
        "dtype": loaded.dtype,
    }


def control_of(data: dict[str, Any] | list[Any] | None) -> Control | None:
    """A control from a request.

    Raises:
        Refused: it is none, or has too many rules.
    """
    if data is None:
        return None
    if len(data) > MOST_RULES:
        raise Refused(400, f"control: expected at most {MOST_RULES} rules")
    try:
        control = Control.from_json(json.dumps(data))
    except DataError:
        raise Refused(
            400, "control: expected a Control as JSON, as Control.to_json writes it"
        ) from None
    return control if control else None


async def _controlled(loaded: Loaded, control: Control) -> Loaded:
    try:
        return await asyncio.to_thread(loaded.controlled, control)
    except UsageError:
        raise Refused(400, _UNFIT) from None
    except GatewiseError:
        raise Refused(400, "control: the engine that answers here cannot follow it") from None


_UNFIT = "control: expected names, layers and units of this run's model"


def document(answer: Answer) -> dict[str, Any]:
    """An answer of the core."""
    waited, read, wrote = answer.seconds
    return {
        "completions": [
            {
                "text": one.text,
                "logprob": one.logprob if math.isfinite(one.logprob) else -1e30,
                "probability": math.exp(one.logprob),
                "tokens": one.tokens,
                "finish_reason": one.finish_reason,
            }
            for one in answer.completions
        ],
        "ended": answer.ended,
        "read": answer.read,
        "known": answer.known,
        "written": answer.written,
        "seconds": {"waited": waited, "reading": read, "writing": wrote},
        "seed": answer.seed,
        "notes": list(answer.notes),
    }


def _gates(loaded: Loaded, body: GatesBody, control: Control | None) -> dict[str, Any]:
    """Tokens, costs and what was recorded; of all units their mean where none are named."""
    try:
        record = Record(*body.names, units=body.units) if body.names else None
        reading = loaded.run.read(body.text, record=record, control=control)
    except UsageError:
        raise Refused(400, "names, units or control: expected those of this run's model") from None
    values = {}
    for path, tensor in (reading.record or {}).items():
        rows = tensor[:, 0].float()
        if body.units is None:
            rows = rows.mean(-1, keepdim=True)
        values[path] = rows
    if sum(rows.numel() for rows in values.values()) > MOST_NUMBERS:
        raise Refused(
            400, f"expected at most {MOST_NUMBERS:,} numbers: fewer names, units or less text"
        )
    return {
        "tokens": reading.tokens,
        "nats": [finite(value) for value in reading.nats.tolist()],
        "values": {
            path: [[finite(value) for value in row] for row in rows.tolist()]
            for path, rows in values.items()
        },
        "notes": list(reading.notes),
    }


def finite(value: float) -> float | None:
    """A number that JSON can say, to seven digits; else None."""
    return float(f"{value:.7g}") if math.isfinite(value) else None
