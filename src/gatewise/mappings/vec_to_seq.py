"""Vector to sequence: a text written from a vector, such as the caption of an image (the lecture's first mapping).

    h[0] = bridge(v), or one step of Pred on it,   h[t] = Pred(h[t-1], E[y[t-1]]),   logits[t] = Dec(h[t])

(Vinyals et al. 2015, arXiv 1411.4555: the vector is the first input; Mao et al. 2014 and others: the first
state.) The vector is given, or made of an image by an encoder that is trained with the rest; then attention may
look at the regions of its feature map (Xu et al. 2015, arXiv 1502.03044).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from gatewise.attention import Memory
from gatewise.cells.base import as_state
from gatewise.errors import OptionError, ShapeError
from gatewise.mappings.config import check_choice, check_size, from_dict, to_dict
from gatewise.mappings.decoder import Decoder, DecoderOptions, Writing, Written
from gatewise.mappings.image_encoder import ImageEncoder, ImageOptions
from gatewise.mappings.image_model import PretrainedEncoder
from gatewise.mappings.recurrent import dropped
from gatewise.probe import Control, Record, control_of, joined, record_of
from gatewise.types import State

PLACES = ("input", "state")


@dataclass(frozen=True, kw_only=True)
class CaptionOptions(DecoderOptions):
    """Sizes and regularisation of a model that writes from a vector."""

    vector_to: str = "state"
    """Where the vector goes: input (as a first word), or state (the first state)."""

    def validate(self) -> None:
        """Raise OptionError, naming the flag, if any option is outside its range."""
        super().validate()
        check_choice("vector_to", self.vector_to, PLACES)


@dataclass(frozen=True, kw_only=True)
class CaptionConfig(CaptionOptions, ImageOptions):
    """Everything that such a model is built from; JSON-able by `to_dict`."""

    vocab_size: int
    """Tokens."""

    vector_size: int = 0
    """Width of the vectors that are given; 0: they are made of images."""

    image_model: str = ""
    """The model of `transformers` that reads images, described; "": our own."""

    image_frozen: bool = False
    """Whether that model's weights are not trained."""

    def validate(self) -> None:
        """Raise OptionError if anything is outside its range."""
        CaptionOptions.validate(self)
        check_size("vocab_size", self.vocab_size, 1 << 31)
        check_size("vector_size", self.vector_size, 1 << 24, least=0)
        if not self.vector_size:
            ImageOptions.validate(self)
        elif self.attention != "none":
            raise OptionError(
                "--attention: looks at the regions of an image; a vector has none: use none"
            )

    @classmethod
    def from_options(
        cls,
        options: CaptionOptions,
        images: ImageOptions | None,
        vocab_size: int,
        vector_size: int = 0,
        image_model: str = "",
        *,
        frozen: bool = False,
    ) -> CaptionConfig:
        """`options` for a vocabulary, and for images or vectors of that width."""
        values = {**vars(options), **(vars(images) if images else {})}
        values |= {"image_model": image_model, "image_frozen": frozen}
        config = cls(**values, vocab_size=vocab_size, vector_size=vector_size)
        config.validate()
        return config

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CaptionConfig:
        """The config that `to_dict` wrote; OptionError on what does not belong in it."""
        config = from_dict(cls, values, "caption")
        config.validate()
        return config

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return to_dict(self)

    @property
    def images(self) -> ImageOptions:
        """Those of the options that are the image encoder's."""
        return ImageOptions(**{f.name: getattr(self, f.name) for f in fields(ImageOptions)})


@dataclass(frozen=True, eq=False)
class Seen:
    """What is known of vectors or images that were looked at.

    Attributes:
        vector: (B, F).
        state: the decoder's first state.
        memory: the regions of an image, or None.
    """

    vector: Tensor
    state: State
    memory: Memory | None


class VectorToSequence(nn.Module):
    """Writes a sequence from a vector or an image.

    Given vectors are read as (v - shift) / scale, see `standardise`.

    Args:
        config: sizes and regularisation.
        net: the image model that the config names; default: built anew, for the weights of a checkpoint.
        device: of the weights; "meta" for their shapes alone.
    Raises:
        OptionError: if an option is outside its range.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        config: CaptionConfig,
        net: nn.Module | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        config.validate()
        self.config = config
        self.images: ImageEncoder | PretrainedEncoder | None = None
        if config.image_model:
            self.images = PretrainedEncoder(config.image_model, net, frozen=config.image_frozen)
        elif not config.vector_size:
            self.images = ImageEncoder(config.images, device=device)
        width = config.vector_size if self.images is None else self.images.size
        self.decoder = Decoder(config, config.vocab_size, width, device=device)
        law = self.decoder.stack._law
        count = 1 if config.vector_to == "input" else len(law.states) * config.num_layers
        size = config.hidden_size if config.vector_to == "state" else self.decoder.stack.input_size
        self.bridge = nn.Linear(width, count * size, device=device)
        if config.vector_size:
            self.register_buffer("shift", torch.zeros(width, device=device))
            self.register_buffer("scale", torch.ones(width, device=device))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.bridge.weight.device

    def names(self) -> dict[str, tuple[str, ...]]:
        """Part -> every path that can be recorded and controlled in it."""
        return {"decoder": self.decoder.stack.names()}

    def look(self, inputs: Tensor, *, engine: str = "auto") -> Seen:
        """Read vectors (B, F), or images (B, 3, H, W) of bytes or of numbers from 0 to 1, or what `features`
        made of them.

        Raises:
            ShapeError: if the inputs are of another shape.
        """
        if self.images is not None and inputs.dim() == 4:
            regions = self._regions(inputs)
            vector = regions.mean(-1)
        elif inputs.dim() == 3 and inputs.shape[1] == self.bridge.in_features:
            regions = inputs.to(self.bridge.weight.dtype)
            vector = regions.mean(-1)
        elif inputs.dim() == 2 and inputs.shape[1] == self.bridge.in_features:
            vector, regions = inputs.to(self.bridge.weight.dtype), None
            if self.config.vector_size:
                vector = (vector - self.shift) / self.scale
        else:
            kind = (
                "vectors (B, {})"
                if self.images is None
                else "images (B, 3, H, W) or vectors (B, {})"
            )
            expected = kind.format(self.bridge.in_features)
            raise ShapeError(f"expected {expected}, found {tuple(inputs.shape)}")
        if self.decoder.attention is not None and regions is None:
            raise ShapeError("expected images, or their regions, for the attention; found vectors")
        memory = None
        if self.decoder.attention is not None and regions is not None:
            memory = self.decoder.attention.prepare(regions.permute(2, 0, 1))
        state = self._first_state(dropped(vector, self.config.dropout, self.training), engine)
        return Seen(vector, self.decoder.begin(state, len(vector)), memory)

    def _regions(self, images: Tensor) -> Tensor:
        """(B, C, N)."""
        assert self.images is not None
        if self.config.image_frozen:
            with torch.no_grad():
                return self.images(images).flatten(2)  # type: ignore[no-any-return]
        return self.images(images).flatten(2)  # type: ignore[no-any-return]

    def standardise(self, vectors: Tensor) -> None:
        """Let given vectors be read with mean 0 and deviation 1, as those of `vectors` (n, F) have them."""
        self.shift.copy_(vectors.double().mean(0))
        deviation = vectors.double().std(0, correction=0)
        self.scale.copy_(torch.where(deviation > 0, deviation, 1.0))

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """What `look` needs of images: their regions (B, C, N) for an attention, else vectors (B, C)."""
        regions = self._regions(images)
        return regions.mean(-1) if self.decoder.attention is None else regions

    def _first_state(self, vector: Tensor, engine: str) -> State:
        made, stack = self.bridge(vector), self.decoder.stack
        if self.config.vector_to == "input":
            return stack(made.unsqueeze(0), engine=engine).state  # type: ignore[no-any-return]
        layers = self.config.num_layers
        parts = made.tanh().view(len(vector), -1, layers, self.config.hidden_size)
        return as_state([part.transpose(0, 1).contiguous() for part in parts.unbind(1)])

    def forward(
        self,
        inputs: Tensor,
        tokens: Tensor,
        *,
        engine: str = "auto",
        record: Record | None = None,
        control: Control | None = None,
    ) -> Written:
        """Scores of the token after each of `tokens` (T, B), given vectors or images.

        Names are ``decoder.layers.0.f``, or short.
        """
        seen, names = self.look(inputs, engine=engine), self.names()
        out: Written = self.decoder(
            tokens,
            seen.state,
            seen.memory,
            engine=engine,
            record=record_of(record, "decoder", names),
            control=control_of(control, "decoder", names),
        )
        return Written(
            out.logits,
            out.output,
            out.weights,
            out.state,
            joined({"decoder": out.record}, "decoder"),
            out.engine,
        )

    def writing(
        self, seen: Seen, *, engine: str = "auto", control: Control | None = None
    ) -> Writing:
        """The decoder about to write from what was seen, token by token (`generate.conditional`)."""
        acting = control_of(control, "decoder", self.names())
        return Writing(self.decoder, seen.state, seen.memory, engine=engine, control=acting)

    def loss(
        self,
        inputs: Tensor,
        tokens: Tensor,
        targets: Tensor,
        lengths: Tensor | None = None,
        *,
        engine: str = "auto",
    ) -> tuple[Tensor, Tensor, str]:
        """(cost with smoothing, mean nats without, engine) of `targets` (T, B) after `tokens` (T, B)."""
        seen = self.look(inputs, engine=engine)
        loss, nats, out = self.decoder.loss(
            tokens, targets, seen.state, seen.memory, lengths=lengths, engine=engine
        )
        return loss, nats, out.engine
