"""`gatewise serve`: runs over HTTP, in the protocols that editors speak."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from gatewise.cli import screen
from gatewise.cli.runs import ControlFile, read_control
from gatewise.errors import DataError, FailedError, OptionError

if TYPE_CHECKING:
    from gatewise.serve.learning_handle import Learning
    from gatewise.serve.learning_options import LearningOptions
    from gatewise.serve.runs import Runs, Source
    from gatewise.serve.security import Rules

_SHORTEST = 16


def serve(
    *runs: Annotated[
        str,
        Parameter(
            help="Run folders, or checkpoints of them; the first answers where none is named. NAME=RUN gives "
            "one another name than its folder's."
        ),
    ],
    port: Annotated[
        int, Parameter(help="The port that it listens at; 0 takes one that is free.")
    ] = 8080,
    host: Annotated[
        str, Parameter(help="An address that others can reach needs a token.")
    ] = "127.0.0.1",
    checkpoint: Annotated[
        Literal["best", "latest"], Parameter(help="Of a run, the best checkpoint or the latest.")
    ] = "best",
    dtype: Annotated[
        Literal["float32", "bfloat16", "int8", "int4"] | None,
        Parameter(help="Weights. Default: as the run was exported, else int8."),
    ] = None,
    control: ControlFile = None,
    watch: Annotated[
        Path | None,
        Parameter(
            help="A folder of texts: the first run goes on learning from what is new in it, in the background, and "
            "takes over where that is better on text held out."
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        Parameter(
            help="A file with the token that every request must show; or set GATEWISE_TOKEN."
        ),
    ] = None,
    allow_host: Annotated[
        tuple[str, ...],
        Parameter(
            help="One more name by which the server may be called.",
            negative="",
            show_default=False,
        ),
    ] = (),
    allow_origin: Annotated[
        tuple[str, ...],
        Parameter(
            help="One more page that may ask: https://my.editor, or null.",
            negative="",
            show_default=False,
        ),
    ] = (),
    log: Annotated[
        bool, Parameter(help="Write a line for each request, without its text.", negative="")
    ] = False,
    log_text: Annotated[
        bool, Parameter(help="Write texts and completions too.", negative="")
    ] = False,
) -> int:
    """Serve runs to editors and programs.

    Answers rnn-writer, OpenAI's /v1/completions, llama.cpp's /infill and /completion, and an interface of its own
    under /api; /openapi.json describes them. A run that is replaced on disk is taken over. Ctrl-C or SIGTERM ends it
    when what is on its way is answered.
    """
    if not runs:
        raise OptionError("expected at least one run: gatewise serve runs/mine")
    if not 0 <= port <= 65535:
        raise OptionError(f"--port: expected 0 to 65535, found {port}")
    check_extra()
    rules = _rules(host, _token(token_file), allow_host, allow_origin)
    acting = read_control(control)
    from gatewise.serve.runs import Runs, Source

    sources = _sources(runs, lambda name, path: Source(name, path, checkpoint, dtype, acting))
    found = Runs(sources)
    if watch is not None:
        from gatewise.serve.learning_handle import check_learning

        check_learning(sources[0].path, watch)
    from gatewise.serve import server
    from gatewise.serve.app import Settings
    from gatewise.serve.security import is_loopback

    _begin_log()
    place = server.listen(host, port)
    if rules.token is None and not is_loopback(str(place.getsockname()[0])):
        place.close()
        raise _open_to_others(host)  # a name of this machine by its looks, but not by its address
    url = server.url_of(place)

    settings = Settings(rules=rules, log=log, log_text=log_text)
    with contextlib.ExitStack() as stack:

        def ready() -> None:
            if watch is not None:
                found.on_request = stack.enter_context(_learn(sources[0], watch, found)).hold
            screen.say(f"serving {screen.shown(', '.join(found.names))} at {url}")

        server.serve(found, place, settings, ready)
    return 0


def _learn(source: Source, folder: Path, runs: Runs) -> Learning:
    """A process that learns from a folder for a run; what it says goes to the log."""
    from gatewise.serve.learning_handle import line_of, start_learning
    from gatewise.serve.learning_options import LearningOptions

    options = LearningOptions()

    standing: tuple[Any, ...] = ()

    def say(event: dict[str, Any]) -> None:
        nonlocal standing
        line = line_of(event)
        if event["event"] == "state" and (event["state"], event["files"]) != standing:
            standing = (event["state"], event["files"])
            line = _standing(event, options)
        if line:
            logging.getLogger("gatewise.serve").info("%s: %s", source.name, line)

    def busy() -> bool:
        loaded = [served.loaded for served in runs if served.loaded is not None]
        return any(batcher.load for one in loaded for batcher in one.batchers)

    return start_learning(source.path, folder, options, on_event=say, busy=busy)


def _standing(event: dict[str, Any], options: LearningOptions) -> str:
    """What was found in the folder, and what a round waits for."""
    return (
        f"learning: {event['state']}: {event['files']:,} files, {event['skipped']:,} skipped; "
        f"{event['new_characters']:,} new characters (a round needs {options.fresh:,}), "
        f"{event['held_characters']:,} held out ({options.held:,})"
    )


def check_extra() -> None:
    """Raise FailedError where what a server needs is not installed."""
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise FailedError(
            f"{error.name} is not installed: `pip install 'gatewise[serve]'` brings what a server needs"
        ) from None


def _sources(runs: tuple[str, ...], make: object) -> list[Source]:
    """Names and paths.

    Raises:
        OptionError: two have one name.
    """
    assert callable(make)
    found: dict[str, Source] = {}
    for given in runs:
        name, path = _named(given)
        if name in found:
            raise OptionError(
                f"two runs are called {name!r}: give one another name, as in {name}2={path}"
            )
        found[name] = make(name, path)
    return list(found.values())


def _named(given: str) -> tuple[str, Path]:
    name, equals, path = given.partition("=")
    if equals and name and path and "/" not in name and not Path(given).exists():
        return name, Path(path)
    return Path(given).absolute().name or "run", Path(given)


def _token(file: Path | None) -> str | None:
    """The token of a file, or of the environment.

    Raises:
        DataError: the file cannot be read.
        OptionError: it is too short to keep anybody out.
    """
    token = os.environ.get("GATEWISE_TOKEN", "")
    if file is not None:
        try:
            token = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "expected UTF-8"
            raise DataError(f"{file}: cannot read --token-file: {reason}") from None
    token = token.strip()
    if (file is not None or token) and len(token) < _SHORTEST:
        raise OptionError(
            f"expected a token of at least {_SHORTEST} characters, found {len(token)}"
        )
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise OptionError("expected a token of letters, digits and signs, without spaces")
    return token or None


def _rules(host: str, token: str | None, hosts: tuple[str, ...], origins: tuple[str, ...]) -> Rules:
    """Who may ask.

    Raises:
        OptionError: others can reach the address, and there is no token.
    """
    from gatewise.serve.security import Rules, is_loopback

    own = is_loopback(host)
    if not own and token is None:
        raise _open_to_others(host)
    names = {name.lower() for name in hosts}
    if not own and not _is_address(host):
        names.add(host.lower())
    return Rules(tuple(sorted(names)), origins, token, addresses=not own)


def _open_to_others(host: str) -> OptionError:
    return OptionError(
        f"--host {host}: others can reach it: give a token, by --token-file or GATEWISE_TOKEN"
    )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _begin_log() -> None:
    """Lines of the server to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("gatewise.serve")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    # asyncio warns of each write to a client who has just left, which is no news
    logging.getLogger("asyncio").setLevel(logging.ERROR)
