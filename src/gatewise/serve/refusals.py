"""Why a request is not answered, in the form of the protocol that it came in."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response

from gatewise.errors import DivergedError, GatewiseError, UsageError

LLAMA = (
    "/infill",
    "/completion",
    "/health",
    "/tokenize",
    "/detokenize",
    "/props",
)
"""Paths whose errors have llama.cpp's form."""

_FORBIDDEN = {
    "host": "the Host of this request is no name of this server: --allow-host gives it another",
    "origin": "pages of this Origin may not ask: --allow-origin lets one",
}
"""In other words than the writer's protocol has."""

_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "unavailable_error",
}


class Refused(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP.
        message: one line: what was expected, and what to do. Never the user's text, never a path.
        code: a word for programs, where OpenAI's protocol has one.
        retry_after: seconds after which it may go better.
    """

    def __init__(
        self, status: int, message: str, *, code: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.code, self.retry_after = code, retry_after


class Gone(Exception):
    """Nobody waits for the answer any more."""


def refusal(path: str, refused: Refused) -> Response:
    """The answer that says so."""
    kind = _KINDS.get(refused.status, "invalid_request_error")
    message = refused.message
    if refused.status == 403 and path not in ("/", "/generate"):
        message = _FORBIDDEN.get(refused.code or "", message)
    body: dict[str, Any]
    if path.startswith("/v1/"):
        body = {
            "error": {
                "message": message,
                "type": kind,
                "param": None,
                "code": refused.code,
            }
        }
    elif path in LLAMA:
        body = {"error": {"code": refused.status, "message": message, "type": kind}}
    else:
        body = {"message": message}
    answer = as_json(body, refused.status)
    if refused.retry_after is not None:
        answer.headers["retry-after"] = str(refused.retry_after)
    if refused.status == 401:
        answer.headers["www-authenticate"] = "Bearer"
    return answer


def busy(path: str) -> Refused:
    """As many requests as may be are on their way."""
    status = 429 if path.startswith("/v1/") else 503
    return Refused(status, "too many requests are on their way: try again soon", retry_after=1)


def of_error(error: Exception) -> Refused:
    """What an error of the core is to a client: its message may name paths or texts, so another is said."""
    if isinstance(error, DivergedError):
        return Refused(500, "the model's weights are broken: another checkpoint is needed")
    if isinstance(error, UsageError):
        return Refused(400, "the options of this request do not fit together or this model")
    if isinstance(error, GatewiseError):
        return Refused(503, "the run cannot answer now: try again soon", retry_after=1)
    raise error


def as_json(body: object, status: int = 200) -> Response:
    """Compact JSON: no space behind a colon, which llama.vim relies on; characters as they are."""
    text = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text.encode("utf-8", "replace"), status, media_type="application/json")


def event(body: object) -> bytes:
    """One event of a stream."""
    text = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return b"data: " + text.encode("utf-8", "replace") + b"\n\n"
