"""What is read of a folder, which side of it is held out, and when a learner waits."""

from __future__ import annotations

import gzip
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gatewise.serve.learning_gate import Closed, Gate
from gatewise.serve.learning_ledger import HELD, NEITHER, TRAIN, Ledger, digest_of, fingerprints
from gatewise.serve.learning_notes import LONGEST, Notes, split


class TestLedger:
    def texts(self, count: int) -> list[str]:
        words = np.random.default_rng(1).integers(0, 10**6, (count, 40))
        return [" ".join(map(str, row)) for row in words.tolist()]

    def sides(self, ledger: Ledger, texts: list[str]) -> list[str]:
        return [side for _, side in ledger.place(texts)]

    def test_about_the_share_is_held_out(self, tmp_path: Path) -> None:
        sides = self.sides(Ledger(tmp_path / "l", 0.1), self.texts(1000))
        assert 70 < sides.count(HELD) < 130
        assert sides.count(TRAIN) + sides.count(HELD) == 1000

    def test_edits_stay_on_their_side(self, tmp_path: Path) -> None:
        ledger = Ledger(tmp_path / "l", 0.3)
        texts = self.texts(60)
        before = self.sides(ledger, texts)
        for edit in (
            lambda t: t.replace("1", "one", 2),  # words changed
            lambda t: t + " and a few words more at the end of it",  # continued
            lambda t: t[: len(t) // 2],  # shortened
            lambda t: "  " + t.upper().replace(" ", "\n"),  # set otherwise
        ):
            edited = [edit(text) for text in texts]
            assert self.sides(ledger, edited) == before
            # and whatever stands around them, in whatever order
            assert self.sides(ledger, edited[::-1]) == before[::-1]

    def test_a_paragraph_that_grows_stays_on_its_side(self, tmp_path: Path) -> None:
        ledger = Ledger(tmp_path / "l", 0.5)
        texts = self.texts(20)
        before = self.sides(ledger, [text[:40] for text in texts])
        for size in range(60, 280, 20):
            assert self.sides(ledger, [text[:size] for text in texts]) == before

    def test_what_joins_both_sides_is_left_out(self, tmp_path: Path) -> None:
        ledger = Ledger(tmp_path / "l", 0.3)
        texts = self.texts(60)
        sides = self.sides(ledger, texts)
        held, train = texts[sides.index(HELD)], texts[sides.index(TRAIN)]
        assert self.sides(ledger, [f"{held} {train}"]) == [NEITHER]

    def test_what_many_have_in_common_says_nothing(self, tmp_path: Path) -> None:
        ledger = Ledger(tmp_path / "l", 0.3)
        texts = [f"Minutes of the meeting in the great hall: {t[:40]}" for t in self.texts(200)]
        assert 30 < self.sides(ledger, texts).count(HELD) < 90

    def test_it_is_the_same_when_read_again(self, tmp_path: Path) -> None:
        texts = self.texts(100)
        first = Ledger(tmp_path / "l", 0.3)
        sides = self.sides(first, texts)
        first.base, first.published, first.learnt = "x", [7], {2**64 - 1, 1}
        first.save()
        again = Ledger(tmp_path / "l", 0.9)  # the share of what is placed already does not matter
        assert self.sides(again, texts) == sides
        assert (again.base, again.published, again.learnt) == ("x", [7], {2**64 - 1, 1})
        assert self.sides(again, [t + " more" for t in texts]) == sides

    def test_only_what_no_round_has_read_is_news(self, tmp_path: Path) -> None:
        ledger = Ledger(tmp_path / "l", 0.0)
        (text,) = self.texts(1)
        ((digest, _),) = ledger.place([text])
        assert ledger.news(digest, 100) == 100
        ledger.note_learnt([digest], "x")
        ledger.save()
        for known in (ledger, Ledger(tmp_path / "l", 0.0)):
            ((edited, _),) = known.place([text + " and some more words at its end"])
            assert 0 < known.news(edited, 100) < 40
            known.note_tried([edited])
            assert known.news(edited, 100) == 0
        known.begin_anew("y")
        assert known.news(edited, 100) == 100

    @pytest.mark.parametrize("broken", ["cut", "flipped", "empty", "none of ours"])
    def test_damage_is_told(self, tmp_path: Path, broken: str) -> None:
        path = tmp_path / "l"
        ledger = Ledger(path, 0.3)
        self.sides(ledger, self.texts(20))
        ledger.save()
        data = path.read_bytes()
        flipped = data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]
        found = {"cut": data[:-9], "flipped": flipped, "empty": b"", "none of ours": b"[1]\n"}
        path.write_bytes(found[broken])
        assert "decided anew" in Ledger(path, 0.3).note

    def test_texts_without_a_window_have_no_fingerprints(self) -> None:
        assert len(fingerprints("short")) == 0
        assert len(fingerprints("x" * 16)) == 1
        assert digest_of("\ud800") != digest_of("a")


class TestNotes:
    def watch(self, folder: Path, **limits: float) -> Notes:
        given: dict[str, Any] = {"file_bytes": 1000, "total_bytes": 4000, "settle": 0.0} | limits
        return Notes(folder, folder / "run", **given)

    def test_what_cannot_be_read_is_skipped_and_told_once(self, tmp_path: Path) -> None:
        (tmp_path / "good.md").write_text("\ufeffa word\r\n\r\n\r\nand another\n")
        (tmp_path / "packed.txt.gz").write_bytes(gzip.compress(b"in a gzip file"))
        (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(10**6)))
        (tmp_path / "broken.gz").write_bytes(b"\x1f\x8bxx")
        (tmp_path / "huge.txt").write_bytes(b"x" * 1001)
        (tmp_path / "binary.bin").write_bytes(b"a\0b")
        (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
        (tmp_path / "empty.txt").write_bytes(b"")
        (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
        (tmp_path / ".hidden").write_text("hidden")
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "log.jsonl").write_text("its own")
        os.mkfifo(tmp_path / "pipe")
        notes = self.watch(tmp_path)
        assert notes.look()
        assert notes.paragraphs() == ["a word", "and another", "in a gzip file"]
        reasons = {Path(name).name: reason for name, reason in notes.skipped}
        assert reasons.pop("broken.gz")
        assert reasons == {
            "bomb.gz": "larger than 0.000953674 MiB",
            "huge.txt": "larger than 0.000953674 MiB",
            "binary.bin": "binary",
            "latin.txt": "not UTF-8",
            "empty.txt": "empty",
            "gone.txt": "not regular files",
            ".hidden": "hidden",
            "pipe": "not regular files",
        }
        assert "1 binary" in notes.news()
        assert notes.news() == ""
        assert not notes.look()

    def test_only_what_changed_is_read_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in "abc":
            (tmp_path / name).write_text(f"text {name}")
        notes = self.watch(tmp_path)
        assert notes.look()
        read: list[None] = []
        (tmp_path / "b").write_text("another text")
        (tmp_path / "c").unlink()
        (tmp_path / "a").rename(tmp_path / "d")
        assert notes.look(lambda: read.append(None))
        assert notes.paragraphs() == ["another text", "text a"]
        assert len(read) == 2

    def test_a_file_that_is_being_written_is_waited_for(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("text")
        notes = self.watch(tmp_path, settle=60.0)
        assert not notes.look()
        os.utime(tmp_path / "a", (1, 1))
        assert notes.look()
        assert notes.files == 1

    def test_a_folder_too_large_is_read_in_part(self, tmp_path: Path) -> None:
        for name in range(9):
            (tmp_path / str(name)).write_text(f"{name}" * 900)
        notes = self.watch(tmp_path)
        notes.look()
        assert notes.files == 4
        assert {reason for _, reason in notes.skipped} == {"beyond the first 0.0038147 MiB"}

    def test_a_folder_of_very_many_files_is_read_in_part(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("a/1", "a/2", "b/1", "c/1"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(f"text of {name}")
        monkeypatch.setattr("gatewise.serve.learning_notes.FILES", 3)
        notes = self.watch(tmp_path)
        notes.look()
        assert notes.paragraphs() == ["text of a/1", "text of a/2", "text of b/1"]
        assert notes.skipped == [(str(tmp_path / "c"), "beyond the first 3 files")]

    def test_a_file_that_cannot_be_opened(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "a").write_text("text")

        def refuse(*_: object) -> int:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("gatewise.serve.learning_notes._opener", refuse)
        notes = self.watch(tmp_path)
        notes.look()
        assert notes.skipped == [(str(tmp_path / "a"), "unreadable (Permission denied)")]

    def test_what_is_no_text_of_the_users_is_left(self, tmp_path: Path) -> None:
        for name in ("note.md", "note.md~", "#note.md#", "other/log.jsonl", "other/latest"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(f"text of {name}")
        (tmp_path / "other" / "checkpoints").mkdir()
        (tmp_path / "round").symlink_to(tmp_path, target_is_directory=True)
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "log.jsonl").write_text("its own")
        (tmp_path / "link").symlink_to(tmp_path / "run" / "log.jsonl")
        notes = self.watch(tmp_path)
        notes.look()
        assert notes.paragraphs() == ["text of note.md"]
        assert {Path(name).name: reason for name, reason in notes.skipped} == {
            "note.md~": "backups of editors",
            "#note.md#": "backups of editors",
            "log.jsonl": "in run folders",
            "latest": "in run folders",
            "round": "links to folders",
        }

    def test_a_folder_that_goes_is_told(self, tmp_path: Path) -> None:
        folder = tmp_path / "a"
        folder.mkdir()
        (folder / "note").write_text("text")
        notes = self.watch(folder)
        assert notes.look()
        folder.rename(tmp_path / "b")
        assert notes.look()
        assert notes.paragraphs() == []
        assert "unreadable (No such file or directory)" in notes.news()
        (tmp_path / "b").rename(folder)
        assert notes.look()
        assert notes.paragraphs() == ["text"]

    def test_an_edit_moves_few_cuts_of_a_long_paragraph(self) -> None:
        draw = np.random.default_rng(2)
        lines = [" ".join(map(str, row)) for row in draw.integers(0, 9999, (1000, 8)).tolist()]
        before = list(split("\n".join(lines)))
        after = list(split("\n".join(["a new line", *lines[:500], *lines[503:]])))
        assert len(before) > 20
        assert len(set(after) - set(before)) <= 8

    def test_paragraphs(self) -> None:
        assert list(split("\n\n  def f():\n    return\n \t\n\n\nx\n")) == [
            "  def f():\n    return",
            "x",
        ]
        long = list(split("word " * 2000))
        assert max(map(len, long)) <= LONGEST
        assert "".join(long).split() == ["word"] * 2000
        assert "".join(split("x" * 5000)) == "x" * 5000
        assert list(split("\n \n\n")) == []


def test_it_opens_and_closes() -> None:
    gate = Gate()
    gate.wait()
    gate.hold(0.05)
    start = time.monotonic()
    gate.wait()
    assert time.monotonic() - start >= 0.045
    gate.obey(iter(["pause\n", "nonsense\n", "hold x\n", "hold 1e9\n"]))  # type: ignore[arg-type]
    with pytest.raises(Closed):
        gate.wait()
    with pytest.raises(Closed):
        gate.sleep(60)
