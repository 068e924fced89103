"""A language model and its token streams: what the training loop sees of them, and evaluation.

The columns of a batch are independent streams (the lecture's batch-ification); a chunk starts from
the state in which the one before ended. With several processes each takes its share of the columns.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gatewise.errors import DataError, OptionError
from gatewise.mappings.config import check_rate
from gatewise.mappings.learner import Batch, Loss
from gatewise.mappings.seq_to_seq import LanguageModel
from gatewise.metrics import Tally
from gatewise.modes import evaluating
from gatewise.text.batches import Stream
from gatewise.text.corpora import Corpus, Tokens
from gatewise.text.tokenizers import Tokenizer
from gatewise.types import State, detach, mixed

MAX_COLUMNS = 1 << 20
MAX_LENGTH = 1 << 20
_DROPPED = 1
"""Tells these draws from those of the lengths."""


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """How a text is cut into batches."""

    batch_size: int = 32
    """Columns: independent streams of text read side by side."""

    eval_batch_size: int = 10
    """Columns in evaluation; 1 reads the part in one piece."""

    bptt: int = 64
    """Steps that gradients flow back; the state is carried further."""

    random_bptt: bool = False
    """Draw each chunk's length around --bptt (AWD-LSTM), learning rate scaled with it."""

    drop_state: float = 0.0
    """Share of the columns that begin each chunk from the start state, as a completed text does."""

    def validate(self) -> None:
        """Raise OptionError, naming the flag, if any option is outside its range."""
        for name, largest in (
            ("batch_size", MAX_COLUMNS),
            ("eval_batch_size", MAX_COLUMNS),
            ("bptt", MAX_LENGTH),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= largest:
                flag = "--" + name.replace("_", "-")
                raise OptionError(
                    f"{flag}: expected a whole number from 1 to {largest:,}, found {value}"
                )
        check_rate("drop_state", self.drop_state)


class LanguageLearner:
    """Trains a LanguageModel on a Corpus; implements `mappings.Learner`.

    Args:
        model: on the device where it is to be trained.
        corpus: tokenizer and parts; "train" is needed.
        options: batches.
        seed: of the random chunk lengths.
        engine: name of an engine, or "auto".
        rank, world_size: this process's share of the columns: rank * B / world_size onwards.

    Attributes:
        extra: what else a checkpoint should say of the run, by name; JSON-able.

    Raises:
        OptionError: if an option is outside its range or too large for the text.
        DataError: if there is nothing to train on.
    """

    kind = "lm"
    unit = "tokens"

    def __init__(
        self,
        model: LanguageModel,
        corpus: Corpus,
        options: StreamOptions | None = None,
        *,
        seed: int = 1,
        engine: str = "auto",
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.model = model
        self.corpus = corpus
        self.options = options or StreamOptions()
        self.seed = seed
        self.engine = engine
        self.extra: dict[str, Any] = {}
        self.options.validate()
        self._stream = _training_stream(corpus, self.options).shard(rank, world_size)
        self._rank = rank

    @property
    def positions(self) -> int:
        """Rows that are predicted in an epoch: the first row only is not."""
        return self._stream.steps

    @property
    def uniform_nats(self) -> float | None:
        """ln V."""
        return math.log(self.model.vocab_size)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.embedding.weight.device

    def batch(self, epoch: int, position: int) -> Batch:
        """Rows `position` onwards, (length, B) tokens and targets."""
        length, scale = self._length(epoch, position)
        x, y = self._stream.window(position, length)
        device = self.device
        if device.type != "cpu":
            x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
        stop = position + length
        name = f"rows {position} to {stop} of epoch {epoch + 1}"
        enter = self._enter(epoch, position, x.shape[1])
        return Batch((x, y), stop, position, x.numel(), scale, name, enter)

    def _enter(self, epoch: int, position: int, columns: int) -> Callable[[State], State] | None:
        """Put some columns to the start: a function of where the chunk begins, as its length is."""
        if not self.options.drop_state or not position:
            return None
        draws = np.random.default_rng((self.seed, epoch, position, _DROPPED))
        chosen = draws.random(self.options.batch_size) < self.options.drop_state
        own = torch.from_numpy(chosen[self._rank * columns :][:columns])
        return partial(self._begun_anew, own) if own.any() else None

    @torch.no_grad()
    def _begun_anew(self, columns: Tensor, state: State) -> State:
        return mixed(columns, self.model.stack.zero_state(len(columns)), state)

    def _length(self, epoch: int, position: int) -> tuple[int, float]:
        bptt, left = self.options.bptt, self.positions - position
        if not self.options.random_bptt:
            return min(bptt, left), 1.0
        length = min(random_length(bptt, self.seed, epoch, position), left)
        return length, length / bptt

    def loss(self, batch: Batch, state: State) -> Loss:
        """Mean nats of the batch's targets, penalties added."""
        x, y = batch.inputs
        out = self.model.loss(x, y, state, start=batch.start, engine=self.engine)
        return Loss(out.loss, out.nats, out.state, out.engine)

    def has_part(self, part: str) -> bool:
        """Whether `part` holds at least one prediction."""
        return part in self.corpus.splits and len(self.corpus.splits[part].ids) >= 2

    def evaluate(self, part: str, stopped: Callable[[], bool] = lambda: False) -> Tally | None:
        """The cost of `part`, read once with the state carried."""
        if not self.has_part(part):
            raise DataError(f"expected text in the {part!r} part, found none")
        return evaluate_stream(
            self.model,
            self.corpus.splits[part],
            self.corpus.tokenizer,
            batch_size=self.options.eval_batch_size,
            engine=self.engine,
            stopped=stopped,
        )

    def config(self) -> dict[str, Any]:
        """Model and data, as a checkpoint keeps them."""
        return self.extra | {
            "mapping": self.kind,
            "model": self.model.config.to_dict(),
            "streams": dataclasses.asdict(self.options),
            "data": {
                "fingerprint": self.corpus.fingerprint,
                "tokens": {name: len(part.ids) for name, part in self.corpus.splits.items()},
            },
        }

    def tokenizer_json(self) -> str | None:
        """The corpus's tokenizer."""
        return self.corpus.tokenizer.to_json()


def _training_stream(corpus: Corpus, options: StreamOptions) -> Stream:
    tokens = corpus.splits.get("train")
    count = 0 if tokens is None else len(tokens.ids)
    if tokens is None or count < 2:
        raise DataError(f"expected a training text of at least 2 tokens, found {count}: add text")
    if count < 2 * options.batch_size:
        raise OptionError(
            f"--batch-size: the training text has {count} tokens, too few for "
            f"{options.batch_size} columns of at least 2: use {count // 2} or less, or more text"
        )
    return Stream(tokens.ids, options.batch_size)


def random_length(bptt: int, seed: int, epoch: int, position: int) -> int:
    """AWD-LSTM's chunk length: 95 % N(bptt, 5), 5 % N(bptt / 2, 5), at least 5.

    A function of where the chunk begins, so that nothing has to be stored to repeat it.
    """
    draws = np.random.default_rng((seed, epoch, position))
    mean = bptt if draws.random() < 0.95 else bptt / 2
    return max(5, int(draws.normal(mean, 5)))


class Cost(Protocol):
    """What a chunk cost, and the state after it."""

    @property
    def nats(self) -> Tensor:
        """Mean per target."""

    @property
    def state(self) -> State:
        """Pass it back in to continue."""


class CostModel(Protocol):
    """What `evaluate_stream` asks of a model; `LanguageModel` is one."""

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""

    @property
    def device(self) -> torch.device:
        """Where it takes its tokens."""

    def loss(
        self, tokens: Tensor, targets: Tensor, state: State, *, start: int, engine: str
    ) -> Cost:
        """The cost of a chunk, (T, B)."""


@torch.no_grad()
def evaluate_stream(
    model: CostModel,
    tokens: Tokens,
    tokenizer: Tokenizer | None = None,
    *,
    batch_size: int = 10,
    window: int = 256,
    engine: str = "auto",
    stopped: Callable[[], bool] = lambda: False,
) -> Tally | None:
    """The cost of a whole text, read once with the state carried, as the reference program does.

    Every position but the first of each column counts once, however the text is cut into windows.

    Args:
        model: put into eval mode for the call.
        tokens: a part of a corpus.
        tokenizer: counts characters where given.
        batch_size: columns; fewer where the text is too short for them.
        window: rows per call; changes speed and memory only.
        stopped: asked between windows; true ends the evaluation with None.
    Raises:
        DataError: if the text has fewer than two tokens.
    """
    ids = tokens.ids
    if len(ids) < 2:
        raise DataError(f"expected at least 2 tokens to evaluate, found {len(ids)}")
    stream = Stream(ids, max(1, min(batch_size, len(ids) // 2)))
    device = model.device
    lengths = _characters(tokenizer, model.vocab_size)
    tally = Tally()
    with evaluating(model):
        state: State = None
        for start in range(0, stream.steps, window):
            if stopped():
                return None
            x, y = stream.window(start, window)
            out = model.loss(x.to(device), y.to(device), state, start=start, engine=engine)
            state = detach(out.state)
            width = 0 if lengths is None else int(lengths[y.numpy()].sum())
            tally.add(out.nats, y.numel(), width)
    return tally


def _characters(tokenizer: Tokenizer | None, vocab_size: int) -> np.ndarray | None:
    """Characters of each token, (V,)."""
    if tokenizer is None:
        return None
    return np.asarray(tokenizer.lengths(np.arange(vocab_size)), dtype=np.int64)
