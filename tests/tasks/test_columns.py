"""Columns of words and tags: forms that occur in the wild, parts by name, and what is refused, with its line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from gatewise.errors import DataError, OptionError
from gatewise.tasks.columns import read_columns, read_tagged
from gatewise.tasks.notices import COUNTS, notices
from gatewise.tasks.python_roles import library_roles, roles

CONLL = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

Peter NNP B-NP B-PER
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_documents_blank_lines_and_the_last_sentence(tmp_path: Path) -> None:
    sentences, skipped = read_columns(write(tmp_path, "a.txt", CONLL))
    assert sentences == [(["EU", "rejects"], ["B-ORG", "O"]), (["Peter"], ["B-PER"])]
    assert not len(skipped)


def test_columns_are_chosen_from_either_end(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", CONLL)
    assert read_columns(path, tag=2)[0][0][1] == ["NNP", "VBZ"]
    assert read_columns(path, word=-1, tag=1)[0][1] == (["B-PER"], ["Peter"])


def test_tabs_let_words_hold_spaces(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", "10 000\tNUM\r\neuros\tNOUN\r\n")
    assert read_columns(path)[0] == [(["10 000", "euros"], ["NUM", "NOUN"])]


def test_conllu(tmp_path: Path) -> None:
    """Comments, tokens of several words and empty ones are left out; a # that is a word is not."""
    rest = "\t_" * 6
    text = f"# text = a # b\n1-2\taux\t_\t_{rest}\n1\ta\ta\tX{rest}\n2\t#\t#\tSYM{rest}\n2.1\te\te\tX{rest}\n"
    found, _ = read_columns(write(tmp_path, "a.conllu", text), word=2, tag=4)
    assert found == [(["a", "#"], ["X", "SYM"])]
    small, _ = read_columns(write(tmp_path, "b.txt", "x O\n# O\n"))
    assert small == [(["x", "#"], ["O", "O"])]


def test_gz_and_parts_by_name(tmp_path: Path) -> None:
    for name in ("eng.train", "eng.dev", "eng.test"):
        write(tmp_path, name, CONLL)
    (tmp_path / "more.train.gz").write_bytes(gzip.compress(b"x\tO\n"))
    write(tmp_path, "README", "not data")
    found = read_tagged([tmp_path])
    assert {name: len(part) for name, part in found.parts.items()} == {
        "train": 3,
        "valid": 2,
        "test": 2,
    }
    assert found.by_name


def test_a_single_file_is_cut_the_same_way_each_time(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "".join(f"w{k} O\n\n" for k in range(40)))
    found = read_tagged([path])
    assert [len(part) for part in found.parts.values()] == [32, 4, 4]
    assert found.parts == read_tagged([path]).parts
    words = {word for part in found.parts.values() for ws, _ in part for word in ws}
    assert len(words) == 40
    assert read_tagged([path], fractions=(1.0,)).parts["train"][3] == (["w3"], ["O"])


def test_words_without_a_tag_are_counted_and_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "a\tO\nb\t_\nc\t\n")
    found = read_tagged([path], fractions=(1.0,))
    assert found.parts["train"] == [(["a"], ["O"])]
    assert found.notes[0].startswith("skipped: 2 with a word without a tag")
    assert "line 2" in found.notes[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a O\nb\n", "line 2: expected a word in column 1 and a tag in column -1, found 1 columns"),
        ("", "expected sentences of words and tags"),
        ("\n\n", "expected sentences of words and tags"),
        ("-DOCSTART- O\n", "expected sentences of words and tags"),
    ],
)
def test_what_is_no_column_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_tagged([write(tmp_path, "a.txt", text)])


def test_wrong_use(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", CONLL)
    for word, tag in ((0, 1), (2, 2)):
        with pytest.raises(OptionError, match="two columns"):
            read_columns(path, word=word, tag=tag)
    with pytest.raises(DataError, match="column 9"):
        read_columns(path, tag=9)
    with pytest.raises(OptionError, match="--fractions"):
        read_tagged([path], fractions=(0.9, 0.9))
    with pytest.raises(DataError, match="found nothing at"):
        read_tagged([tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="files named train, valid or test"):
        read_tagged([tmp_path / "empty"])


def test_roles_of_words_in_programs() -> None:
    source = (
        "import os.path as p\n"
        "class A(Base):\n"
        "    def f(self, x=1, *rest):\n"
        "        é, y = self.a.b, g(x, key=p.join('ö', x))  # why\n"
        "        return (\n"
        "            y\n"
        "        )\n"
    )
    found = [" ".join(f"{w}/{t[:3]}" for w, t in zip(*one, strict=True)) for one in roles(source)]
    assert found == [
        "import/key os/mod ./ope path/mod as/key p/mod",
        "class/key A/cla (/ope Base/var )/ope :/ope",
        "def/key f/fun (/ope self/par ,/ope x/par =/ope 1/num ,/ope */ope rest/par )/ope :/ope",
        "é/var ,/ope y/var =/ope self/var ./ope a/att ./ope b/att ,/ope g/cal (/ope x/var ,/ope "
        "key/par =/ope p/var ./ope join/cal (/ope 'ö'/str ,/ope x/var )/ope )/ope",
        "return/key (/ope y/var )/ope",
    ]
    for broken in ("def (:\n", "x = '", "\0"):
        assert roles(broken) == []


def test_roles_in_the_library() -> None:
    found = library_roles({"train": 2, "valid": 1})
    assert set(found.parts) == {"train", "valid"}
    assert len(found.parts["train"]) > 20
    assert all(0 < len(words) == len(tags) <= 100 for words, tags in found.parts["train"])


def test_notices_are_the_same_each_time_and_their_test_part_has_new_names() -> None:
    found = notices()
    assert {name: len(part) for name, part in found.parts.items()} == COUNTS
    assert found.parts == notices().parts
    assert found.parts["train"][:50] != notices(seed=1).parts["train"][:50]
    known = {word for words, _ in found.parts["train"] for word in words}
    names = [
        word
        for words, tags in found.parts["test"]
        for word, tag in zip(words, tags, strict=True)
        if tag in ("B-PER", "B-LOC", "B-ORG")
    ]
    share = sum(name not in known for name in names) / len(names)
    assert 0.2 < share < 0.4
