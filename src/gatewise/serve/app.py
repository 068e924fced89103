"""The application: every protocol behind one guard, and its life from the first load to the last answer."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from gatewise import __version__
from gatewise.serve import api, llama, metrics, openai, writer
from gatewise.serve.refusals import Refused, refusal
from gatewise.serve.runs import Runs
from gatewise.serve.security import Guard, Rules
from gatewise.serve.service import Service
from gatewise.serve.watch import Watch

_MESSAGES = {
    400: "expected JSON in UTF-8: no key twice, no NaN, at most 64 levels, no number beyond measure",
    404: "no such endpoint: /openapi.json lists them",
}
_WHAT = {
    "json_invalid": "expected JSON",
    "extra_forbidden": "no such field: /openapi.json lists them",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How it is served.

    Args:
        rules: who may ask.
        log: a line for each request.
        log_text: with the texts.
        follow_seconds: how often is looked for other checkpoints; 0: never.
        closing_seconds: for what is on its way when it ends.
    """

    rules: Rules = field(default_factory=Rules)
    log: bool = False
    log_text: bool = False
    follow_seconds: float = 1.0
    closing_seconds: float = 5.0


def build(
    runs: Runs,
    settings: Settings | None = None,
    on_ready: Callable[[BaseException | None], None] | None = None,
) -> ASGIApp:
    """The application.

    Args:
        runs: what is served; opened in the background when the server starts, unless they are open.
        settings: how.
        on_ready: called when all runs are open, or with what kept one from it.
    """
    settings = settings or Settings()
    return wrap(build_api(runs, settings, on_ready), settings)


def build_api(
    runs: Runs,
    settings: Settings,
    on_ready: Callable[[BaseException | None], None] | None = None,
) -> FastAPI:
    """The endpoints alone, without what stands in front of them."""
    app = FastAPI(
        title="gatewise",
        version=__version__,
        summary="Completion by recurrent networks, in the protocols that editors speak.",
        docs_url=None,  # the pages would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # what is not there is said in the protocol's own form
        lifespan=_life(runs, settings, on_ready),
    )
    service = Service(runs, log_text=settings.log_text)
    for module in (writer, openai, llama, api):
        app.include_router(module.router(service))
    app.state.metrics = metrics.Metrics(runs)

    @app.get(
        "/metrics", response_class=Response, tags=["gatewise"], summary="Figures for Prometheus"
    )
    async def figures() -> Response:
        return Response(app.state.metrics.page(), headers={"content-type": metrics.TYPE})

    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _failed)
    return app


def wrap(app: FastAPI, settings: Settings) -> ASGIApp:
    """The endpoints behind the guard and the watch."""
    guarded = Guard(app, settings.rules)
    return Watch(guarded, app.state.metrics, log=settings.log or settings.log_text)


def _life(
    runs: Runs, settings: Settings, on_ready: Callable[[BaseException | None], None] | None
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.ensure_future(_open(runs, on_ready))]
        if settings.follow_seconds:
            tasks.append(asyncio.ensure_future(runs.follow(settings.follow_seconds)))
        yield
        for task in tasks:
            task.cancel()
        await asyncio.to_thread(runs.close, settings.closing_seconds)

    return life


async def _open(runs: Runs, on_ready: Callable[[BaseException | None], None] | None) -> None:
    failure: BaseException | None = None
    if not runs.ready:
        try:
            await asyncio.to_thread(_load, runs)
        except Exception as error:
            failure = error
    if on_ready is not None:
        on_ready(failure)


def _load(runs: Runs) -> None:
    import gatewise.run  # noqa: F401

    # modules stay for good: to look through half a million of their objects again and again, for what nobody
    # needs any more, holds up everybody for a tenth of a second each time
    gc.collect()
    gc.freeze()
    runs.open()


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return refusal(request.url.path, error)


async def _invalid(request: Request, error: Exception) -> Response:
    """Which field, and what was expected of it; what was found is the user's, and not repeated."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    names = [str(part) for part in first["loc"][1:] if isinstance(part, (int, str))]
    known = names[0] if names and names[0].isidentifier() else "the body"
    what = _WHAT.get(first["type"]) or str(first["msg"]).replace("Input should be", "expected")
    return refusal(request.url.path, Refused(400, f"{known[:64]}: {what[:200]}"))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = _MESSAGES.get(error.status_code, "this cannot be answered")
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        message = f"expected {allowed}, found {request.method[:16]}"
    found = refusal(request.url.path, Refused(error.status_code, message))
    for name, value in (error.headers or {}).items():
        found.headers[name] = value
    return found


async def _failed(request: Request, error: Exception) -> Response:
    return refusal(
        request.url.path, Refused(500, "an error in the server itself; its log says where")
    )
