"""Reading: sources, encodings, line ends, and everything that is no text."""

from __future__ import annotations

import gzip
import io
import os
import threading
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewise.errors import DataError, OptionError
from gatewise.text import documents
from gatewise.text.reading import find_documents, read_texts, split_of


def texts(sources: object, errors: str = "strict") -> list[str]:
    return [text for _, text in read_texts(sources, errors)]  # type: ignore[arg-type]


def names(sources: object) -> list[str]:
    return [Path(d.name).name for d in find_documents(sources).documents]  # type: ignore[arg-type]


def test_a_folder_is_read_in_order_and_says_what_it_skips(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a/c.txt", "c.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("x")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    (tmp_path / "late.bin").write_bytes(b"text" * 100_000 + b"\0")
    (tmp_path / "wide.txt").write_bytes("text".encode("utf-16"))
    (tmp_path / "empty").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    reading = find_documents(tmp_path)
    assert [d.name for d in reading.documents] == [
        str(tmp_path / name) for name in ("a/c.txt", "a/z.txt", "b.txt", "c.md")
    ]
    assert sorted((Path(name).name, reason) for name, reason in reading.skipped) == [
        (".git", "hidden"),
        (".hidden", "hidden"),
        ("empty", "empty"),
        ("gone", "not regular files"),
        ("late.bin", "binary"),
        ("loop", "links to folders"),
        ("picture.png", "binary"),
        ("wide.txt", "in UTF-16"),
    ]
    assert reading.summary().startswith("skipped: 2 hidden, ")
    assert texts(tmp_path) == ["a/c.txt", "a/z.txt", "b.txt", "c.md"]


def test_globs_gz_and_several_sources(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("one")
    (tmp_path / "two.txt.gz").write_bytes(gzip.compress("zwei ü\r\n".encode()))
    (tmp_path / "three.md").write_text("three")
    assert texts(str(tmp_path / "*.txt*")) == ["one", "zwei ü\n"]
    assert texts([tmp_path / "three.md", tmp_path / "two.txt.gz"]) == ["three", "zwei ü\n"]
    assert texts([tmp_path, tmp_path / "one.txt"]) == ["one", "three", "zwei ü\n"]
    assert find_documents([tmp_path, tmp_path / "one.txt"]).skipped[0][1] == "given twice"
    (tmp_path / "a[1].txt").write_text("a file's name comes before a pattern")
    assert texts(str(tmp_path / "a[1].txt")) == ["a file's name comes before a pattern"]


def test_standard_input_is_read_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO("bonjour\r\nà toi".encode())

    monkeypatch.setattr("sys.stdin", Stdin)
    (document,) = find_documents("-").documents
    for _ in range(2):
        assert "".join(document.chunks()) == "bonjour\nà toi"
    assert document.name == "standard input"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("through a pipe",))
    writer.start()
    assert texts(pipe) == ["through a pipe"]
    writer.join()


@given(
    text=st.text(st.sampled_from(["a", "é", "漢", "😀", "\r", "\n", "\ufeff"]), max_size=30),
    size=st.integers(1, 7),
)
def test_chunks_of_any_size_give_the_same_text(text: str, size: int) -> None:
    data = text.encode()
    document = documents.Document("x", len(data), "", None, lambda: io.BytesIO(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "CHUNK", size)
        found = list(document.chunks())
    expected = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    assert "".join(found) == expected
    assert max(map(len, found), default=0) <= size + 1


@given(data=st.binary(max_size=30).map(lambda b: b.replace(b"\r", b"")), size=st.integers(1, 5))
def test_wrong_bytes_are_named_by_their_offset(data: bytes, size: int) -> None:
    document = documents.Document("x", len(data), "", None, lambda: io.BytesIO(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "CHUNK", size)
        replaced = "".join(document.chunks("replace"))
        assert replaced == data.decode("utf-8", "replace").removeprefix("\ufeff")
        try:
            data.decode()
        except UnicodeDecodeError as error:
            with pytest.raises(DataError, match=f"at byte offset {error.start}:"):
                list(document.chunks())
        else:
            assert "".join(document.chunks()) == replaced


def test_wrong_bytes_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes("naïve".encode("latin-1"))
    with pytest.raises(DataError) as caught:
        texts(path)
    assert str(caught.value) == (
        f"{path}: expected UTF-8, found byte 0xef at byte offset 2: "
        "convert the file to UTF-8, or replace what is wrong with --errors replace"
    )
    assert texts(path, "replace") == ["na\ufffdve"]
    with pytest.raises(OptionError, match="'strict' or 'replace'"):
        texts(path, "ignore")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "found an empty file"),
        (b"abc\0def", "found a NUL byte at byte offset 3"),
        (b"a" * 2_000_000 + b"\0", "found a NUL byte at byte offset 2000000"),
        ("text".encode("utf-16"), "found UTF-16"),
    ],
    ids=["empty", "NUL", "late NUL", "UTF-16"],
)
def test_a_named_file_without_text_is_an_error(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(DataError, match=said) as caught:
        find_documents(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"expected text in .*, found none"):
        find_documents(tmp_path)


def test_missing_sources(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found nothing at"):
        find_documents(tmp_path / "nowhere")
    with pytest.raises(DataError, match="check the pattern"):
        find_documents(str(tmp_path / "*.txt"))
    with pytest.raises(DataError, match=r"expected text in .*, found none"):
        find_documents(tmp_path)
    for bad in ("", "a\0b"):
        with pytest.raises(DataError, match="expected a path"):
            find_documents(bad)
    with pytest.raises(DataError, match="cannot be read"):
        find_documents("x" * 5000)
    with pytest.raises(DataError, match="name at least one"):
        find_documents([])


def test_broken_gzip(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    whole = gzip.compress(os.urandom(1000).replace(b"\0", b"x"))
    flipped = bytearray(whole)
    flipped[len(flipped) // 2] ^= 8
    for data in (b"no gzip", whole[:500], bytes(flipped)):
        path.write_bytes(data)
        with pytest.raises(DataError, match="expected a whole gzip file"):
            find_documents(path)


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("abc")
    (document,) = find_documents(path).documents
    path.write_text("abcd")
    with pytest.raises(DataError, match="expected 3 bytes, found 4: the file changed"):
        list(document.chunks())
    path.unlink()
    with pytest.raises(DataError, match="cannot be read: No such file"):
        list(document.chunks())


def test_files_named_as_splits(tmp_path: Path) -> None:
    for name in ("train.txt", "val.txt", "test.txt.gz", "README"):
        data = name.encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    reading = find_documents(tmp_path)
    assert [d.split for d in reading.documents] == ["test", "train", "valid"]
    assert reading.skipped == [(str(tmp_path / "README"), "not named train, valid or test")]
    files = [tmp_path / "train.txt", tmp_path / "val.txt"]
    assert [d.split for d in find_documents(files).documents] == ["train", "valid"]
    with pytest.raises(DataError, match="README: expected only files named train"):
        find_documents([*files, tmp_path / "README"])


def test_names_of_splits_need_each_other_and_lie_at_the_top(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("deep/train.py", "deep/test.py", "other.py"):
        (tmp_path / name).write_text(name)
    assert [d.split for d in find_documents(tmp_path).documents] == [None] * 3
    (tmp_path / "train.py").write_text("alone")
    assert [d.split for d in find_documents(tmp_path).documents] == [None] * 4
    assert [split_of(n) for n in ("a/Validation.en.gz", "testing.txt", "val")] == [
        "valid",
        None,
        "valid",
    ]


def test_splits_may_be_given(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    found = find_documents({"train": [tmp_path / "a"], "test": [tmp_path / "b"]}).documents
    assert [d.split for d in found] == ["train", "test"]
    with pytest.raises(OptionError, match="found 'dev'"):
        find_documents({"dev": [tmp_path / "a"]})


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() == 0, reason="needs a user without all rights"
)
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("abc")
    path.chmod(0)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        find_documents(path)


@pytest.mark.slow
def test_a_line_of_100_mb_is_read_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "line.txt"
    with open(path, "wb") as file:
        for _ in range(100):
            file.write("naïve ".encode() * 150_000)
    tracemalloc.start()
    began = time.monotonic()
    (document,) = find_documents(path).documents
    total = sum(map(len, document.chunks()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 100 * 150_000 * 6
    assert peak < 20e6
    assert time.monotonic() - began < 30
