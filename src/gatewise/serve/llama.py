"""llama.cpp's server as llama.vim and llama.vscode use it.

A recurrent model reads to the left of the cursor alone: what stands to the right ranks candidates, and `input_extra` is
not read. Every keystroke of these editors kills the request before it, which ends its work.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from pydantic import BaseModel, Field, Strict, model_validator
from starlette.responses import Response

from gatewise.complete import Answer, Completion, Request
from gatewise.generate import SamplingOptions
from gatewise.serve import bounds
from gatewise.serve.openai import prompt_tokens, text_of
from gatewise.serve.refusals import Refused, as_json, event
from gatewise.serve.runs import Loaded
from gatewise.serve.service import STREAMED, Route, Service, Turns, errors, seconds_of
from gatewise.serve.work import EventStream, Piece, Work
from gatewise.text.base import Tokenizer

CANDIDATES = 3
"""Of /infill, where there is a suffix to choose by."""
_TOKENS = 128
"""Where none are asked for."""
_SAMPLERS = {"top_k": 40, "top_p": 0.95, "min_p": 0.05, "temperature": 0.8}
"""llama.cpp's own settings."""
_LETTERS = {"k": "top_k", "p": "top_p", "m": "min_p", "t": "temperature"}
"""Its short names of them."""
_ANY_SEED = (-1, 2**32 - 1)
"""With these it draws a seed."""
Names = Annotated[list[bounds.Name], Field(max_length=64, fail_fast=True)]


class Body(bounds.Body):
    """A request's body in which null says no more than a name that is left out, as it does to llama.cpp."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {name: value for name, value in data.items() if value is not None}


class Extra(Body):
    """A piece of another file: accepted, not read."""

    filename: bounds.Text = ""
    text: bounds.Text = ""


class Sampled(Body):
    """What both ways of asking have."""

    model: bounds.Name | None = None
    n_predict: Annotated[bounds.Whole, Field(ge=-2, le=bounds.MOST_TOKENS)] = -1
    n_indent: Annotated[bounds.Whole, Field(ge=0, le=1000)] = 0
    n_cmpl: bounds.Samples = 1
    temperature: bounds.Temperature | None = None
    top_k: bounds.TopK | None = None
    top_p: bounds.Part | None = None
    min_p: bounds.Part | None = None
    samplers: Names | bounds.Name | None = None
    stop: bounds.Stops | bounds.Stop | None = None
    seed: bounds.Seed | None = None
    stream: bounds.Flag = False
    cache_prompt: bounds.Flag = True
    id_slot: bounds.Whole | None = None
    ignore_eos: bounds.Flag = False
    n_probs: Annotated[bounds.Whole, Field(ge=0, le=100)] = 0
    repeat_penalty: Annotated[float, Strict(), Field(ge=0, le=100)] = 1.0
    logit_bias: Annotated[list[Any], Field(max_length=bounds.MOST_BIASES)] | None = None
    return_tokens: bounds.Flag = False
    t_max_prompt_ms: bounds.Milliseconds | None = None
    t_max_predict_ms: bounds.Milliseconds | None = None
    response_fields: Names | None = None


class InfillBody(Sampled):
    """A cursor between two texts."""

    input_prefix: bounds.Text = ""
    input_suffix: bounds.Text = ""
    input_extra: Annotated[list[Extra], Field(max_length=256, fail_fast=True)] = Field(
        default_factory=list
    )
    prompt: bounds.Text = ""


class CompletionBody(Sampled):
    """A text, or its tokens."""

    prompt: bounds.Text | bounds.Ids = ""


class TokenizeBody(Body):
    """A text."""

    content: bounds.Text = ""
    model: bounds.Name | None = None
    add_special: bounds.Flag = False
    with_pieces: bounds.Flag = False


class DetokenizeBody(Body):
    """Tokens."""

    tokens: Annotated[list[bounds.Id], Field(max_length=bounds.MOST_TEXT, fail_fast=True)] = Field(
        default_factory=list
    )
    model: bounds.Name | None = None


class ErrorText(BaseModel):
    """What went wrong."""

    code: int
    message: str
    type: str


class ErrorAnswer(BaseModel):
    """An error."""

    error: ErrorText


def router(service: Service) -> APIRouter:
    """The endpoints."""
    routes = APIRouter(route_class=Route, tags=["llama.cpp"])
    told = errors(ErrorAnswer)
    turns = Turns()

    @routes.post("/infill", response_model=None, responses=told | STREAMED)
    async def infill(body: InfillBody, http: HttpRequest) -> Response:
        prefix = body.input_prefix + body.prompt
        return await _answered(service, http, body, prefix, body.input_suffix)

    @routes.post("/completion", response_model=None, responses=told | STREAMED)
    async def completion(body: CompletionBody, http: HttpRequest) -> Response:
        _, loaded = service.find(body.model)
        prompt = body.prompt if isinstance(body.prompt, str) else await text_of(body.prompt, loaded)
        return await _answered(service, http, body, prompt, "")

    @routes.get("/health", response_model=dict[str, str], responses=told)
    async def health() -> Response:
        if not service.runs.ready:
            raise Refused(503, "Loading model", retry_after=1)
        return as_json({"status": "ok"})

    @routes.post("/tokenize", response_model=dict[str, list[Any]], responses=told)
    async def tokenize(body: TokenizeBody, http: HttpRequest) -> Response:
        _, loaded = service.find(body.model)
        tokenizer = loaded.run.tokenizer
        async with turns.one(http):
            return await asyncio.to_thread(_tokens, tokenizer, body)

    @routes.post("/detokenize", response_model=dict[str, str], responses=told)
    async def detokenize(body: DetokenizeBody) -> Response:
        _, loaded = service.find(body.model)
        return as_json({"content": await text_of(body.tokens, loaded)})

    @routes.get("/props", response_model=dict[str, Any], responses=told)
    async def props(model: bounds.Name | None = None) -> Response:
        served, loaded = service.find(model)
        settings = {"n_ctx": bounds.MOST_TEXT, "params": _SAMPLERS | {"n_predict": _TOKENS}}
        return as_json(
            {
                "default_generation_settings": settings,
                "total_slots": 1,
                "model_path": served.source.name,
                "model_alias": served.source.name,
                "chat_template": "",
                "build_info": "gatewise",
                "vocab_size": loaded.run.tokenizer.vocab_size,
            }
        )

    return routes


def _tokens(tokenizer: Tokenizer, body: TokenizeBody) -> Response:
    ids = tokenizer.encode(body.content).tolist()
    if not body.with_pieces:
        return as_json({"tokens": ids})
    pieces = {token: tokenizer.decode([token]) for token in set(ids)}
    return as_json({"tokens": [{"id": token, "piece": pieces[token]} for token in ids]})


async def _answered(
    service: Service, http: HttpRequest, body: Sampled, prefix: str, suffix: str
) -> Response:
    served, loaded = service.find(body.model)
    asked = Asked(body, loaded, served.source.name, prefix, suffix)
    if body.stream:
        work = service.begin(
            http, loaded, [asked.request], pieces=True, write_seconds=asked.write_seconds
        )
        return EventStream(work, asked.lines(work))
    (answer,) = await service.answers(
        http, loaded, [asked.request], write_seconds=asked.write_seconds
    )
    found = [asked.document(answer, number) for number in range(body.n_cmpl)]
    return as_json(found[0] if body.n_cmpl == 1 else found)


class Asked:
    """One request, and the forms of its answers.

    Args:
        body: as it came.
        loaded: the run that answers.
        name: of the run.
        prefix: the text before the cursor.
        suffix: the text behind it.

    Raises:
        Refused: its parts do not fit together.
    """

    def __init__(self, body: Sampled, loaded: Loaded, name: str, prefix: str, suffix: str) -> None:
        if len(prefix) > bounds.MOST_TEXT:
            raise Refused(400, f"expected a text of at most {bounds.MOST_TEXT:,} characters")
        if body.n_probs:
            raise Refused(400, "n_probs: this server gives none for single tokens: leave it out")
        if body.repeat_penalty != 1.0:
            raise Refused(400, "repeat_penalty: expected 1, which is none")
        if body.stream and body.n_cmpl > 1:
            raise Refused(400, "n_cmpl: expected 1 where the answer is streamed")
        self._body, self._name, self._encode = body, name, loaded.run.tokenizer.encode
        stops = [body.stop] if isinstance(body.stop, str) else body.stop or []
        ranked = bool(suffix) and body.n_predict != 0 and not body.stream
        drawn = max(body.n_cmpl, CANDIDATES) if ranked else body.n_cmpl
        options = _options(body, drawn, stops, loaded.run.tokenizer.vocab_size)
        reading = None if (body.t_max_prompt_ms or -1) <= 0 else body.t_max_prompt_ms
        writing = None if (body.t_max_predict_ms or -1) <= 0 else body.t_max_predict_ms
        both = None if reading is None or writing is None else (reading + writing) / 1000
        self.write_seconds = None if writing is None else min(writing / 1000, bounds.MOST_SECONDS)
        self.request = Request(prefix, options, suffix if ranked else "", seconds_of(both))

    def document(self, answer: Answer, number: int = 0) -> dict[str, Any]:
        """The answer of one sample, or the fields of it that were asked for."""
        sample = self._chosen(answer, number)
        text, cut = indented(sample.text, self._body.n_indent)
        return self._fields(self._whole(answer, sample, text, cut=cut) | {"index": number})

    def _chosen(self, answer: Answer, number: int) -> Completion:
        """The best first, where a suffix said which is."""
        if not answer.samples:
            return Completion("", 0.0, 0, "length")
        order = answer.order or range(len(answer.samples))
        return answer.samples[order[min(number, len(order) - 1)]]

    def _whole(self, answer: Answer, sample: Completion, text: str, *, cut: bool) -> dict[str, Any]:
        word = "" if cut else sample.stop
        ended = "limit" if cut or sample.finish_reason != "stop" else "eos"
        return {
            "content": text,
            "tokens": self._encode(text).tolist() if self._body.return_tokens else [],
            "id_slot": 0,
            "stop": True,
            "model": self._name,
            "tokens_predicted": sample.tokens,
            "tokens_evaluated": prompt_tokens(answer),
            "tokens_cached": answer.known,
            "prompt": self.request.prefix,
            "has_new_line": "\n" in text,
            "truncated": False,
            "stop_type": "word" if word else ended,
            "stopping_word": word,
            "timings": _timings(answer),
        }

    def _fields(self, whole: dict[str, Any]) -> dict[str, Any]:
        """Those asked for; a slash goes one level down, and the key stays as it was asked."""
        if not self._body.response_fields:
            return whole
        found: dict[str, Any] = {}
        for name in self._body.response_fields:
            value: Any = whole
            for part in name.split("/"):
                value = value.get(part, _MISSING) if isinstance(value, dict) else _MISSING
            if value is not _MISSING:
                found[name] = value
        return found

    async def lines(self, work: Work) -> AsyncIterator[bytes]:
        """The answer as a stream of events: pieces, then the whole without its text."""
        written, sent = "", 0
        async for found in work.events():
            written += "".join(one.text for one in found if isinstance(one, Piece))
            text, cut = indented(written, self._body.n_indent, ended=False)
            if len(text) > sent:
                yield event({"content": text[sent:], "tokens": [], "stop": False, "index": 0})
                sent = len(text)
            if cut:
                work.cancel()
        answer = work.answers[0]
        if answer is None or answer.error is not None:
            failed = {"code": 500, "message": "the run failed", "type": "server_error"}
            yield event({"error": failed})
            return
        text, cut = indented(written, self._body.n_indent)
        if len(text) > sent:
            yield event({"content": text[sent:], "tokens": [], "stop": False, "index": 0})
        whole = self._whole(answer, self._chosen(answer, 0), text, cut=cut)
        yield event(self._fields(whole | {"content": "", "index": 0}))


_MISSING = object()


def _options(body: Sampled, n: int, stops: list[str], vocabulary: int) -> SamplingOptions:
    """How is drawn: of `samplers`, those that are named act; unknown names are passed over."""
    named: Any = body.samplers
    if isinstance(named, str):
        named = [_LETTERS.get(letter) for letter in named]
    values = {
        name: getattr(body, name) if getattr(body, name) is not None else usual
        for name, usual in _SAMPLERS.items()
    }
    if named is not None:
        off = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "temperature": 1.0}
        values = {k: v if k in named else off[k] for k, v in values.items()}
    if values["top_p"] == 0:
        values["top_p"], values["temperature"] = 1.0, 0.0
    return SamplingOptions(
        max_tokens=_TOKENS if body.n_predict < 0 else body.n_predict,
        temperature=float(values["temperature"]),
        top_k=max(0, int(values["top_k"])),
        top_p=float(values["top_p"]),
        min_p=float(values["min_p"]),
        stop=stops,
        seed=None if body.seed in _ANY_SEED else bounds.seed_of(body.seed),
        n=n,
        bias=_bias(body.logit_bias or [], vocabulary),
    )


def _bias(pairs: list[Any], vocabulary: int) -> dict[int, float]:
    """[[token, number], ...]; false bans a token."""
    found: dict[int, float] = {}
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:
            raise Refused(400, "logit_bias: expected pairs of a token and a number")
        token, value = pair
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < vocabulary:
            raise Refused(400, f"logit_bias: expected tokens below {vocabulary:,}")
        if value is False:
            found[token] = float("-inf")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= 1e4:
            found[token] = float(value)
        else:
            raise Refused(400, "logit_bias: expected numbers, or false for never")
    return found


def _timings(answer: Answer) -> dict[str, float]:
    read, wrote = answer.read + 1, answer.written
    read_ms, wrote_ms = (1000 * seconds for seconds in answer.seconds[1:])
    return {
        "prompt_n": read,
        "prompt_ms": read_ms,
        "prompt_per_token_ms": read_ms / read,
        "prompt_per_second": 1000 * read / read_ms if read_ms else 0.0,
        "predicted_n": wrote,
        "predicted_ms": wrote_ms,
        "predicted_per_token_ms": wrote_ms / max(1, wrote),
        "predicted_per_second": 1000 * wrote / wrote_ms if wrote_ms else 0.0,
    }


def indented(text: str, least: int, *, ended: bool = True) -> tuple[str, bool]:
    """A text up to the first line that is indented by less, and whether there was one.

    Args:
        text: of which the first line is never cut.
        least: white space that a line begins with at least, in characters; empty lines have none to show.
        ended: whether nothing follows; else a last line of which the indentation may still grow is held back.
    """
    if least <= 0:
        return text, False
    at = text.find("\n")
    while at >= 0:
        end = text.find("\n", at + 1)
        line = text[at + 1 :] if end < 0 else text[at + 1 : end]
        if line.strip() and len(line) - len(line.lstrip()) < least:
            return text[:at], True
        if end < 0 and not ended and not line.strip():
            return text[:at], False
        at = end
    return text, False
