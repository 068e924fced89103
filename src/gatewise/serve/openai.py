"""OpenAI's `/v1/completions` and `/v1/models`, for the official client and all that speak like it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from pydantic import BaseModel, Field, Strict
from starlette.responses import Response

from gatewise.complete import Answer, Completion, Request
from gatewise.complete.requests import DONE
from gatewise.errors import GatewiseError
from gatewise.generate import SamplingOptions
from gatewise.serve import bounds
from gatewise.serve.openai_scores import LogProbs, told
from gatewise.serve.refusals import Refused, as_json, event
from gatewise.serve.runs import Loaded
from gatewise.serve.service import STREAMED, Route, Service, errors, seconds_of
from gatewise.serve.work import End, EventStream, Piece, Work

_SEVERAL = Field(min_length=1, max_length=bounds.MOST_TEXTS, fail_fast=True)
_FEW = 4096
"""Tokens that are decoded at once; more would hold up others."""
_NOTHING = Completion("", 0.0, 0, "length")
"""Where nothing was to be written."""
_UNSEEN = "this server does not weigh down tokens that were there before"


Penalty = Annotated[float, Strict(), Field(ge=-2, le=2)]


class StreamOptions(bounds.Body):
    """What a stream holds beside its texts."""

    include_usage: bounds.Flag = False


class CompletionBody(bounds.Body):
    """A request; bounds are checked before anything is drawn."""

    prompt: (
        bounds.Text
        | Annotated[list[bounds.Text], _SEVERAL]
        | bounds.Ids
        | Annotated[list[bounds.Ids], _SEVERAL]
        | None
    ) = ""
    model: bounds.Name | None = None
    best_of: bounds.Samples | None = None
    echo: bounds.Flag | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: (
        Annotated[
            dict[
                Annotated[str, Field(pattern=r"^[0-9]{1,9}$")],
                Annotated[float, Strict(), Field(ge=-100, le=100)],
            ],
            Field(max_length=bounds.MOST_BIASES),
        ]
        | None
    ) = None
    logprobs: Annotated[bounds.Whole, Field(ge=0, le=5)] | None = None
    max_tokens: bounds.Tokens | None = None
    n: bounds.Samples | None = None
    presence_penalty: Penalty | None = None
    seed: bounds.Seed | None = None
    stop: bounds.Stop | bounds.Stops | None = None
    stream: bounds.Flag | None = None
    stream_options: StreamOptions | None = None
    suffix: bounds.Text | None = None
    temperature: Annotated[float, Strict(), Field(ge=0, le=2)] | None = None
    top_p: bounds.Part | None = None
    user: bounds.Name | None = None


class Choice(BaseModel):
    """One continuation."""

    index: int
    text: str
    finish_reason: str | None
    logprobs: LogProbs | None = None


class Usage(BaseModel):
    """Tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionAnswer(BaseModel):
    """An answer, and every event of a stream."""

    id: str
    object: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = None


class ModelEntry(BaseModel):
    """A run."""

    id: str
    object: str
    created: int
    owned_by: str


class ModelList(BaseModel):
    """All runs."""

    object: str
    data: list[ModelEntry]


class ErrorText(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(BaseModel):
    """An error."""

    error: ErrorText


def router(service: Service) -> APIRouter:
    """The endpoints."""
    routes = APIRouter(prefix="/v1", route_class=Route, tags=["OpenAI"])
    born = int(time.time())

    def entry(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": born, "owned_by": "gatewise"}

    @routes.get("/models", response_model=ModelList, responses=errors(ErrorAnswer))
    async def models() -> Response:
        return as_json({"object": "list", "data": [entry(name) for name in service.runs.names]})

    @routes.get("/models/{name}", response_model=ModelEntry, responses=errors(ErrorAnswer))
    async def model(name: str) -> Response:
        if name not in service.runs.names:
            raise Refused(404, "no such model", code="model_not_found")
        return as_json(entry(name))

    @routes.post(
        "/completions",
        response_model=CompletionAnswer,
        responses=errors(ErrorAnswer) | STREAMED,
    )
    async def completions(body: CompletionBody, http: HttpRequest) -> Response:
        served, loaded = service.find(body.model)
        with loaded.held():
            asked = Asked(body, loaded, served.source.name, await _prompts(body, loaded))
            if body.stream:
                work = service.begin(http, loaded, asked.requests, pieces=True)
                return EventStream(work, asked.lines(work))
            answers = await service.answers(http, loaded, asked.requests)
            if body.logprobs is None:
                return as_json(asked.answer(answers))
            return await asyncio.to_thread(lambda: as_json(asked.answer(answers)))  # it may be long

    return routes


class Asked:
    """One request, and the forms of its answers.

    Args:
        body: as it came.
        loaded: the run that answers.
        name: of the run.
        prompts: the texts.

    Raises:
        Refused: its parts do not fit together.
    """

    def __init__(self, body: CompletionBody, loaded: Loaded, name: str, prompts: list[str]) -> None:
        self._body, self._prompts, self._tokenizer = body, prompts, loaded.run.tokenizer
        self._n = body.n or 1
        self._drawn = max(self._n, body.best_of or self._n)
        self._id, self._created, self._name = (
            f"cmpl-{secrets.token_hex(12)}",
            int(time.time()),
            name,
        )
        self._check(loaded)
        self._check_scored()
        if len(self._prompts) * self._drawn > bounds.MOST_TOGETHER:
            raise Refused(
                400,
                f"expected at most {bounds.MOST_TOGETHER} continuations of all prompts together",
            )
        options = self._options()
        self.requests = [
            Request(
                prompt,
                options,
                body.suffix or "",
                seconds_of(None),
                scores=body.logprobs,
                score_prefix=body.logprobs is not None and bool(body.echo),
            )
            for prompt in self._prompts
        ]

    def _check(self, loaded: Loaded) -> None:
        body = self._body
        if body.best_of is not None and body.best_of < self._n:
            raise Refused(400, "best_of: expected at least n")
        if body.stream and self._drawn > self._n:
            raise Refused(400, "best_of: expected no more than n where the answer is streamed")
        if body.stream_options is not None and not body.stream:
            raise Refused(400, "stream_options: expected only where stream is true")
        if body.frequency_penalty or body.presence_penalty:
            raise Refused(400, f"frequency_penalty, presence_penalty: {_UNSEEN}: expected 0")
        vocabulary = loaded.run.tokenizer.vocab_size
        if any(int(token) >= vocabulary for token in body.logit_bias or ()):
            raise Refused(400, f"logit_bias: expected tokens below {vocabulary:,}")

    def _check_scored(self) -> None:
        """Answers of so many numbers would be larger than any request."""
        body, drawn = self._body, len(self._prompts) * self._drawn
        if body.logprobs is None:
            return
        count = drawn * (16 if body.max_tokens is None else body.max_tokens)
        if body.echo:
            count += self._n * sum(map(len, self._prompts))
        if count > bounds.MOST_SCORED:
            raise Refused(
                400,
                f"logprobs: expected at most {bounds.MOST_SCORED:,} tokens in all, with echo characters of the prompts too, "
                f"found {count:,}",
            )

    def _options(self) -> SamplingOptions:
        body = self._body
        stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
        sure = body.top_p == 0 or body.temperature == 0
        return SamplingOptions(
            max_tokens=16 if body.max_tokens is None else body.max_tokens,
            temperature=0.0 if sure else 1.0 if body.temperature is None else body.temperature,
            top_p=body.top_p or 1.0,
            stop=stop,
            seed=bounds.seed_of(body.seed),
            n=self._drawn,
            bias={int(token): value for token, value in (body.logit_bias or {}).items()},
        )

    def answer(self, answers: list[Answer]) -> dict[str, Any]:
        """The whole answer."""
        choices: list[dict[str, Any]] = []
        for number, answer in enumerate(answers):
            for sample in self._chosen(answer):
                text = (self._prompts[number] if self._body.echo else "") + sample.text
                scores = self._scores(number, answer, sample)
                choices.append(self._choice(len(choices), text, sample.finish_reason, scores))
        return self._envelope(choices) | {"usage": _usage(answers)}

    def _chosen(self, answer: Answer) -> list[Completion]:
        """As many as were asked for: of more, the best."""
        samples = list(answer.samples)
        if not samples:  # nothing was to be written
            return [_NOTHING] * self._n
        if answer.order is not None:
            samples = [samples[number] for number in answer.order]
        elif len(samples) > self._n:
            samples.sort(key=lambda one: -one.logprob / max(1, one.tokens))
        return samples[: self._n]

    async def lines(self, work: Work) -> AsyncIterator[bytes]:
        """The answer as a stream of events."""
        usage = self._body.stream_options is not None and self._body.stream_options.include_usage
        more: dict[str, Any] = {"usage": None} if usage else {}
        if self._body.echo:
            for number, prompt in enumerate(self._prompts):
                for sample in range(self._n):
                    choice = self._choice(number * self._n + sample, prompt, None)
                    yield event(self._envelope([choice]) | more)
        async for found in work.events():
            if self._body.logprobs is None:
                yield self._events(found, more)
            else:  # they may be many
                yield await asyncio.to_thread(self._events, found, more)
        answers = [answer for answer in work.answers if answer is not None]
        if any(answer.error is not None for answer in answers):
            yield event({"error": {"message": "the run failed", "type": "server_error"}})
            return
        if usage:
            yield event(self._envelope([]) | {"usage": _usage(answers)})
        yield b"data: [DONE]\n\n"

    def _events(self, found: Sequence[Piece | End], more: dict[str, Any]) -> bytes:
        choices = [choice for one in found for choice in self._streamed(one)]
        return b"".join(event(self._envelope([choice]) | more) for choice in choices)

    def _streamed(self, one: Piece | End) -> list[dict[str, Any]]:
        first = one.number * self._n
        if isinstance(one, Piece):
            return [self._choice(first + one.sample, one.text, None)]
        samples = one.answer.samples or [_NOTHING] * self._n
        return [  # scores are known at the end, of all tokens
            self._choice(
                first + number,
                "",
                sample.finish_reason,
                self._scores(one.number, one.answer, sample),
            )
            for number, sample in enumerate(samples)
        ]

    def _scores(self, number: int, answer: Answer, sample: Completion) -> dict[str, Any] | None:
        """Of a choice's tokens, those of the prompt first where it is repeated."""
        if self._body.logprobs is None or answer.ended != DONE:
            return None
        before = len(self._prompts[number]) if self._body.echo else 0
        parts = [(answer.prefix_scores, 0), (sample.scores, before)]
        return told(parts, self._tokenizer).model_dump()

    def _choice(
        self, index: int, text: str, reason: str | None, scores: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        return {"index": index, "text": text, "finish_reason": reason, "logprobs": scores}

    def _envelope(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "text_completion",
            "created": self._created,
            "model": self._name,
            "choices": choices,
        }


async def _prompts(body: CompletionBody, loaded: Loaded) -> list[str]:
    """The texts that are to be continued; tokens as the text that they stand for."""
    prompt: Any = body.prompt or ""
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt[0], int):
        prompt = [prompt]
    if sum(len(one) for one in prompt) > bounds.MOST_TEXT:
        raise Refused(400, f"prompt: expected at most {bounds.MOST_TEXT:,} in all")
    return [one if isinstance(one, str) else await text_of(one, loaded) for one in prompt]


async def text_of(ids: list[int], loaded: Loaded) -> str:
    """The text of tokens.

    Raises:
        Refused: one is outside the vocabulary.
    """
    decode = loaded.run.tokenizer.decode
    try:
        return decode(ids) if len(ids) <= _FEW else await asyncio.to_thread(decode, ids)
    except GatewiseError:
        vocabulary = loaded.run.tokenizer.vocab_size
        raise Refused(400, f"expected tokens below {vocabulary:,}") from None


def _usage(answers: list[Answer]) -> dict[str, int]:
    prompt = sum(prompt_tokens(answer) for answer in answers)
    written = sum(answer.written for answer in answers)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
    }


def prompt_tokens(answer: Answer) -> int:
    """Tokens of a prefix: those that were read or known, and its last one, which each sample reads."""
    return answer.read + answer.known + 1
