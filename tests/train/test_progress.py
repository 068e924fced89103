"""What people see: a bar on a terminal, lines elsewhere, scalars in TensorBoard."""

from __future__ import annotations

import builtins
import io
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from gatewise.errors import OptionError
from gatewise.metrics import Tally
from gatewise.train import (
    BarProgress,
    Evaluated,
    PlainProgress,
    Progress,
    Started,
    TensorBoardWatcher,
    Watcher,
    Watchers,
    duration,
    evaluation_line,
    progress_for,
    progress_line,
)

PROGRESS = Progress(
    step=1200,
    epoch=1.5,
    share=0.25,
    nats=1.5,
    lr=0.002,
    gradient_norm=0.31,
    tokens_per_second=81234.0,
    seconds=60.0,
    seconds_left=180.0,
    skipped=0,
)


def evaluated(nats: float = 1.5, **values: Any) -> Evaluated:
    figures = Tally(nats * 10, 10, 10).summary()
    return Evaluated(
        **(
            {
                "step": 5,
                "epoch": 1.0,
                "figures": figures,
                "best": True,
                "averaged": False,
                "seconds": 61.0,
            }
            | values
        )
    )


STARTED = Started("lm", 0, 12345, 100, "3 minutes", Path("runs/mine"))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines() -> None:
    assert progress_line(PROGRESS) == (
        "step 1,200  epoch 1.50  loss 1.5000  grad 0.31  lr 0.002  81,234 tokens/s  left 3:00"
    )
    assert evaluation_line(evaluated()) == (
        "valid at step 5 (1:01): 1.5000 nats/token, 4.48 perplexity, 2.1640 bits/char, best"
    )
    assert "not a finite number" in evaluation_line(evaluated(math.nan, best=False))
    assert "averaged" in evaluation_line(evaluated(averaged=True))


def test_durations() -> None:
    assert [duration(s) for s in (0, 59.6, 3600, math.nan, math.inf, -1)] == [
        "0:00", "1:00", "1:00:00", "-:--", "-:--", "-:--",
    ]  # fmt: skip


def test_plain_lines_come_now_and_then() -> None:
    lines: list[str] = []
    watcher = PlainProgress(lines.append, every=1000.0)
    watcher.started(STARTED)
    for _ in range(5):
        watcher.progress(PROGRESS)
    watcher.evaluated(evaluated())
    watcher.noticed("careful")
    watcher.finished(None)
    assert len(lines) == 4
    assert lines[0] == "started: 12,345 parameters, 3 minutes, in runs/mine"


def test_a_terminal_gets_a_bar_and_a_file_gets_lines() -> None:
    terminal = Terminal()
    bar = progress_for(terminal)
    assert isinstance(bar, BarProgress)
    bar.started(STARTED)
    bar.progress(PROGRESS)
    bar.noticed("[not markup]")
    bar.evaluated(evaluated())
    bar.finished(None)
    assert "25%" in terminal.getvalue()
    assert "[not markup]" in terminal.getvalue()
    file = io.StringIO()
    plain = progress_for(file)
    assert isinstance(plain, PlainProgress)
    plain.noticed("careful")
    assert file.getvalue() == "careful\n"


def test_several_watchers_are_one() -> None:
    lines: list[str] = []
    both = Watchers([PlainProgress(lines.append), Watcher(), PlainProgress(lines.append)])
    both.started(STARTED)
    both.progress(PROGRESS)
    both.logged({})
    both.evaluated(evaluated())
    both.saved(1, Path())
    both.noticed("careful")
    both.sample(3)
    both.finished(None)
    assert len(lines) == 8


def test_without_tensorboard_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(OptionError, match="pip install tensorboard"):
        TensorBoardWatcher(tmp_path)
    assert builtins.open  # nothing was written
    assert list(tmp_path.iterdir()) == []
