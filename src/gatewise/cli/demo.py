"""`gatewise demo`: from nothing to a model that completes code, in a few minutes."""

from __future__ import annotations

import dataclasses
import math
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import Parameter

from gatewise.checkpoint import RunFolder
from gatewise.cli import screen, settings
from gatewise.cli.complete import ask, listed
from gatewise.cli.options import Json
from gatewise.cli.runs import Opening, open_run
from gatewise.cli.train_lm import FORM, Settings, run_training, say_corpus
from gatewise.cli.watching import Write
from gatewise.complete import Completer
from gatewise.errors import Interrupted, OptionError
from gatewise.generate import SamplingOptions
from gatewise.mappings import LanguageLearner
from gatewise.text.corpora import Corpus
from gatewise.text.stdlib import stdlib_sources
from gatewise.train import Progress, TrainResult, Watcher, language_learner
from gatewise.train.state import uses_bfloat16

FOLDER = Path("runs/demo")
PREFIXES = (
    "def __init__(self",
    "import ",
    "for i in ",
    "    if not isinstance(",
    "class ",
)
FIRST, EVERY = 20.0, 40.0  # seconds of training until completions are shown, and between them

SHOWN = SamplingOptions(max_tokens=100, temperature=0.4, lines=2)
ASKED = SamplingOptions(max_tokens=80, temperature=0.5, lines=3, n=3)

# Units and columns, the best first; a machine takes the first that leaves it enough steps.
SIZES = ((384, 32), (256, 32), (128, 32))
ENOUGH = 1200

# Set for a few minutes on two cores: under an epoch, so there is nothing to regularise.
VALUES: dict[str, Any] = {
    "dropout": 0.0,
    "eval_batch_size": 64,
    "eval_every": 1_000_000,  # at the end only
    "checkpoint_seconds": 45.0,
    "keep": 1,
}


def demo(
    *,
    minutes: Annotated[float, Parameter(help="Minutes of training.")] = 4.0,
    out: Annotated[Path, Parameter(help="The run folder.")] = FOLDER,
    fresh: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Train a new model, in a new folder beside the one that is there.",
        ),
    ] = False,
    json: Json = False,
) -> int:
    """Train on Python's own standard library, and complete code.

    Real code that is on every machine, nothing is downloaded. While it learns, it shows how it would
    go on after a few beginnings; then it completes what you type. A demo that is there already is
    continued if it was interrupted, else used as it is; --fresh trains another.
    """
    folder = _beside(out) if fresh else out
    learned = _learn(folder, minutes, to_stdout=not json and not screen.is_terminal())
    completer = learned.completer
    figures = learned.result.valid if learned.result else {}
    if json:
        screen.out_json(_document(folder, learned, figures))
        return 0
    _show(_out, completer, "finally")
    screen.out(_closing(folder, figures))
    if screen.is_interactive():
        ask(lambda line: _answer(completer, line), str(folder))
    return 0


class _Learned:
    """A model that is ready, and how its training ended if that was now."""

    def __init__(self, completer: Completer, result: TrainResult | None) -> None:
        self.completer, self.result = completer, result


def _learn(folder: Path, minutes: float, *, to_stdout: bool) -> _Learned:
    """Train in `folder`, or go on with what is there."""
    chosen = _settings({}, minutes)
    chosen.validate()
    there = folder.exists() and any(folder.iterdir()) if folder.is_dir() else folder.exists()
    if there:
        RunFolder.open(folder)  # refuses what is no run
        screen.say(f"{folder} holds a demo already: going on with it (--fresh trains another)")
    corpus = chosen.text.corpus(stdlib_sources())
    say_corpus(corpus)
    before = FORM.stored_values(folder) if there else {}
    chosen = _settings(before or _sizes(corpus, minutes), minutes)
    learner = language_learner(corpus, chosen.model, chosen.streams, chosen.training)
    completer = Completer(learner.model, corpus.tokenizer)

    def watch(write: Write) -> Watcher:
        return DemoWatcher(completer, _out if to_stdout else write)

    try:
        result = run_training(learner, chosen, folder, resume=there, watch=watch)
    except Interrupted as stopped:
        line = f"interrupted, saved in {folder}: `gatewise demo` goes on with it"
        raise Interrupted(line, stopped.exit_code) from None
    except OptionError as error:
        if not there:
            raise
        screen.say(f"note: not trained further: {error}")
        opened = open_run(folder, Opening(), "complete")
        return _Learned(opened.completer(), None)
    return _Learned(completer, result)


def _settings(values: dict[str, Any], minutes: float) -> Settings:
    """The demo's options: the preset, then its own, then `values`."""
    base = settings.preset_values("char", "lm") | VALUES
    return FORM.settings(Settings, settings.layered(base, values, {"minutes": minutes}))


def _sizes(corpus: Corpus, minutes: float) -> dict[str, int]:
    """The largest model that makes enough steps on this machine, by trying: some seconds."""
    for hidden_size, batch_size in SIZES:
        sizes = {"hidden_size": hidden_size, "batch_size": batch_size}
        chosen = _settings(sizes, minutes)
        learner = language_learner(corpus, chosen.model, chosen.streams, chosen.training)
        if 60 * minutes / _seconds_per_step(learner, chosen) >= ENOUGH:
            break
    return sizes


def _seconds_per_step(learner: LanguageLearner, chosen: Settings) -> float:
    """Of two steps the quicker one: the first also wakes the kernels."""
    mixed = uses_bfloat16(chosen.training.dtype, learner.device)
    quickest, batch = math.inf, learner.batch(0, 0)
    for _ in range(2):
        began = time.perf_counter()
        with torch.autocast(learner.device.type, torch.bfloat16, enabled=mixed):
            loss = learner.loss(batch, None)
        loss.loss.backward()  # type: ignore[no-untyped-call]
        quickest = min(quickest, time.perf_counter() - began)
    return quickest


def _beside(out: Path) -> Path:
    """`out`, or the first of out-2, out-3, ... that is not there."""
    number, folder = 1, out
    while folder.exists():
        number += 1
        folder = out.with_name(f"{out.name}-{number}")
    return folder


class DemoWatcher(Watcher):
    """Shows completions while the model learns, by the clock.

    Args:
        completer: with the model that is trained.
        write: called with the text.
    """

    def __init__(self, completer: Completer, write: Write) -> None:
        self._completer = completer
        self._write = write
        self._next = FIRST

    def progress(self, event: Progress) -> None:
        """Some times a second; shows completions when it is time."""
        if event.seconds < self._next or event.seconds_left < EVERY / 2:
            return
        self._next = event.seconds + EVERY
        _show(self._write, self._completer, f"after {event.seconds:.0f} s")


def _out(text: str) -> None:
    screen.out(text)
    sys.stdout.flush()


def _show(write: Write, completer: Completer, when: str) -> None:
    """How each beginning goes on."""
    lines = [f"-- {when} " + "-" * 50]
    for prefix, text in completions(completer):
        first, *more = screen.visible(text).rstrip().split("\n")
        lines += [f"  {screen.dim(prefix)}{first}", *(f"  {line}" for line in more)]
    write("\n".join(line.rstrip() for line in lines))


def completions(completer: Completer) -> list[tuple[str, str]]:
    """(beginning, how the model goes on)."""
    found = []
    for seed, prefix in enumerate(PREFIXES):  # each its own draws, the same every time
        (text,) = completer.start(prefix, dataclasses.replace(SHOWN, seed=seed)).run()
        found.append((prefix, text.text))
    return found


def _answer(completer: Completer, line: str) -> None:
    continuation = completer.start(line, ASKED)
    for note in continuation.notes:
        screen.say(f"note: {note}")
    continuation.run()
    screen.out(listed(continuation.completions))


def _closing(folder: Path, figures: dict[str, Any]) -> str:
    bits = figures.get("bits_per_character")
    lines = [""]
    if bits is not None:
        lines.append(
            f"{bits:.3f} bits per character on files that it never saw "
            f"({figures['characters']:,} characters)"
        )
    known = shutil.which("gatewise") is not None
    first = "" if known else f", after `. {screen.shown(sys.prefix)}/bin/activate`"
    lines += [f"the model is in {folder}", "", f"to go on{first}:"]
    lines.append(
        screen.table(
            [
                [f"gatewise complete {folder}", "complete what you type"],
                [f'gatewise complete {folder} "import "', "once"],
                [f"gatewise generate {folder} -n 1", "write a page of code"],
                [f"gatewise serve {folder}", "complete in an editor: docs/editors.md"],
                ["gatewise train lm my_texts/ --out runs/mine", "a model of your own texts"],
            ]
        )
    )
    return "\n".join(lines)


def _document(folder: Path, learned: _Learned, figures: dict[str, Any]) -> dict[str, Any]:
    return {
        "run": str(folder),
        "valid": figures,
        "result": learned.result.to_dict() if learned.result else None,
        "completions": [
            {"prefix": prefix, "text": text} for prefix, text in completions(learned.completer)
        ],
    }
