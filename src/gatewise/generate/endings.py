"""Where a text ends: rules that look at characters, whatever the tokens are.

A rule is given text piece by piece and passes on what is certain to be part of the result. What
could still turn out to be the beginning of a stop string is held back. The result depends on the
characters alone, not on how they were cut into pieces.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from gatewise.generate.options import SamplingOptions

# A sentence ends in one of these; the wide ones need no white space after them.
_ENDS = ".!?\u2026"
_WIDE_ENDS = "\u3002\uff01\uff1f"
_OPENING, _CLOSING = "([{", ")]}"
_CLOSERS = "\"')]}\u2019\u201d\u00bb\u300d\u300f"


class Decoder(Protocol):
    """Turns tokens into text as they come."""

    def push(self, token: int, /) -> str:
        """The text that this token made definite."""

    def flush(self) -> str:
        """The text that was still open."""


class Ending(ABC):
    """One rule. `done` is set once the text has ended; later text is ignored.

    `reason` is what such an end is called: "stop" or "length".
    """

    done = False
    reason = "stop"

    @abstractmethod
    def push(self, text: str) -> str:
        """What became definite by `text`."""

    def flush(self) -> str:
        """What was held back, now that nothing follows."""
        return ""


class StopStrings(Ending):
    """Ends before the first stop string to be complete; of two at once, before the longer.

    Attributes:
        met: that stop string, or "".
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops, self.met = tuple(stops), ""
        self._reach = max(map(len, self._stops)) - 1
        self._held = ""

    def push(self, text: str) -> str:
        """See Ending."""
        if self.done:
            return ""
        text = self._held + text
        hits = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if hits:
            _, at, self.met = min(hits)
            self.done, self._held = True, ""
            return text[:at]
        cut = len(text) - self._open(text)
        self._held = text[cut:]
        return text[:cut]

    def _open(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop string."""
        for size in range(min(len(text), self._reach), 0, -1):
            tail = text[-size:]
            if any(stop.startswith(tail) for stop in self._stops):
                return size
        return 0

    def flush(self) -> str:
        """See Ending."""
        held, self._held = self._held, ""
        return held


class Lines(Ending):
    """Ends before the newline that closes line `count`."""

    def __init__(self, count: int) -> None:
        self._left = count

    def push(self, text: str) -> str:
        """See Ending."""
        if self.done:
            return ""
        at = -1
        while self._left and (at := text.find("\n", at + 1)) >= 0:
            self._left -= 1
        self.done = self._left == 0
        return text[:at] if self.done else text


class Sentences(Ending):
    """Ends after sentence `count`: a full stop, closing quotes, then white space."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._ended = False

    def push(self, text: str) -> str:
        """See Ending."""
        if self.done:
            return ""
        for at, character in enumerate(text):
            if self._ended and character.isspace():
                self._left -= 1
                self._ended = False
                if not self._left:
                    self.done = True
                    return text[:at]
            elif character in _WIDE_ENDS:
                self._left -= 1
                self._ended = False
                if not self._left:
                    self.done = True
                    return text[: at + 1]
            else:
                self._ended = character in _ENDS or (self._ended and character in _CLOSERS)
        return text


class Words(Ending):
    """Ends before the white space that follows word `count`."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._within = False

    def push(self, text: str) -> str:
        """See Ending."""
        if self.done:
            return ""
        for at, character in enumerate(text):
            if not character.isspace():
                self._within = True
            elif self._within:
                self._within = False
                self._left -= 1
                if not self._left:
                    self.done = True
                    return text[:at]
        return text


class Closing(Ending):
    """Ends after the bracket that closes one which the text did not open."""

    def __init__(self) -> None:
        self._depth = 0

    def push(self, text: str) -> str:
        """See Ending."""
        if self.done:
            return ""
        for at, character in enumerate(text):
            self._depth += (character in _OPENING) - (character in _CLOSING)
            if self._depth < 0:
                self.done = True
                return text[: at + 1]
        return text


class Characters(Ending):
    """Ends after `count` characters."""

    reason = "length"

    def __init__(self, count: int) -> None:
        self._left = count

    def push(self, text: str) -> str:
        """See Ending."""
        text = text[: self._left]
        self._left -= len(text)
        self.done = self._left == 0
        return text


_PIECES = 256
"""Of a text that are kept one by one: each takes ten times its characters."""


class Writer:
    """The text of one sample: tokens in, definite text out, through the rules of the options.

    Args:
        decoder: a fresh incremental decoder.
        options: which rules hold.
        before: the last tokens of the prompt; a decoder may need them to know, say, whether a
            space belongs before the first word.
    """

    def __init__(
        self, decoder: Decoder, options: SamplingOptions, before: Sequence[int] = ()
    ) -> None:
        self._decoder = decoder
        self._rules: list[Ending] = [StopStrings(options.stop)] if options.stop else []
        for make, count in (
            (Lines, options.lines),
            (Sentences, options.sentences),
            (Words, options.words),
            (Characters, options.max_characters),
        ):
            if count is not None:
                self._rules.append(make(count))
        if options.closing:
            self._rules.append(Closing())
        for token in before:
            decoder.push(token)
        self._joined: list[str] = []
        self._pieces: list[str] = []
        self.reason = ""

    @property
    def stop(self) -> str:
        """The stop string that the text has met, or ""."""
        return next((rule.met for rule in self._rules if isinstance(rule, StopStrings)), "")

    @property
    def done(self) -> bool:
        """Whether a rule has ended the text."""
        return bool(self.reason)

    def push(self, token: int) -> str:
        """The text that this token made definite; sets `reason` where a rule ended it."""
        return self._pass(self._decoder.push(token), 0)

    def flush(self) -> str:
        """The rest: nothing follows. Called once."""
        text = self._pass(self._decoder.flush(), 0)
        for place, rule in enumerate(self._rules):
            if not self.done:
                text += self._pass(rule.flush(), place + 1)
        return text

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join((*self._joined, *self._pieces))

    def _pass(self, text: str, first: int) -> str:
        for rule in self._rules[first:]:
            text = rule.push(text)
            if rule.done:  # a later rule cuts what an earlier one left, so its reason holds
                self.reason = rule.reason
        if text:
            self._pieces.append(text)
            if len(self._pieces) == _PIECES:
                self._joined.append("".join(self._pieces))
                self._pieces.clear()
        return text
