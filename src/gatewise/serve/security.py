"""Who may ask, and how much: an ASGI middleware in front of everything else.

A page in a browser must not reach a server that listens on this machine only: so the Host must be this machine's,
an Origin must be a page of this machine or an editor's own, and a body must be JSON, which no form can send. Bodies are
read here, up to a cap and within a time, before the application begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gatewise.serve.bounds import MOST_BYTES
from gatewise.serve.refusals import Refused, refusal

BODY_SECONDS = 10.0
"""In which a body must have come."""
HELD_BYTES = 64 << 20
"""Of all bodies that are being received together."""
LINGERED_SECONDS, LINGERED_BYTES = 1.0, 32 << 20
"""For a body that is refused: how long, and how much of it, is still taken and thrown away."""
_EDITORS = ("file", "vscode-file", "vscode-webview", "app", "atom", "capacitor", "tauri")
"""Schemes of pages that no web site can have: those of editors."""
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'"),
]
_HOST = re.compile(r"\A(\[[0-9a-fA-F:.]+\]|[^:\[\]/@\s]+)(?::[0-9]{1,5})?\Z")


@dataclass(frozen=True)
class Rules:
    """Who may ask.

    Args:
        hosts: names by which the server may be called, beside those of the loopback.
        origins: pages that may ask, beside those of this machine and of editors; "null" is one.
        token: what every request but /health must show, or None.
        addresses: whether a Host may be any address: for a server that listens on others than the loopback.
    """

    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    token: str | None = None
    addresses: bool = False

    def check(self, scope: Scope) -> bytes | None:
        """The Origin, where there is one.

        Raises:
            Refused: it may not ask.
        """
        head = _head(scope)
        if not self._is_ours(head.get(b"host", b"").decode("latin-1")):
            raise Refused(403, "Forbidden", code="host")
        origin = head.get(b"origin")
        if origin is not None and not self._is_friend(origin.decode("latin-1")):
            raise Refused(403, "Forbidden", code="origin")
        if origin is None and head.get(b"sec-fetch-site", b"") in (b"cross-site", b"same-site"):
            raise Refused(403, "Forbidden", code="origin")
        if scope["method"] != "OPTIONS" and scope["path"] != "/health":
            self._check_token(head.get(b"authorization", b""))
        return origin

    def _is_ours(self, host: str) -> bool:
        found = _HOST.match(host)
        if found is None:
            return False
        name = found[1].lower().rstrip(".")
        if is_loopback(name) or name in self.hosts:
            return True
        return self.addresses and _address(name) is not None

    def _is_friend(self, origin: str) -> bool:
        if origin in self.origins:
            return True
        try:
            parts = urlsplit(origin)
            name = parts.hostname or ""
        except ValueError:
            return False
        if parts.scheme in _EDITORS:
            return True
        return parts.scheme in ("http", "https") and (is_loopback(name) or name in self.hosts)

    def _check_token(self, given: bytes) -> None:
        if self.token is None:
            return
        kind, _, found = given.partition(b" ")
        same = hmac.compare_digest(found.strip(), self.token.encode())
        if kind.lower() != b"bearer" or not same:
            raise Refused(401, "expected the server's token: Authorization: Bearer TOKEN")


def is_loopback(name: str) -> bool:
    """Whether a host's name or address is this machine's own."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and address.is_loopback


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return None


def _head(scope: Scope) -> dict[bytes, bytes]:
    """The headers; one that must be single and stands twice is refused."""
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in found and name in (b"host", b"origin", b"authorization", b"content-type"):
            raise Refused(400, "a header that may stand once stands twice")
        found[name] = value
    return found


class Guard:
    """The middleware.

    Args:
        app: what is guarded.
        rules: who may ask.
        body_seconds: in which a body must have come.
    """

    def __init__(self, app: ASGIApp, rules: Rules, body_seconds: float = BODY_SECONDS) -> None:
        self._app, self._rules, self._seconds = app, rules, body_seconds
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        origin: bytes | None = None
        try:
            origin = self._rules.check(scope)
            if scope["method"] == "OPTIONS":
                await send_preflight(_with_headers(send, origin))
                return
            body = await self._body(scope, receive)
        except Refused as refused:
            answer = refusal(scope["path"], refused)
            answer.headers["connection"] = "close"
            await answer(scope, receive, _lingering(scope, receive, _with_headers(send, origin)))
            return
        await self._app(scope, _again(body, receive), _with_headers(send, origin))

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """All of a body.

        Raises:
            Refused: it is too large, too slow, or no JSON.
        """
        head = _head(scope)
        length = head.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 15 or int(length) > MOST_BYTES:
            raise _too_large()
        if length == b"0" and b"transfer-encoding" not in head:
            return b""
        kind = head.get(b"content-type", b"").split(b";")[0].strip().lower()
        if kind != b"application/json":
            raise Refused(415, "expected a body of content type application/json")
        if head.get(b"content-encoding", b"identity") != b"identity":
            raise Refused(415, "expected a body without content encoding")
        try:
            return await asyncio.wait_for(self._receive(receive), self._seconds)
        except asyncio.TimeoutError:
            raise Refused(
                408, f"expected the whole body within {self._seconds:g} seconds"
            ) from None

    async def _receive(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refused(400, "the body ended early")
                part = message.get("body", b"")
                size += len(part)
                self._held += len(part)
                if size > MOST_BYTES:
                    raise _too_large()
                if self._held > HELD_BYTES:
                    raise Refused(503, "too many bodies are being received", retry_after=1)
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
        finally:
            self._held -= size


def _too_large() -> Refused:
    return Refused(413, f"expected a body of at most {MOST_BYTES:,} bytes")


def _again(body: bytes, receive: Receive) -> Receive:
    """What gives the body once more, and then what follows."""
    given = False

    async def first() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return first


def _lingering(scope: Scope, receive: Receive, send: Send) -> Send:
    """Sends an answer, and closes only when the body has come or has had its time.

    Most clients send all of a body before they read. To close on one that is unread makes the system forget the answer,
    and the client sees a broken connection, which it takes for an accident and tries again.
    """
    head = dict(scope["headers"])
    sending = head.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in head

    async def rest() -> None:
        size = 0
        while size < LINGERED_BYTES:
            message = await receive()
            size += len(message.get("body", b""))
            if not message.get("more_body", False):
                return

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.body" and sending and b"expect" not in head:
            await send({**message, "more_body": True})
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(rest(), LINGERED_SECONDS)
            message = {"type": "http.response.body", "body": b""}
        await send(message)

    return sent


def _with_headers(send: Send, origin: bytes | None) -> Send:
    more = list(_HEADERS)
    if origin is not None:
        more += [(b"access-control-allow-origin", origin), (b"vary", b"Origin")]

    async def headed(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *more]}
        await send(message)

    return headed


async def send_preflight(send: Send) -> None:
    """The answer to what a page's browser asks before its request."""
    head: dict[str, Any] = {
        "type": "http.response.start",
        "status": 204,
        "headers": [
            (b"access-control-allow-methods", b"GET, POST"),
            (b"access-control-allow-headers", b"authorization, content-type"),
            (b"access-control-max-age", b"600"),
        ],
    }
    await send(head)
    await send({"type": "http.response.body", "body": b""})
