"""Tagged sentences in columns, as the CoNLL shared tasks write them: a word a line, an empty line between sentences.

    EU NNP B-NP B-ORG
    rejects VBZ B-VP O

Columns are apart by tabs where the line has one, else by white space. Lines `-DOCSTART- ...` and, in files of many
columns, `# ...` are no words. Knows texts; ids come later.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gatewise.errors import DataError, OptionError
from gatewise.tasks.parallel import PARTS, part_of
from gatewise.tasks.skips import Skips
from gatewise.tasks.tables import lines_of, read_text

Sentence = tuple[list[str], list[str]]
"""Words and the tag of each."""

DOCUMENT = "-DOCSTART-"
_RANGE = re.compile(r"\d+[-.]\d+")  # CoNLL-U: a token of several words, or an empty one
_HASH = re.compile(r"#\s")
_CONLLU_COLUMNS = 10
_LONGEST_WORD = 1000


@dataclass(frozen=True)
class TaggedText:
    """Sentences by part.

    Args:
        parts: "train" and perhaps "valid" and "test".
        notes: what the reader should know: what was left out, how parts were made.
        by_name: whether the files' names say the parts.
    """

    parts: dict[str, list[Sentence]]
    notes: list[str] = field(default_factory=list)
    by_name: bool = True


def read_tagged(
    data: Sequence[str | Path],
    *,
    word: int = 1,
    tag: int = -1,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
) -> TaggedText:
    """The sentences in files.

    Args:
        data: files of columns, also as .gz; names that say train, valid (val, dev) and test are those parts.
            One folder stands for the files in it whose names say a part.
        word, tag: which column, from 1; from the end -1, -2, ...
        fractions: shares of train, valid and test where no name says the part.
    Raises:
        DataError: what cannot be read, with file and line.
    """
    parts: dict[str, list[Sentence]] = {}
    skips, named = Skips(), False
    for path in _files(data):
        part = part_of(path)
        named = named or part is not None
        sentences, skipped = read_columns(path, word=word, tag=tag)
        parts.setdefault(part or "train", []).extend(sentences)
        skips.entries.extend(skipped.entries)
    notes = [skips.summary()] if len(skips) else []
    if not any(parts.values()):
        said = f" ({notes[0]})" if notes else ""
        raise DataError(f"expected sentences of words and tags in {data[0]}, found none{said}")
    if not named:
        return TaggedText(_cut(parts["train"], fractions), notes, by_name=False)
    return TaggedText({name: parts[name] for name in PARTS if name in parts}, notes)


def _files(data: Sequence[str | Path]) -> list[Path]:
    paths = [Path(one) for one in data]
    if len(paths) == 1 and paths[0].is_dir():
        found = [one for one in sorted(paths[0].iterdir()) if one.is_file() and part_of(one)]
        if not found:
            raise DataError(
                f"expected files named train, valid or test in the folder {paths[0]}, found none: name "
                "the files"
            )
        return found
    for path in paths:
        if not path.is_file():
            what = "a folder" if path.is_dir() else "nothing"
            raise DataError(f"expected a file, found {what} at {path}: check the path")
    return paths


def read_columns(path: str | Path, *, word: int = 1, tag: int = -1) -> tuple[list[Sentence], Skips]:
    """The sentences of a file, and what was left out.

    Raises:
        DataError: with the line, if it has not the columns.
        OptionError: if a column is 0, or both are the same.
    """
    if 0 in (word, tag) or word == tag:
        raise OptionError(
            f"--word and --tag: expected two columns from 1 or -1, found {word} and {tag}"
        )
    sentences: list[Sentence] = []
    skips = Skips()
    words: list[str] = []
    tags: list[str] = []
    width = 0
    for number, line in enumerate([*lines_of(read_text(path)), ""], 1):
        cells = _cells(line)
        if not cells or cells[0].startswith(DOCUMENT):
            if words:
                sentences.append((words, tags))
            words, tags = [], []
            continue
        if width in (0, _CONLLU_COLUMNS) and (_HASH.match(line) or _RANGE.fullmatch(cells[0])):
            continue
        width = width or len(cells)
        found = _pick(f"{path}, line {number}", cells, word, tag)
        if found[1] in ("", "_") or len(found[0]) > _LONGEST_WORD:
            skips.add(
                f"{path}, line {number}", "a word without a tag, or of more than 1,000 characters"
            )
            continue
        words.append(found[0])
        tags.append(found[1])
    return sentences, skips


def _cells(line: str) -> list[str]:
    """The columns of a line: by tabs, or by white space."""
    if not line.strip():
        return []
    return [cell.strip() for cell in line.split("\t")] if "\t" in line else line.split()


def _pick(where: str, cells: list[str], word: int, tag: int) -> tuple[str, str]:
    places = [k - 1 if k > 0 else len(cells) + k for k in (word, tag)]
    if not all(0 <= place < len(cells) for place in places) or places[0] == places[1]:
        raise DataError(
            f"{where}: expected a word in column {word} and a tag in column {tag}, found "
            f"{len(cells)} columns: {' '.join(cells)[:60]!r}"
        )
    return cells[places[0]], cells[places[1]]


def _cut(sentences: list[Sentence], fractions: Sequence[float]) -> dict[str, list[Sentence]]:
    """The parts, drawn by a fixed seed."""
    shares = [float(one) for one in fractions]
    if not 1 <= len(shares) <= len(PARTS) or min(shares) < 0 or not 0 < sum(shares) <= 1 + 1e-9:
        raise OptionError(
            f"--fractions: expected up to three shares with a sum of at most 1, found {shares}"
        )
    if len(shares) == 1 and shares[0] == 1:
        return {"train": sentences}
    order = np.random.default_rng(0).permutation(len(sentences))
    ends = [0, *np.rint(np.cumsum(shares) * len(sentences)).astype(int).tolist()]
    cuts = zip(PARTS, ends, ends[1:], strict=False)
    return {n: [sentences[k] for k in sorted(order[a:b].tolist())] for n, a, b in cuts if b > a}
