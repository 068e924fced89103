"""Numbers in words and in digits, as a translation that needs no download: three spellings, one meaning.

The words of a number are spelled in English, German or French, and say by themselves in which. A number is in
one part only, with all its spellings, so that the test asks for numbers that were never seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from gatewise.errors import OptionError, unknown
from gatewise.tasks.parallel import ParallelText

MOST = 10_000
"""All numbers are below it."""

_ENGLISH = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_ENGLISH_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_GERMAN = [
    "null",
    "eins",
    "zwei",
    "drei",
    "vier",
    "fünf",
    "sechs",
    "sieben",
    "acht",
    "neun",
    "zehn",
    "elf",
    "zwölf",
    "dreizehn",
    "vierzehn",
    "fünfzehn",
    "sechzehn",
    "siebzehn",
    "achtzehn",
    "neunzehn",
]
_GERMAN_TENS = [
    "zwanzig",
    "dreißig",
    "vierzig",
    "fünfzig",
    "sechzig",
    "siebzig",
    "achtzig",
    "neunzig",
]
_FRENCH = [
    "zéro",
    "un",
    "deux",
    "trois",
    "quatre",
    "cinq",
    "six",
    "sept",
    "huit",
    "neuf",
    "dix",
    "onze",
    "douze",
    "treize",
    "quatorze",
    "quinze",
    "seize",
    "dix-sept",
    "dix-huit",
    "dix-neuf",
]
_FRENCH_TENS = ["vingt", "trente", "quarante", "cinquante", "soixante"]


def english(number: int) -> str:
    """The English words of a number below 10,000.

    >>> english(2_019), english(45), english(300)
    ('two thousand nineteen', 'forty-five', 'three hundred')
    """
    thousands, rest = divmod(_checked(number), 1000)
    words = [_ENGLISH[thousands], "thousand"] if thousands else []
    hundreds, rest = divmod(rest, 100)
    words += [_ENGLISH[hundreds], "hundred"] if hundreds else []
    if rest >= 20:
        tens, ones = divmod(rest, 10)
        words.append(_ENGLISH_TENS[tens - 2] + (f"-{_ENGLISH[ones]}" if ones else ""))
    elif rest or not words:
        words.append(_ENGLISH[rest])
    return " ".join(words)


def german(number: int) -> str:
    """The German words of a number below 10,000.

    >>> german(2_019), german(45), german(301), german(1)
    ('zweitausendneunzehn', 'fünfundvierzig', 'dreihunderteins', 'eins')
    """
    thousands, rest = divmod(_checked(number), 1000)
    word = f"{_german_one(thousands)}tausend" if thousands else ""
    hundreds, rest = divmod(rest, 100)
    word += f"{_german_one(hundreds)}hundert" if hundreds else ""
    if rest >= 20:
        tens, ones = divmod(rest, 10)
        return word + (f"{_german_one(ones)}und" if ones else "") + _GERMAN_TENS[tens - 2]
    return word + _GERMAN[rest] if rest or not word else word


def _german_one(number: int) -> str:
    return "ein" if number == 1 else _GERMAN[number]


def french(number: int) -> str:
    """The French words of a number below 10,000, as since 1990: with hyphens throughout.

    >>> french(2_019), french(80), french(71), french(299)
    ('deux-mille-dix-neuf', 'quatre-vingts', 'soixante-et-onze', 'deux-cent-quatre-vingt-dix-neuf')
    """
    thousands, rest = divmod(_checked(number), 1000)
    words = ([_FRENCH[thousands]] if thousands > 1 else []) + (["mille"] if thousands else [])
    hundreds, rest = divmod(rest, 100)
    if hundreds:
        words += ([_FRENCH[hundreds]] if hundreds > 1 else []) + ["cent"]
        if hundreds > 1 and not rest:
            words[-1] = "cents"
    if rest or not words:
        words.append(_french_below_100(rest))
    return "-".join(words)


def _french_below_100(number: int) -> str:
    if number < 20:
        return _FRENCH[number]
    if number >= 80:
        ones = number - 80
        return f"quatre-vingt-{_FRENCH[ones]}" if ones else "quatre-vingts"
    tens = min(number // 10, 6)
    ones = number - 10 * tens
    word = _FRENCH_TENS[tens - 2]
    if not ones:
        return word
    return f"{word}-et-{_FRENCH[ones]}" if ones in (1, 11) else f"{word}-{_FRENCH[ones]}"


def _checked(number: int) -> int:
    if not 0 <= number < MOST:
        raise OptionError(f"expected a number from 0 to {MOST - 1:,}, found {number}")
    return number


SPELLINGS: Mapping[str, Callable[[int], str]] = {
    "english": english,
    "german": german,
    "french": french,
}


def number_pairs(
    spellings: tuple[str, ...] = tuple(SPELLINGS),
    sizes: tuple[int, int, int] = (5000, 300, 300),
    *,
    to_words: bool = False,
    seed: int = 0,
) -> ParallelText:
    """Words and digits of drawn numbers: train, valid and test, no number in two of them.

    Args:
        spellings: of each number.
        sizes: numbers of each part; each gives a pair for each spelling.
        to_words: digits to words; with several spellings the digits name the one, as in "german 23".
        seed: of the draw.
    Raises:
        UnknownNameError: if there is no such spelling.
        OptionError: if there are not so many numbers.
    """
    for name in spellings:
        if name not in SPELLINGS:
            raise unknown("spelling", name, SPELLINGS)
    if min(sizes) < 0 or sum(sizes) > MOST:
        raise OptionError(f"sizes: expected at most {MOST:,} numbers in all, found {sum(sizes):,}")
    numbers = np.random.default_rng(seed).permutation(MOST).tolist()
    parts, at = {}, 0
    for part, size in zip(("train", "valid", "test"), sizes, strict=True):
        pairs = [(SPELLINGS[s](n), str(n)) for n in numbers[at : at + size] for s in spellings]
        if to_words:
            tags = [f"{s} " if len(spellings) > 1 else "" for s in spellings] * size
            pairs = [
                (tag + digits, words) for tag, (words, digits) in zip(tags, pairs, strict=True)
            ]
        parts[part] = pairs
        at += size
    return ParallelText(parts)


__all__ = ["MOST", "SPELLINGS", "english", "french", "german", "number_pairs"]
