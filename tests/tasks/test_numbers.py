"""Numbers in words: each spelling means one number, and no number is in two parts."""

from __future__ import annotations

import pytest

from gatewise.errors import OptionError, UnknownNameError
from gatewise.tasks.numbers import MOST, SPELLINGS, number_pairs


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_two_numbers_are_spelled_alike(spelling: str) -> None:
    assert len({SPELLINGS[spelling](number) for number in range(MOST)}) == MOST


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, ("zero", "null", "zéro")),
        (1, ("one", "eins", "un")),
        (16, ("sixteen", "sechzehn", "seize")),
        (21, ("twenty-one", "einundzwanzig", "vingt-et-un")),
        (70, ("seventy", "siebzig", "soixante-dix")),
        (71, ("seventy-one", "einundsiebzig", "soixante-et-onze")),
        (81, ("eighty-one", "einundachtzig", "quatre-vingt-un")),
        (95, ("ninety-five", "fünfundneunzig", "quatre-vingt-quinze")),
        (100, ("one hundred", "einhundert", "cent")),
        (200, ("two hundred", "zweihundert", "deux-cents")),
        (1001, ("one thousand one", "eintausendeins", "mille-un")),
        (
            9876,
            (
                "nine thousand eight hundred seventy-six",
                "neuntausendachthundertsechsundsiebzig",
                "neuf-mille-huit-cent-soixante-seize",
            ),
        ),
    ],
)
def test_spellings(number: int, words: tuple[str, ...]) -> None:
    assert tuple(spell(number) for spell in SPELLINGS.values()) == words


def test_parts_share_no_number() -> None:
    parts = number_pairs().parts
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 15_000,
        "valid": 900,
        "test": 900,
    }
    digits = [{target for _, target in part} for part in parts.values()]
    assert sum(map(len, digits)) == len(set.union(*digits)) == 5_600
    assert parts == number_pairs().parts
    assert parts != number_pairs(seed=1).parts


def test_digits_to_words() -> None:
    both = number_pairs(("english", "german"), (3, 0, 0), to_words=True).parts["train"]
    assert [source.split()[0] for source, _ in both] == ["english", "german"] * 3
    one = number_pairs(("french",), (3, 0, 0), to_words=True).parts["train"]
    assert all(source.isdigit() for source, _ in one)


def test_what_cannot_be() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'german'"):
        number_pairs(("germen",))
    with pytest.raises(OptionError, match="at most 10,000 numbers"):
        number_pairs(sizes=(9_000, 900, 900))
    with pytest.raises(OptionError, match="from 0 to 9,999"):
        SPELLINGS["english"](10_000)
