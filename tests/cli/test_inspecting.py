"""What the inspections share: texts that are given, and what is said of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    "words",
    [
        "units RUN xü=(1)",
        "ablate RUN xü",
        "gradients RUN --text ü=(1)+2 --lags 2",
        "search RUN def+gate --text xü --span x --index NEW --record layers.0.h --threshold=0",
        "steer RUN xü --do keep --max-tokens 1",
        "read RUN xü",
    ],
)
def test_what_the_model_does_not_know_is_said(
    gatewise: Any, trained: Path, tmp_path: Path, words: str
) -> None:
    given = {"RUN": trained, "NEW": tmp_path / "index"}
    called = gatewise("inspect", *(given.get(word, word) for word in words.split()))
    assert called.status == 0, called.err
    assert "note: not in the model's vocabulary, read as unknown: 'ü'" in called.err
