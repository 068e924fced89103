"""Loaded runs, and what they read, in a notebook."""

from __future__ import annotations

import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

import gatewise as gw
from gatewise.checkpoint import RunFolder, export_checkpoint, load_checkpoint
from gatewise.display import Markup
from gatewise.run import LanguageRun
from gatewise.run.showing import reading_html
from gatewise.text.corpora import build_corpus
from gatewise.train import train
from train_cases import build


def rows(html: str) -> dict[str, str]:
    tree = ElementTree.fromstring(html)
    found = [["".join(cell.itertext()) for cell in row] for row in tree.iter("tr")]
    return {row[0]: row[1] for row in found if len(row) > 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps on two sentences."""
    base = tmp_path_factory.mktemp("<runs>")
    text = base / "text.txt"
    text.write_text("A gate is open. & <b>a gate</b> is closed.\n" * 40, encoding="utf-8")
    learner, training = build(build_corpus([text], cache=False), steps=2, checkpoint_seconds=None)
    with RunFolder.create(base / "run") as target:
        train(learner, target, training)
    return base / "run"


def test_a_run_shows_sizes_and_figures(folder: Path) -> None:
    run = gw.load(folder)
    found = rows(run._repr_html_())
    assert found["path"] == str(run.path)
    assert "cell lstm" in found["model"]
    assert "hidden size 16" in found["model"]
    size = sum(p.numel() for p in run.model.parameters())
    assert found["parameters"] == f"{size:,}"
    figures = RunFolder.open(folder).log.validations()[-1]
    assert found["validation, nats/token"] == f"{figures['nats_per_token']:.4f}"
    assert "complete" in found["can"]


def test_an_exported_run_has_no_figures(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "checkpoints-not" / "exported"
    out.parent.mkdir()
    export_checkpoint(load_checkpoint(folder), out)
    assert not any(name.startswith("validation") for name in rows(gw.load(out)._repr_html_()))


def test_a_run_whose_log_is_gone(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / "log.jsonl").write_text("{broken\n", encoding="utf-8")
    assert "path" in rows(gw.load(tmp_path / "run")._repr_html_())


def test_a_reading_is_its_text_with_its_gates(folder: Path) -> None:
    run = gw.load(folder)
    assert isinstance(run, LanguageRun)
    html = run.read("a <gate> & Z", record=gw.Record("f"), engine="reference")._repr_html_()
    tree = ElementTree.fromstring(html)
    spans = list(tree.iter("span"))
    assert "".join(span.text or "" for span in spans)[:5] == "a <ga"
    assert spans[0].get("title") == "the first"
    assert (spans[1].get("title") or "").endswith(" nats")
    assert "nats/token (the darker, the more)" in html
    lines = run.read("a\nb", engine="reference")._repr_html_()
    assert "\\n</span>\n<span" in lines  # shown, and made
    assert len(list(tree.iter("img"))) == 1
    assert "not in the model" in html
    said = repr(run.read("abc" * 20, record=gw.Record("f"), engine="reference"))
    assert said.startswith(f"Reading({'abc' * 13 + 'a'!r}, 60 tokens, ")
    assert said.endswith(" nats/token, record of layers.0.f)")
    assert repr(run.read("a", engine="reference")) == "Reading('a', 1 token)"
    assert not list(
        ElementTree.fromstring(run.read("a", engine="reference")._repr_html_()).iter("img")
    )


def test_a_long_reading_stays_small() -> None:
    html = reading_html(["<"] * 100_000, [1.0] * 100_000, Markup(), [])
    assert len(html) < 400_000
    assert "98,000 more tokens" in html
    assert len(list(ElementTree.fromstring(html).iter("span"))) == 2000
