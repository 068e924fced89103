"""The verbs: their names, where they are, what they do in one line, and the overview made of that.

Data only, so that the overview and the shell's completion need not import a verb to name it.
"""

from __future__ import annotations

from typing import NamedTuple


class Verb(NamedTuple):
    """One verb of the command line."""

    name: str
    path: str  # module:function
    help: str


VERBS = (
    Verb(
        "demo",
        "gatewise.cli.demo:demo",
        "Train on Python's own standard library for a few minutes, then complete code.",
    ),
    Verb("train", "gatewise.cli.train:app", "Train a model on your files into a run folder."),
    Verb("complete", "gatewise.cli.complete:complete", "Complete a text, or text after text."),
    Verb("generate", "gatewise.cli.generate:generate", "Write text: sampling and beam search."),
    Verb(
        "translate",
        "gatewise.cli.translate:translate",
        "Translate texts; score translations; show the attention.",
    ),
    Verb(
        "execute",
        "gatewise.cli.execute:execute",
        "Say what a program prints, with the model's certainty and the true answer.",
    ),
    Verb(
        "classify",
        "gatewise.cli.classify:classify",
        "Say the class or number of texts and series, and how sure it is as it reads.",
    ),
    Verb(
        "caption",
        "gatewise.cli.caption:caption",
        "Caption images; a gallery of them; people's ratings.",
    ),
    Verb(
        "serve",
        "gatewise.cli.serve:serve",
        "Serve runs to editors and programs over HTTP.",
    ),
    Verb("lsp", "gatewise.cli.lsp:lsp", "Complete texts in an editor: the language server."),
    Verb("eval", "gatewise.cli.evaluate:evaluate", "What a run's predictions are worth on data."),
    Verb(
        "inspect",
        "gatewise.cli.inspect:app",
        "Look inside: batches, gates over a text, gradients through time, what was learned by heart.",
    ),
    Verb("tasks", "gatewise.cli.tasks:tasks", "The memory suite: its tasks, protocols, examples."),
    Verb(
        "bench", "gatewise.cli.bench:app", "Speed and memory beside torch and ONNX Runtime, here."
    ),
    Verb("info", "gatewise.cli.info:info", "This machine and its engines, or one run folder."),
    Verb("export", "gatewise.cli.export:export", "A run without its training state, or as ONNX."),
)

BELOW = {
    "bench": (
        "benchmark",
        ("train", "step", "lm", "cell", "peak", "scaling", "memory", "serve", "machine"),
    ),
    "train": (
        "mapping",
        ("lm", "tag", "forecast", "classify", "translate", "execute", "caption", "task"),
    ),
    "inspect": (
        "inspection",
        (
            "ablate",
            "batches",
            "direction",
            "fading",
            "gradients",
            "lens",
            "novelty",
            "patch",
            "paths",
            "ratings",
            "read",
            "search",
            "steer",
            "units",
            "vectors",
        ),
    ),
}
"""Verb -> what the word after it is, and the words there are."""

_OVERVIEW = """\
gatewise: recurrent networks with their gates open

Usage: gatewise VERB [OPTIONS] [ARGUMENTS]

Verbs:
{verbs}

Options:
  --help, -h                    this page; `gatewise VERB --help` for one verb
  --version                     the version
  --debug                       show where an error comes from (also GATEWISE_DEBUG=1)
  --install-completion [SHELL]  complete verbs and options in bash, zsh or fish
  --show-completion SHELL       print that script instead

Examples:
  gatewise demo
  gatewise train lm my_texts/ --out runs/mine --minutes 10
  gatewise complete runs/mine "Once upon"

`--` ends the options. Exit status: 0, 1 it failed, 2 wrong use, 130 or 143 interrupted."""


def overview() -> str:
    """The page of `gatewise --help`."""
    width = max(len(verb.name) for verb in VERBS) + 2
    lines = [f"  {verb.name:<{width}}{verb.help}" for verb in VERBS]
    return _OVERVIEW.format(verbs="\n".join(lines))
