"""The two sides of a translation as tokens: each its own tokenizer, case and marks, in one JSON document.

A side turns a text into ids and ids into a text that people would write: words and marks of a sentence
(`sentence_words`), or the pieces, characters or bytes of the other tokenizers. One more id, the last, stands
before and after a target and at the end of a source, so that even an empty text has a step.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gatewise.text.base import FORMAT, Ids, Tokenizer, as_ids, broken, from_document, to_document
from gatewise.text.tokenizers import build_tokenizer, from_json

MARK = "<s>"
"""How the id before and after a text is shown."""

_APOSTROPHES = "'\u2019"
_WORDS = re.compile(rf"<unk>|\d+(?:[.,]\d+)*|\w+(?:-\w+)*|(?<=\w)[{_APOSTROPHES}]\w+|[^\w\s]")
_LEFT = set(",.!?:;)]}%…»”")  # stand right behind what is before them
_RIGHT = set("([{«„$£€#")  # and these right before what follows
_PAIRS = {'"': '"', "'": "'", "\u201e": "\u201c", "\u201c": "\u201d"}  # what closes each


def sentence_words(text: str) -> list[str]:
    """The words and marks of a sentence.

    >>> sentence_words("It's two-sided, isn't it?")
    ['It', "'s", 'two-sided', ',', 'isn', "'t", 'it', '?']
    """
    return _WORDS.findall(text)


def sentence_text(words: Sequence[str]) -> str:
    """Words and marks as a sentence is written.

    >>> sentence_text(["He", "said", '"', "no", '"', "(", "twice", ")", "."])
    'He said "no" (twice).'
    """
    parts: list[str] = []
    closers: list[str] = []  # of the quotes that are open
    glued = True  # whether the next word stands right behind what is there
    for word in words:
        closing = word in closers
        behind = glued or closing or word in _LEFT or _is_ending(word)
        parts.append(word if behind else " " + word)
        glued = word in _RIGHT or (word in _PAIRS and not closing)
        if closing:
            closers.remove(word)
        elif word in _PAIRS:
            closers.append(_PAIRS[word])
    return "".join(parts)


def _is_ending(word: str) -> bool:
    return len(word) > 1 and word[0] in _APOSTROPHES


@dataclass(frozen=True, eq=False)
class Side:
    """Texts of one language as ids.

    Args:
        tokenizer: of the words, pieces, characters or bytes.
        lowercase: whether case is dropped.
    """

    tokenizer: Tokenizer
    lowercase: bool = False

    @property
    def size(self) -> int:
        """Ids, the mark among them."""
        return self.tokenizer.vocab_size + 1

    @property
    def mark(self) -> int:
        """The id that stands before and after a text."""
        return self.tokenizer.vocab_size

    @classmethod
    def build(
        cls,
        kind: str,
        texts: Iterable[str],
        *,
        lowercase: bool = False,
        vocab_size: int | None = None,
        min_count: int = 1,
    ) -> Side:
        """The side whose vocabulary comes from `texts`.

        Args:
            kind: "word", "bpe", "char" or "byte".
            texts: of the training part.
            lowercase: drop case.
            vocab_size, min_count: as `build_tokenizer` takes them.
        """
        prepared = (_prepared(text, kind, lowercase) + "\n" for text in texts)
        return cls(build_tokenizer(kind, prepared, vocab_size, min_count), lowercase)

    def encode(self, text: str) -> Ids:
        """The ids of a text, without marks."""
        return np.asarray(self.tokenizer.encode(self.prepared(text)), np.int64)

    def source(self, text: str) -> Ids:
        """The ids of a text with the mark behind them, as an encoder reads it."""
        return np.append(self.encode(text), self.mark)

    def decode(self, ids: ArrayLike) -> str:
        """The text of ids, marks left out."""
        array = as_ids(ids, self.size)
        kept = array[array != self.mark]
        if self.tokenizer.kind != "word":
            return self.tokenizer.decode(kept).strip()
        return sentence_text([self.tokenizer.tokens[i] for i in kept.tolist()])

    def shown(self, ids: ArrayLike) -> list[str]:
        """How each id is shown."""
        tokens = [*self.tokenizer.tokens, MARK]
        return [tokens[i] for i in as_ids(ids, self.size).tolist()]

    def unknowns(self, text: str) -> list[str]:
        """The distinct words of `text` that the vocabulary does not hold."""
        return self.tokenizer.unknowns(self.prepared(text))

    def prepared(self, text: str) -> str:
        """`text` on one line, in lower case if this side drops it, marks apart from words."""
        return _prepared(text, self.tokenizer.kind, self.lowercase)

    def _content(self) -> dict[str, Any]:
        return {"lowercase": self.lowercase, "tokenizer": json.loads(self.tokenizer.to_json())}

    @classmethod
    def _from(cls, found: object) -> Side:
        if not isinstance(found, dict) or not isinstance(found.get("lowercase"), bool):
            raise broken("expected a side with 'lowercase', true or false")
        return cls(from_json(json.dumps(found.get("tokenizer"))), found["lowercase"])


def _prepared(text: str, kind: str, lowercase: bool) -> str:
    line = " ".join(text.split())
    line = line.lower() if lowercase else line
    return " ".join(sentence_words(line)) if kind == "word" else line


@dataclass(frozen=True, eq=False)
class Sides:
    """Source and target of a run; one and the same object where they share a vocabulary.

    >>> side = Side.build("word", ["ein Mann", "a man"])
    >>> both = Sides(side, side)
    >>> again = Sides.from_json(both.to_json())
    >>> again.source is again.target, again.target.decode(again.target.encode("a man"))
    (True, 'a man')
    """

    source: Side
    target: Side

    @property
    def shared(self) -> bool:
        """Whether there is one vocabulary for both."""
        return self.source is self.target

    def content(self) -> dict[str, Any]:
        """What tokenizer.json holds."""
        sides = {"source": self.source._content()}
        if not self.shared:
            sides["target"] = self.target._content()
        return {"format": FORMAT, "kind": "sides", **sides}

    def to_json(self) -> str:
        """Both sides as one document; `from_json` reads it.

        Raises:
            DataError: if it is larger than what `from_json` accepts.
        """
        return to_document(self.content())

    @classmethod
    def from_json(cls, text: str | None) -> Sides:
        """The sides that `to_json` wrote. Nothing in it is trusted.

        Raises:
            CheckpointError: if it is anything else.
        """
        found = from_document(text, "sides", "the tokenizers of two sides")
        source = Side._from(found.get("source"))
        return cls(source, Side._from(found["target"]) if "target" in found else source)


__all__ = ["MARK", "Side", "Sides", "sentence_text", "sentence_words"]
