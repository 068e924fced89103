from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from gatewise.errors import DataError, OptionError
from gatewise.metrics.captions import DocumentFrequencies, score_captions, tokenize
from gatewise.metrics.ratings import (
    LEVELS,
    Rating,
    RatingTable,
    append_rating,
    correlations,
    read_expert_annotations,
    read_ratings,
)


def test_a_file_of_several_people_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "ratings.jsonl"
    ratings = [
        Rating("a.jpg", "a dog", "ann", 4),
        Rating("a.jpg", "a dog", "bob", 3),
        Rating("b.jpg", "ein Häuschen\nam See", "ann", 1),
    ]
    for rating in [Rating("a.jpg", "a dog", "ann", 1), *ratings]:
        append_rating(path, rating)
    assert read_ratings(path) == ratings  # ann's second thought counts
    table = RatingTable.of(read_ratings(path))
    assert table.raters == ["ann", "bob"]
    assert table.means.tolist() == [3.5, 1.0]
    found = json.loads(json.dumps(table.summary(), allow_nan=False))
    assert [row["ratings"] for row in found["levels"]] == [1, 1, 0, 1]
    assert found["by_rater"] == {"ann": [1, 0, 0, 1], "bob": [0, 1, 0, 0]}
    assert [row["meaning"] for row in found["levels"]] == list(LEVELS.values())


def test_agreement_of_krippendorffs_own_example() -> None:
    """Krippendorff 2011, section E: 4 observers, 12 units, ordinal alpha .815; levels beyond 4 fall out
    of our scale, so the units with a 5 are left out on both sides, and the package is asked."""
    package = pytest.importorskip(
        "krippendorff", reason="the extra gatewise[ratings] is not installed"
    )
    star = math.nan
    data = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, star, star, star],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, star, 3],
            [star, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, star],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, star],
        ]
    )
    whole = package.alpha(reliability_data=data, level_of_measurement="ordinal")
    assert whole == pytest.approx(0.815, abs=5e-4)
    ours = data[:, [k for k in range(12) if k != 9]].T
    table = RatingTable([("x", str(k)) for k in range(11)], list("abcd"), ours)
    expected = package.alpha(reliability_data=ours.T, level_of_measurement="ordinal")
    assert table.agreement() == pytest.approx(expected)


def test_agreement_where_there_is_none_to_speak_of() -> None:
    pytest.importorskip("krippendorff", reason="the extra gatewise[ratings] is not installed")
    alone = RatingTable.of([Rating("a", "x", "ann", 4), Rating("b", "y", "bob", 1)])
    assert math.isnan(alone.agreement())
    same = RatingTable.of([Rating("a", "x", "ann", 4), Rating("a", "x", "bob", 4)])
    assert math.isnan(same.agreement())


def test_correlations_of_a_metric_that_is_right_and_one_that_is_wrong() -> None:
    pytest.importorskip("scipy", reason="the extra gatewise[ratings] is not installed")
    people = [1, 2, 3, 4]
    found = correlations({"right": [0.1, 0.2, 0.5, 0.9], "wrong": [4.0, 3.0, 2.0, 1.0]}, people)
    assert found["right"] == pytest.approx({"tau_b": 1, "tau_c": 1, "spearman": 1})
    assert found["wrong"] == pytest.approx({"tau_b": -1, "tau_c": -1, "spearman": -1})
    with pytest.raises(DataError, match="1 of short and 4"):
        correlations({"short": [1.0]}, people)


def expert_scores(folder: Path) -> tuple[RatingTable, dict[str, list[float]]]:
    """Flickr8k's expert scores, and those of the metrics, the caption itself not a reference."""
    texts: dict[str, str] = {}
    of_image: dict[str, list[str]] = {}
    for line in (folder / "Flickr8k.token.txt").read_text("utf-8").splitlines():
        name, text = line.split("\t")
        texts[name] = text
        of_image.setdefault(name.split("#")[0], []).append(name)
    table = RatingTable.of(read_expert_annotations(folder / "ExpertAnnotations.txt"))
    kept = [k for k, (image, _) in enumerate(table.captions) if image in of_image]
    table = RatingTable([table.captions[k] for k in kept], table.raters, table.levels[kept])
    captions = [texts[caption] for _, caption in table.captions]
    references = [
        [texts[n] for n in of_image[image] if n != caption] for image, caption in table.captions
    ]
    images = {image for image, _ in table.captions}
    weights = DocumentFrequencies(
        [tokenize(texts[n]) for n in of_image[image]] for image in sorted(images)
    )
    return table, score_captions(captions, references, weights).each


def test_metrics_go_with_flickr8ks_experts(shared_data: Path) -> None:
    pytest.importorskip("scipy", reason="the extra gatewise[ratings] is not installed")
    pytest.importorskip("krippendorff", reason="the extra gatewise[ratings] is not installed")
    table, scores = expert_scores(shared_data / "flickr8k")
    assert table.levels.shape == (5822, 3)
    assert table.agreement() == pytest.approx(0.694, abs=5e-4)  # as measured
    found = correlations(
        {name: scores[name] for name in ("bleu_4", "rouge_l", "cider_d")}, table.means
    )
    assert found["bleu_4"]["tau_c"] > 0.2
    assert found["cider_d"]["tau_c"] > found["rouge_l"]["tau_c"] > 0.25


def test_correlations_are_the_published_ones(shared_data: Path) -> None:
    """Hessel et al. 2021, "CLIPScore", table 1: tau-c of BLEU-4 30.8, ROUGE-L 32.3, CIDEr 43.9.

    Their rule: each expert's score by itself; pairs of an image and its own caption left out.
    """
    pytest.importorskip("scipy", reason="the extra gatewise[ratings] is not installed")
    table, scores = expert_scores(shared_data / "flickr8k")
    foreign = [k for k, (image, name) in enumerate(table.captions) if not name.startswith(image)]
    people = table.levels[foreign].ravel()
    published = {"bleu_4": 0.308, "rouge_l": 0.323, "cider_d": 0.439}
    each = {n: np.repeat(np.array(scores[n])[foreign], 3).tolist() for n in published}
    found = {name: row["tau_c"] for name, row in correlations(each, people).items()}
    assert found == pytest.approx(published, abs=2e-3)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nonsense", "line 2: expected a JSON object"),
        ('{"item": "a"}', "line 2: expected an object with item, caption, rater, level"),
        ('{"item": "a", "caption": "b", "rater": "c", "level": 5}', "line 2: .*1 to 4, found 5"),
        ('{"item": "a", "caption": "b", "rater": 7, "level": 1}', "'rater' as text, found 7"),
        ("[]", "line 2: expected an object"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"item": "a", "caption": "b", "rater": "c", "level": 2}\n' + line + "\n")
    with pytest.raises(DataError, match=said):
        read_ratings(path)


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="expected a file of ratings"):
        read_ratings(tmp_path / "none")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(DataError, match="found none"):
        read_ratings(tmp_path / "empty")
    (tmp_path / "experts").write_text("a.jpg\tb.jpg#1\t1\t2\t9\n")
    with pytest.raises(DataError, match="line 1: expected image"):
        read_expert_annotations(tmp_path / "experts")
    monkeypatch.setitem(sys.modules, "krippendorff", None)
    table = RatingTable.of([Rating("a", "x", "ann", 4), Rating("a", "x", "bob", 3)])
    with pytest.raises(OptionError, match=r"gatewise\[ratings\]"):
        table.agreement()
