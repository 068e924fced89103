"""`gatewise lsp`: completions for editors over the language server protocol."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from gatewise.cli import screen
from gatewise.cli.runs import ControlFile, read_control
from gatewise.errors import CheckpointError, FailedError, OptionError

if TYPE_CHECKING:
    from gatewise.serve.lsp_models import Models

_TOKEN = "GATEWISE_TOKEN"


def lsp(
    run: Annotated[
        Path | None, Parameter(help="A run folder, or one of its checkpoints; none with --server.")
    ] = None,
    /,
    *,
    server: Annotated[
        str | None,
        Parameter(
            help="Ask a running `gatewise serve` at this address, as http://127.0.0.1:8080, rather than load a run. "
            f"A token that it wants stands in the environment variable {_TOKEN}."
        ),
    ] = None,
    model: Annotated[str | None, Parameter(help="With --server: which of its models.")] = None,
    tcp: Annotated[
        int | None,
        Parameter(
            help="Listen at this port of this machine (0: any free one) rather than to the editor that started it."
        ),
    ] = None,
    checkpoint: Annotated[
        Literal["best", "latest"], Parameter(help="Of a run, the best checkpoint or the latest.")
    ] = "best",
    dtype: Annotated[
        Literal["float32", "bfloat16", "int8", "int4"] | None,
        Parameter(help="Weights. Default: as the run was exported, else int8."),
    ] = None,
    control: ControlFile = None,
    verbose: Annotated[
        bool, Parameter(negative="", help="A line for each answer on standard error.")
    ] = False,
    log_text: Annotated[
        bool, Parameter(negative="", help="Let the log hold what is written; else it never does.")
    ] = False,
) -> int:
    """Complete texts in an editor: the language server.

    Started by the editor, it speaks over standard input and output. The model is loaded in the
    background; documents are read as soon as they are opened. docs/editors.md has the set-ups.
    """
    _check(run, server, model, tcp)
    acting = read_control(control)
    _need_pygls()
    from gatewise.serve.lsp import log_to_stderr, serve_stdio, serve_tcp
    from gatewise.serve.lsp_models import Models, Runs, Server

    log_to_stderr(verbose=verbose or log_text, log_text=log_text)
    if server is None:
        models: Models = Models(Runs(checkpoint, dtype))
        models.begin(str(run), acting)
    else:
        models = Models(Server(server, os.environ.get(_TOKEN)))
        models.begin(model, acting, server)
    if tcp is None:
        if sys.stdin.isatty():
            screen.say(
                "gatewise lsp: waiting for an editor on standard input, which is to start this: docs/editors.md; "
                "Ctrl-C ends it"
            )
        return serve_stdio(models, log_text=log_text)
    return serve_tcp(models, "127.0.0.1", tcp, _listening, log_text=log_text)


def _check(run: Path | None, server: str | None, model: str | None, tcp: int | None) -> None:
    """What need not wait for an editor to be told."""
    if (run is None) == (server is None):
        found = "neither" if run is None else "both"
        raise OptionError(f"expected a run folder or --server, found {found}")
    if model is not None and server is None:
        raise OptionError("--model: names a model of --server, which is missing")
    if tcp is not None and not 0 <= tcp <= 65_535:
        raise OptionError(f"--tcp: expected a port from 0 to 65,535, found {tcp}")
    if run is not None and not run.is_dir():
        raise CheckpointError(
            f"{run}: expected a run folder, found none: `gatewise train lm` makes one"
        )


def _need_pygls() -> None:
    try:
        import pygls.lsp.server  # noqa: F401
    except ImportError as error:
        raise FailedError(
            f"the language server needs the extra gatewise[lsp] ({error}): pip install 'gatewise[lsp]'"
        ) from None


def _listening(port: int) -> None:
    screen.say(f"gatewise lsp: listening at 127.0.0.1:{port}")
