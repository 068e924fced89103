from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewise import novelty as module
from gatewise.errors import DataError, OptionError
from gatewise.novelty import Novelty, novelty

LENGTHS = (1, 2, 3, 5, 8)


def slowly(sample: str, documents: list[str]) -> tuple[list[float], int]:
    """Shares by `in`, and the length of the longest passage."""
    shares = []
    for length in LENGTHS:
        parts = [sample[i : i + length] for i in range(len(sample) - length + 1)]
        known = [any(part in document for document in documents) for part in parts]
        shares.append(sum(known) / len(parts) if parts else 0.0)
    spans = [(i, j) for i in range(len(sample)) for j in range(i + 1, len(sample) + 1)]
    longest = max((j - i for i, j in spans if any(sample[i:j] in d for d in documents)), default=0)
    return shares, longest


def check(result: Novelty, sample: str, documents: list[str]) -> None:
    shares, longest = slowly(sample, documents)
    assert list(result.shares) == shares
    assert result.lengths == LENGTHS
    assert list(result.counts) == [max(0, len(sample) - length + 1) for length in LENGTHS]
    found = result.longest
    assert (len(found.text) if found else 0) == longest
    if found:
        assert sample[found.sample_start :].startswith(found.text)
        assert documents[found.document][found.training_start :].startswith(found.text)


texts = st.text(st.sampled_from("abc\n\U0001f600\ud800"), max_size=40)


@given(texts.filter(bool), st.lists(texts, min_size=1, max_size=3), st.sampled_from([1, 3, 7, 99]))
def test_equals_brute_force_whatever_the_blocks(
    sample: str, documents: list[str], block: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module._Search, "block", block)
        check(novelty(sample, documents, LENGTHS), sample, documents)


@given(texts.filter(bool), st.lists(texts, min_size=1, max_size=2))
def test_stays_exact_when_hashes_collide(sample: str, documents: list[str]) -> None:
    def weak(self: module._Prefix, length: int) -> np.ndarray:
        return self.codes[: len(self.codes) - length + 1].astype(np.uint64) % np.uint64(2)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module._Prefix, "hashes", weak)
        check(novelty(sample, documents, LENGTHS), sample, documents)


def test_one_document_may_be_a_string_and_the_table_is_text() -> None:
    result = novelty("hello world", "say hello there", (5, 3))
    assert result.lengths == (3, 5)
    assert result.shares == (4 / 9, 2 / 7)
    assert result.longest is not None
    assert (result.longest.text, result.longest.training_start) == ("hello ", 4)
    assert result.table().splitlines()[1].split() == ["3", "9", "44.44%"]


def test_wrong_use() -> None:
    with pytest.raises(DataError, match="empty"):
        novelty("", "abc")
    for lengths in ((), (0, 5)):
        with pytest.raises(OptionError, match="lengths"):
            novelty("abc", "abc", lengths)


def test_ten_megabytes_take_seconds() -> None:
    words = ["".join(map(chr, row)) for row in np.random.default_rng(0).integers(97, 110, (999, 5))]
    training = " ".join(words) * 1700
    sample = training[5_000_000:5_002_000] + "".join(reversed(words[0])) * 50
    began = time.perf_counter()
    result = novelty(sample, training)
    assert time.perf_counter() - began < 20
    assert result.longest is not None
    assert len(result.longest.text) >= 2000
