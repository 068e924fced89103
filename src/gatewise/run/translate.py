"""A trained encoder-decoder, ready to translate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gatewise.checkpoint import Checkpoint
from gatewise.errors import CheckpointError, DataError, GatewiseError, OptionError
from gatewise.generate import SamplingOptions
from gatewise.mappings.examples import in_order
from gatewise.mappings.pairs import PairLearner, Pairs
from gatewise.mappings.seq_to_vec_to_seq import EncoderDecoder, EncoderDecoderConfig
from gatewise.metrics import Tally
from gatewise.modes import evaluating
from gatewise.probe import Control, Record, Records
from gatewise.run.base import Run, fill
from gatewise.run.writing import WrittenText, answers, as_text, check_search, unknown_words
from gatewise.text.batches import shifted
from gatewise.text.ragged import Ragged, lengths_of
from gatewise.text.sides import Sides

LONGEST = 1000
"""Tokens of a source that are read; what comes after them is left out, and said."""

_COLUMNS = 256
"""Columns that are written at once: sources times beams."""
_READ = 128


class Translation(WrittenText):
    """One translation."""


@dataclass(frozen=True)
class PairReading:
    """A source and a target as the model reads and writes them.

    Args:
        source, target: the texts.
        source_tokens, target_tokens: as the model sees them, marks included: (S,) and (T,).
        nats: (T,) float64, the cost of each target token given the source and the tokens before.
        weights: (T, S) of the attention, or None where the model has none.
        record: what was recorded, under ``encoder.`` and ``decoder.`` (batch 1), or None.
        notes: what to tell about the texts, a line each.
    """

    source: str
    target: str
    source_tokens: list[str]
    target_tokens: list[str]
    nats: Tensor
    weights: Tensor | None
    record: Records | None
    notes: list[str]

    @property
    def logprob(self) -> float:
        """Of the whole target, its end included."""
        return -float(self.nats.sum())

    @property
    def nats_per_token(self) -> float:
        """Mean cost of a target token."""
        return float(self.nats.mean())


class TranslateRun(Run):
    """A run of `gatewise train translate`.

    Attributes:
        model: an `EncoderDecoder`.
        sides: tokenizers of source and target.
    """

    mapping = "translate"
    verbs = ("translate", "read", "score", "attention", "vectors", "evaluate")
    model: EncoderDecoder

    def __init__(self, checkpoint: Checkpoint, model: nn.Module) -> None:
        super().__init__(checkpoint, model)
        try:
            self.sides = Sides.from_json(checkpoint.tokenizer_json)
        except CheckpointError as error:
            raise CheckpointError(f"{self.path}: {error}") from None
        config = self.model.config
        found = (self.sides.source.size, self.sides.target.size)
        if found != (config.source_size, config.target_size):
            raise CheckpointError(
                f"{self.path}: expected tokenizers of {config.source_size} and "
                f"{config.target_size} tokens, found {found[0]} and {found[1]}: model and tokenizers "
                "do not belong together"
            )

    def translate(
        self,
        text: str | Sequence[str],
        *,
        n: int = 1,
        beams: int = 5,
        length_penalty: float = 1.0,
        max_tokens: int | None = None,
        sampling: SamplingOptions | None = None,
        control: Control | None = None,
        engine: str = "auto",
    ) -> Any:
        """Translations of a text, the best first (list of `Translation`); of several texts, a list of each.

        A text's translations do not depend on the other texts.

        Args:
            text: one line, or several; `notes` says what the model does not know of it.
            n: how many translations of each.
            beams: width of the search, at least n; 0 or 1: the most probable token at each step.
            length_penalty: 0 compares log-probabilities, which favours short texts; more favours longer.
            max_tokens: longest translation; default: twice the source's tokens and 20.
            sampling: draw instead of searching: temperature, top_k, top_p, min_p, seed.
            control: what to set in the gates.
            engine: of the recurrent layers.
        Raises:
            OptionError: if an option is outside its range.
        """
        texts = [text] if isinstance(text, str) else list(text)
        check_search(n, beams, max_tokens, sampling)
        found: list[list[Translation]] = [[] for _ in texts]
        width = max(1, n if sampling else beams)
        sources = self._sources(texts)
        with evaluating(self.model), torch.inference_mode():
            for rows in in_order(sources.lengths, max(1, _COLUMNS // width)) if texts else ():
                begin, writing = self._begin(sources, rows, control, engine)
                limits = [max_tokens or 2 * int(s) + 20 for s in sources.lengths[rows]]
                end = self.sides.target.mark
                written = answers(
                    writing,
                    begin,
                    end,
                    limits,
                    n=n,
                    beams=beams,
                    length_penalty=length_penalty,
                    sampling=sampling,
                )
                for row, several in zip(rows.tolist(), written, strict=True):
                    target = self.sides.target
                    found[row] = [as_text(Translation, target, one) for one in several]
        return found[0] if isinstance(text, str) else found

    def read(
        self,
        source: str,
        target: str | None = None,
        *,
        record: Record | None = None,
        control: Control | None = None,
        engine: str = "auto",
    ) -> PairReading:
        """A source, and a target given it, through the model.

        Args:
            source: a text.
            target: a translation; default: the model's own, token by token the most probable.
            record: names such as ``encoder.layers.0.f``, or short ones, which mean both parts.
            control: what to set, by the same names.
            engine: of the recurrent layers.
        """
        if target is None:
            own = self.translate(source, beams=0, control=control, engine=engine)
            target = own[0].text
        ids = self.sides.target.encode(target)
        tokens, targets, _ = shifted(Ragged.of([ids], np.int64), [0], *self._ends)
        sources = self._sources([source])
        with evaluating(self.model), torch.inference_mode():
            out = self.model(
                sources.padded([0]).to(self.device),
                tokens.to(self.device),
                engine=engine,
                record=record,
                control=control,
            )
        logs = out.logits[:, 0].double().log_softmax(-1).cpu()
        weights = None if out.weights is None else out.weights[:, 0].float().cpu()
        return PairReading(
            source,
            target,
            self._source_tokens(sources[0]),
            self.sides.target.shown(targets[:, 0].numpy()),
            -logs.gather(1, targets)[:, 0],
            self._straight(weights),
            out.record,
            [
                *self.notes_of(source),
                *unknown_words("target vocabulary", self.sides.target.unknowns(target)),
            ],
        )

    def score(self, source: str, target: str, *, engine: str = "auto") -> PairReading:
        """What a given translation costs: forced scoring; see `PairReading.nats` and `.logprob`."""
        return self.read(source, target, engine=engine)

    def attention(
        self, source: str, target: str | None = None, *, engine: str = "auto"
    ) -> PairReading:
        """Where the model looks while it writes; see `PairReading.weights`.

        Raises:
            OptionError: if the model has no attention.
        """
        if self.model.decoder.attention is None:
            raise OptionError(
                f"{self.path}: expected a model with attention, found one with the single vector: "
                "train one with --attention dot"
            )
        return self.read(source, target, engine=engine)

    def vectors(self, phrases: Sequence[str], *, engine: str = "auto") -> Tensor:
        """The vector that each phrase is read into: (n, H) float32.

        Raises:
            DataError: if there is no phrase.
        """
        if isinstance(phrases, str) or not len(phrases):
            raise DataError("expected a list of at least one phrase, found none")
        sources = self._sources(phrases)
        found = torch.empty(len(phrases), self.model.config.hidden_size)
        with evaluating(self.model), torch.inference_mode():
            for rows in in_order(sources.lengths, _READ):
                read = self.model.encode(*self._batch(sources, rows), engine=engine)
                found[torch.from_numpy(rows)] = read.vector.float().cpu()
        return found

    def evaluate(self, pairs: Sequence[tuple[str, str]], *, engine: str = "auto") -> Tally:
        """The cost of targets given their sources and the tokens before.

        Raises:
            DataError: if there is no pair.
        """
        if not pairs:
            raise DataError("expected at least one pair, found none")
        targets = Ragged.of([self.sides.target.encode(one) for _, one in pairs], np.int64)
        characters = np.array([len(one) for _, one in pairs], np.int64)
        part = Pairs(self._sources([one for one, _ in pairs]), targets, characters)
        begin, end = self._ends
        learner = PairLearner(self.model, {"train": part}, begin=begin, end=end, engine=engine)
        found = learner.evaluate("train")
        assert found is not None  # only a stop makes it None
        return found

    def notes_of(self, source: str) -> list[str]:
        """What to tell about a source: words that the model does not know, and what it leaves out."""
        notes = unknown_words("source vocabulary", self.sides.source.unknowns(source))
        size = len(self.sides.source.encode(source))
        if size > LONGEST:
            notes.append(
                f"only the first {LONGEST:,} of {size:,} tokens are read: give it a sentence at a time"
            )
        if not size:
            notes.append("there is no word in it")
        return notes

    @property
    def _ends(self) -> tuple[int, int]:
        mark = self.sides.target.mark
        return mark, mark

    def _sources(self, texts: Sequence[str]) -> Ragged:
        side = self.sides.source
        return Ragged.of(
            [np.append(side.encode(one)[:LONGEST], side.mark) for one in texts], np.int64
        )

    def _batch(self, sources: Ragged, rows: np.ndarray[Any, Any]) -> tuple[Tensor, Tensor]:
        return sources.padded(rows).to(self.device), lengths_of(sources, rows).to(self.device)

    def _begin(
        self, sources: Ragged, rows: np.ndarray[Any, Any], control: Control | None, engine: str
    ) -> tuple[Tensor, Any]:
        read = self.model.encode(*self._batch(sources, rows), engine=engine, control=control)
        begin = torch.full((len(rows),), self.sides.target.mark, device=self.device)
        return begin, self.model.writing(read, engine=engine, control=control)

    def _source_tokens(self, ids: np.ndarray[Any, Any]) -> list[str]:
        return self.sides.source.shown(ids)

    def _straight(self, weights: Tensor | None) -> Tensor | None:
        """The weights in the order of the text, where the model reads it from its end."""
        if weights is None or not self.model.config.reverse_source:
            return weights
        return weights.flip(1)


def build(checkpoint: Checkpoint) -> tuple[type[TranslateRun], nn.Module]:
    """The model of a checkpoint of mapping "translate", with its weights."""
    try:
        config = EncoderDecoderConfig.from_dict(checkpoint.config.get("model") or {})
        with torch.device("meta"):
            model = EncoderDecoder(config)
    except GatewiseError as error:
        raise CheckpointError(f"{checkpoint.path}: not an encoder-decoder: {error}") from None
    fill(model, checkpoint)
    return TranslateRun, model
