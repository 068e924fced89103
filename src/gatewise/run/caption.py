"""A trained captioner, ready to describe images or vectors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gatewise.checkpoint import Checkpoint
from gatewise.errors import CheckpointError, DataError, GatewiseError, ShapeError
from gatewise.generate import SamplingOptions
from gatewise.mappings.described import CaptionLearner, Described
from gatewise.mappings.vec_to_seq import CaptionConfig, VectorToSequence
from gatewise.metrics import Tally
from gatewise.modes import evaluating
from gatewise.probe import Control, Record, Records
from gatewise.run.base import Run, fill
from gatewise.run.writing import WrittenText, answers, as_text, check_search, unknown_words
from gatewise.tasks.captions import open_image
from gatewise.text.batches import shifted
from gatewise.text.ragged import Ragged
from gatewise.text.sides import Side, Sides

_COLUMNS = 256
"""Columns that are written at once: things times beams."""
_LONGEST = 100


class Caption(WrittenText):
    """One caption."""


@dataclass(frozen=True)
class CaptionReading:
    """A text as the model writes it of a thing.

    Args:
        text: the text.
        tokens: as the model sees it, the end included, (T,).
        nats: (T,) float64, the cost of each token given the thing and the tokens before.
        weights: (T, S) of the attention over the regions, or None where the model has none.
        record: what was recorded, under ``decoder.`` (batch 1), or None.
        notes: what to tell about the text, a line each.
    """

    text: str
    tokens: list[str]
    nats: Tensor
    weights: Tensor | None
    record: Records | None
    notes: list[str]

    @property
    def logprob(self) -> float:
        """Of the whole text, its end included."""
        return -float(self.nats.sum())


class CaptionRun(Run):
    """A run of `gatewise train caption`.

    A thing is an image: its path, a Pillow image, an array (H, W, 3) or tensor (3, H, W) of bytes; or, where
    the run learned from vectors, a vector (F,).

    Attributes:
        model: a `VectorToSequence`.
        side: the tokenizer of the texts.
    """

    mapping = "caption"
    verbs = ("caption", "read", "score", "vectors", "evaluate")
    model: VectorToSequence

    def __init__(self, checkpoint: Checkpoint, model: nn.Module) -> None:
        super().__init__(checkpoint, model)
        try:
            self.side: Side = Sides.from_json(checkpoint.tokenizer_json).source
        except CheckpointError as error:
            raise CheckpointError(f"{self.path}: {error}") from None
        size = self.model.config.vocab_size
        if self.side.size != size:
            raise CheckpointError(
                f"{self.path}: expected a tokenizer of {size} tokens, found {self.side.size}: model and "
                "tokenizer do not belong together"
            )

    def tokenizer_json(self) -> str:
        """What a checkpoint keeps as tokenizer.json."""
        return Sides(self.side, self.side).to_json()

    @property
    def of_images(self) -> bool:
        """Whether it reads images, not vectors."""
        return not self.model.config.vector_size

    @property
    def pixels(self) -> int:
        """The side of the square that images are scaled and cut to."""
        return self.model.config.image_size

    def caption(
        self,
        thing: Any,
        *,
        n: int = 1,
        beams: int = 5,
        length_penalty: float = 1.0,
        max_tokens: int | None = None,
        sampling: SamplingOptions | None = None,
        control: Control | None = None,
        engine: str = "auto",
    ) -> Any:
        """Captions of a thing, the best first (list of `Caption`); of a list of things, a list of each.

        A thing's captions do not depend on the other things.

        Args:
            thing: one, or a list or tuple of them.
            n: how many captions of each.
            beams: width of the search, at least n; 0 or 1: the most probable token at each step.
            length_penalty: 0 compares log-probabilities, which favours short texts; more favours longer.
            max_tokens: longest caption; default: --max-length of the training.
            sampling: draw instead of searching: temperature, top_k, top_p, min_p, seed.
            control: what to set in the gates of the decoder.
            engine: of the recurrent layers.
        Raises:
            DataError: if an image is missing or broken.
            ShapeError: if a thing is of another shape.
            OptionError: if an option is outside its range.
        """
        check_search(n, beams, max_tokens, sampling)
        several = isinstance(thing, (list, tuple))
        things = list(thing) if several else [thing]
        width, found = max(1, n if sampling else beams), []
        limit = max_tokens or int(self.config.get("text", {}).get("max_length", _LONGEST))
        size = max(1, _COLUMNS // width)
        mark = self.side.mark
        with evaluating(self.model), torch.inference_mode():
            for at in range(0, len(things), size):
                batch = self.batch(things[at : at + size])
                writing = self.model.writing(
                    self.model.look(batch, engine=engine), engine=engine, control=control
                )
                written = answers(
                    writing,
                    torch.full((len(batch),), mark, device=self.device),
                    mark,
                    [limit] * len(batch),
                    n=n,
                    beams=beams,
                    length_penalty=length_penalty,
                    sampling=sampling,
                )
                found += [[as_text(Caption, self.side, one) for one in each] for each in written]
        return found if several else found[0]

    def read(
        self,
        thing: Any,
        text: str | None = None,
        *,
        record: Record | None = None,
        control: Control | None = None,
        engine: str = "auto",
    ) -> CaptionReading:
        """A thing, and a text of it, through the model.

        Args:
            thing: one.
            text: what is said of it; default: the model's own, token by token the most probable.
            record: names such as ``decoder.layers.0.c``, or short ones.
            control: what to set, by the same names.
            engine: of the recurrent layers.
        """
        if text is None:
            text = self.caption(thing, beams=0, control=control, engine=engine)[0].text
        mark = self.side.mark
        tokens, targets, _ = shifted(Ragged.of([self.side.encode(text)], np.int64), [0], mark, mark)
        with evaluating(self.model), torch.inference_mode():
            out = self.model(
                self.batch([thing]),
                tokens.to(self.device),
                engine=engine,
                record=record,
                control=control,
            )
        assert out.logits is not None
        logs = out.logits[:, 0].double().log_softmax(-1).cpu()
        return CaptionReading(
            text,
            self.side.shown(targets[:, 0].numpy()),
            -logs.gather(1, targets)[:, 0],
            None if out.weights is None else out.weights[:, 0].float().cpu(),
            out.record,
            unknown_words("vocabulary", self.side.unknowns(text)),
        )

    def score(self, thing: Any, text: str, *, engine: str = "auto") -> CaptionReading:
        """What a given text costs: forced scoring; see `CaptionReading.nats` and `.logprob`."""
        return self.read(thing, text, engine=engine)

    def vectors(self, things: Sequence[Any], *, engine: str = "auto") -> Tensor:
        """The vector that each thing is read into: (n, F) float32.

        Raises:
            DataError: if there is no thing.
        """
        if not len(things):
            raise DataError("expected at least one thing, found none")
        found = []
        with evaluating(self.model), torch.inference_mode():
            for at in range(0, len(things), _COLUMNS):
                batch = self.batch(things[at : at + _COLUMNS])
                found.append(self.model.look(batch, engine=engine).vector.float().cpu())
        return torch.cat(found)

    def evaluate(
        self, things: Any, texts: Sequence[Sequence[str]], *, engine: str = "auto"
    ) -> Tally:
        """The cost of texts given their things and the tokens before.

        Args:
            things: images (n, H, W, 3) of bytes in the run's size, or vectors (n, F).
            texts: of each.
            engine: of the recurrent layers.
        Raises:
            DataError: if there is no text.
        """
        flat = [(k, text) for k, several in enumerate(texts) for text in several]
        if not flat:
            raise DataError("expected at least one text, found none")
        array = np.asarray(things)
        part = Described(
            array.transpose(0, 3, 1, 2) if array.ndim == 4 else array,
            Ragged.of([self.side.encode(text) for _, text in flat], np.int64),
            np.array([k for k, _ in flat], np.int64),
            np.array([len(text) for _, text in flat], np.int64),
        )
        mark = self.side.mark
        learner = CaptionLearner(self.model, {"train": part}, begin=mark, end=mark, engine=engine)
        found = learner.evaluate("train")
        assert found is not None  # only a stop makes it None
        return found

    def batch(self, things: Sequence[Any]) -> Tensor:
        """Things as the model takes them, where it is.

        Raises:
            DataError, ShapeError: as `caption`.
        """
        return torch.stack([self._one(thing) for thing in things]).to(self.device)

    def _one(self, thing: Any) -> Tensor:
        if isinstance(thing, (str, os.PathLike)) and self.of_images:
            return torch.from_numpy(open_image(os.fspath(thing), self.pixels)).permute(2, 0, 1)
        if hasattr(thing, "convert") and self.of_images:
            return self._one(np.asarray(thing.convert("RGB"), np.uint8))
        if not isinstance(thing, (np.ndarray, Tensor)) and not _is_numbers(thing):
            kind = "an image or its path" if self.of_images else "a vector"
            raise ShapeError(f"expected {kind}, found {type(thing).__name__} {str(thing)[:60]!r}")
        if not self.of_images:
            return torch.as_tensor(thing, dtype=torch.float32)
        return self._image(thing)

    def _image(self, thing: Any) -> Tensor:
        """Bytes of the run's size from an array (H, W, 3) or a tensor (3, H, W)."""
        from gatewise.tasks.captions import fitted

        array = np.asarray(thing.permute(1, 2, 0).cpu() if isinstance(thing, Tensor) else thing)
        if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
            found = f"{array.shape} of {array.dtype}"
            raise ShapeError(f"expected an image (H, W, 3) of bytes, found {found}")
        return torch.from_numpy(fitted(array, self.pixels)).permute(2, 0, 1)


def _is_numbers(thing: Any) -> bool:
    return isinstance(thing, (list, tuple)) and all(isinstance(x, (int, float)) for x in thing)


def build(checkpoint: Checkpoint) -> tuple[type[CaptionRun], nn.Module]:
    """The model of a checkpoint of mapping "caption", with its weights."""
    try:
        config = CaptionConfig.from_dict(checkpoint.config.get("model") or {})
        if config.image_model:  # keeps tables beside its weights that no checkpoint holds
            model = VectorToSequence(config)
        else:
            with torch.device("meta"):
                model = VectorToSequence(config)
    except GatewiseError as error:
        raise CheckpointError(f"{checkpoint.path}: not a captioner: {error}") from None
    fill(model, checkpoint)
    return CaptionRun, model
