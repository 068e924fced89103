from __future__ import annotations

import math
from typing import Any

import pytest

from gatewise.errors import OptionError
from gatewise.generate import SamplingOptions


def test_sequences_become_tuples_and_one_stop_text_is_enough() -> None:
    options = SamplingOptions(stop="END", banned=[1, 2], stop_ids=[3])
    assert (options.stop, options.banned, options.stop_ids) == (("END",), (1, 2), (3,))
    assert options.watches_text
    assert not SamplingOptions().watches_text


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": -1},
        {"max_tokens": 1.5},
        {"max_tokens": True},
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.01},
        {"min_p": -0.1},
        {"min_p": 2},
        {"repetition_penalty": 0},
        {"no_repeat_ngram": -1},
        {"n": 0},
        {"stop": [""]},
        {"lines": 0},
        {"sentences": 0},
        {"max_characters": 0},
        {"words": 0},
        {"confidence": 1.5},
        {"confidence": "much"},
        {"closing": 1},
        {"seed": 1.0},
        {"banned": [-1]},
        {"bias": {0: math.nan}},
        {"bias": {0: math.inf}},
        {"bias": {0: "much"}},
        {"bias": [1]},
        {"temperature": "hot"},
        {"temperature": None},
        {"top_k": "3"},
        {"top_p": [0.5]},
        {"min_p": "0.1"},
        {"min_p": False},
        {"repetition_penalty": "a"},
        {"lines": "2"},
        {"stop": 3},
        {"stop": [3]},
        {"stop_ids": 3},
        {"banned": ["a"]},
    ],
    ids=lambda wrong: "-".join(f"{k}={v}" for k, v in wrong.items()),
)
def test_an_option_outside_its_range_is_one_line_with_its_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError) as caught:
        SamplingOptions(**wrong)
    message = str(caught.value)
    assert next(iter(wrong)) in message
    assert "expected" in message
    assert "found" in message
    assert "\n" not in message
