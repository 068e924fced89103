"""From words to the call of a verb. Knows the parser library; the verbs know only its annotations."""

from __future__ import annotations

import difflib
import inspect
import re
from typing import Any, Literal, cast, get_args

from cyclopts import App, Parameter

from gatewise import __version__
from gatewise.cli import screen
from gatewise.cli.verbs import BELOW, VERBS
from gatewise.errors import OptionError, unknown

Shell = Literal["bash", "zsh", "fish"]

# Parameters of these names take what may begin with a dash: free text, and - for standard input.
_FREE = ("prefix", "prompt", "text", "data", "file", "inputs", "program", "things")
_LIKE_AN_OPTION = re.compile(r"--[a-z][a-z0-9-]*(=.*)?|-[a-zA-Z]", re.DOTALL)
_BREAK = re.compile(r"(?<=\S)\n(?=[^\s*|-]|-\S)")
"""The end of a line within a paragraph."""


def build_app(running: str = "") -> App:
    """The parser: every verb by name, none of them imported yet.

    Args:
        running: the verb that is about to run; its help is its own, not the line of the overview.
    """
    app = App(
        name="gatewise",
        help="Recurrent networks with their gates open.",
        version=__version__,
        version_flags=["--version"],
        help_format="plaintext",
        default_parameter=Parameter(negative_iterable=()),
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
    )
    for verb in VERBS:
        app.command(verb.path, name=verb.name, help=None if verb.name == running else verb.help)
    return app


def run(words: list[str]) -> int:
    """Call the verb that `words` name, and return its exit status."""
    if words[0] in ("--install-completion", "--show-completion"):
        return _completion(words[0], words[1:])
    if words[0] not in {verb.name for verb in VERBS} | {"__complete"}:
        raise _unknown_verb(words[0])
    app = build_app(words[0])
    if words[0] == "__complete":  # what the completion scripts ask
        app(words)
        return 0
    _check_second(words)
    if "--help" in words or "-h" in words:
        _let_flow(app, words)
    command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    _refuse_mistyped_option(app, bound, words)
    status = command(*bound.args, **bound.kwargs)
    return status if isinstance(status, int) else 0


def _check_second(words: list[str]) -> None:
    """The verbs that have verbs below them, by the names that these have there."""
    below = BELOW.get(words[0])
    if below is None or len(words) < 2 or words[1].startswith("-"):
        return
    kind, names = below
    if words[1] not in names:
        raise unknown(kind, words[1], names)


def _let_flow(app: App, words: list[str]) -> None:
    """Make each paragraph of a verb's help one line, which a terminal of any width can break."""
    for word in words[:2]:
        if word.startswith("-") or word not in app:
            return
        app = app[word]
        app.help = _BREAK.sub(" ", inspect.cleandoc(app.help))


def _unknown_verb(word: str) -> Exception:
    if word.startswith("-"):
        return OptionError(
            f"expected a verb before the options, found {word!r}: `gatewise --help` lists the verbs"
        )
    return unknown("verb", word, [verb.name for verb in VERBS])


def _refuse_mistyped_option(app: App, bound: inspect.BoundArguments, words: list[str]) -> None:
    """Free text may begin with a dash, but `--tempreature` is a slip, unless `--` says otherwise."""
    if "--" in words:
        return
    for name in _FREE:
        value = bound.arguments.get(name)
        texts = value if isinstance(value, list | tuple) else [value]
        named = any(word == f"--{name}" or word.startswith(f"--{name}=") for word in words)
        for text in () if named else texts:
            if isinstance(text, str) and _LIKE_AN_OPTION.fullmatch(text):
                raise _mistyped(app, text, words)


def _mistyped(app: App, text: str, words: list[str]) -> OptionError:
    verb = [words[0], *words[1:2]] if words[0] in BELOW else words[:1]
    for name in verb:
        app = app[name]
    flags = [flag for argument in app.assemble_argument_collection() for flag in argument.names]
    near = difflib.get_close_matches(text.partition("=")[0], flags, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return OptionError(
        f"unknown option {text!r}: {hint}`gatewise {' '.join(verb)} --help` lists the options; for "
        "that very text write -- before it"
    )


def _completion(flag: str, rest: list[str]) -> int:
    shells = get_args(Shell)
    if len(rest) > 1:
        raise OptionError(f"{flag} takes one shell ({', '.join(shells)}), found {len(rest)} words")
    if rest and rest[0] not in shells:
        raise unknown("shell", rest[0], shells)
    app = build_app()
    shell = cast("Shell", rest[0]) if rest else _this_shell()
    if flag == "--show-completion":
        screen.out(app.generate_completion(shell=shell))
        return 0
    path = app.install_completion(shell=shell)
    screen.out(f"{shell} completion is in {path}; open a new shell to use it")
    return 0


def _this_shell() -> Shell:
    from cyclopts.completion.detect import ShellDetectionError, detect_shell

    try:
        found: Any = detect_shell()
    except ShellDetectionError:
        found = None
    if found not in get_args(Shell):
        raise OptionError(
            f"cannot tell which shell this is (found {found}): name one of {', '.join(get_args(Shell))}"
        )
    return cast("Shell", found)
