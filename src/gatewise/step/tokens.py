"""A session of the step engine that reads tokens: scores, or tokens drawn, several steps a call."""

from __future__ import annotations

import struct

import torch
from torch import Tensor

from gatewise.errors import OptionError, ShapeError
from gatewise.step.drawing import Drawing
from gatewise.step.session import Session


class TokenSession(Session):
    """Columns of tokens through a language model."""

    def step(self, tokens: Tensor) -> Tensor:
        """Scores (B, V) after one token (B,) for each column."""
        return self.push(tokens.unsqueeze(0) if tokens.ndim else tokens)[0]

    def push(self, tokens: Tensor) -> Tensor:
        """Scores (T, B, V) after each of tokens (T, B)."""
        tokens = self._checked(tokens)
        steps, row = len(tokens), self._row()
        scores = torch.empty(steps, self.batch, row)
        self._tokens_call(tokens, steps, scores, self.batch * row, every=1, draw=0)
        return scores[..., : self.core.outputs]

    def feed(self, tokens: Tensor) -> Tensor:
        """Scores (B, V) after the last of tokens (T, B): a prompt."""
        tokens = self._checked(tokens)
        scores = torch.empty(self.batch, self._row())
        self._tokens_call(tokens, len(tokens), scores, 0, every=0, draw=0)
        return scores[:, : self.core.outputs]

    def run(
        self,
        tokens: Tensor,
        steps: int,
        drawing: Drawing | None = None,
        seeds: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Feed tokens (B,) or (T, B), then draw so many more, each fed in turn but the last.

        A token follows from its column's seed, position and scores alone.

        Args:
            tokens: what to begin with.
            steps: how many to draw, at least 1.
            drawing: how.
            seeds: (B,) int64; default: 0, 1, 2, ...
            positions: (B,) int64, the number of each column's first draw; default: the time of the
                token that is drawn from.
        Returns:
            tokens (steps, B), and their log-probabilities (steps, B); zeros where not asked for.
        """
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise OptionError(f"steps: expected a whole number of 1 or more, found {steps!r}")
        drawing = drawing or Drawing()
        given = self._checked(tokens if tokens.ndim != 1 else tokens.unsqueeze(0))
        seeds, positions = (
            self._for_columns("seeds", seeds),
            self._for_columns("positions", positions),
        )
        total = len(given) + steps - 1
        line = torch.empty(total + 1, self.batch, dtype=torch.int64)
        line[: len(given)] = given
        logprobs = torch.zeros(total, self.batch)
        self._scores()
        if positions is None:
            positions = self.times + (len(given) - 1)
        self._draw(line, len(given), logprobs, drawing, seeds, positions - (len(given) - 1))
        return line[len(given) :], logprobs[len(given) - 1 :]

    def _draw(
        self,
        line: Tensor,
        given: int,
        logprobs: Tensor,
        drawing: Drawing,
        seeds: Tensor | None,
        positions: Tensor,
    ) -> None:
        """Fill `line` (T + 1, B) from the given tokens on, in calls of about a millisecond."""
        positions = positions.to(torch.int64).contiguous()
        alive = self._place_drawing(drawing, seeds, positions)
        done, total = 0, len(line) - 1
        recording = self.probes.plan.record is not None
        while done < total:
            steps = self._call(
                total - done,
                most=not recording,
                tokens=line[done:].data_ptr(),
                given=given - done,
                every=0,
                draw=1,
                logits=self._buffer.data_ptr(),
                logits_t=0,
                logprobs=logprobs[done:].data_ptr(),
            )
            positions += steps
            done += steps
        del alive

    def _for_columns(self, name: str, given: Tensor | None) -> Tensor | None:
        """One whole number for each column, or None."""
        if given is None:
            return None
        if given.shape != (self.batch,) or given.is_floating_point() or given.device.type != "cpu":
            raise ShapeError(
                f"expected {name} ({self.batch},) of whole numbers on the CPU, "
                f"found {tuple(given.shape)} of {given.dtype} on {given.device}"
            )
        return given.to(torch.int64)

    def _scores(self) -> None:
        if not hasattr(self, "_buffer"):
            self._buffer = self._room(self.batch, self._row())

    def _row(self) -> int:
        assert self.core.decode is not None
        return self.core.decode.numbers["row"]

    def _place_drawing(
        self, drawing: Drawing, seeds: Tensor | None, positions: Tensor
    ) -> list[Tensor]:
        """Tell the kernel how to draw; what must live until it has."""
        block, alive = self._blocks["sample"], [positions]
        self._seeds.copy_(torch.arange(self.batch) if seeds is None else seeds)
        block.set("positions", alive[0].data_ptr())
        block.set("logprobs", int(drawing.logprobs))
        block.set("top_k", min(drawing.top_k, self.core.outputs))  # however large, all
        for name, number in drawing.as_float32().items():
            block.set(name, struct.unpack("<I", struct.pack("<f", number))[0])
        block.set("offsets", 0)
        if drawing.offsets is not None:
            if drawing.offsets.shape != (self.core.outputs,):
                raise ShapeError(
                    f"expected offsets ({self.core.outputs},), found {tuple(drawing.offsets.shape)}"
                )
            offsets = torch.zeros(self._row())
            offsets[: self.core.outputs] = drawing.offsets
            alive.append(offsets)
            block.set("offsets", offsets.data_ptr())
        return alive

    def _checked(self, tokens: Tensor) -> Tensor:
        real = tokens.is_floating_point() or tokens.device.type != "cpu"
        if tokens.ndim != 2 or tokens.shape[1] != self.batch or real:
            raise ShapeError(
                f"expected tokens (T, {self.batch}) of whole numbers on the CPU, "
                f"found {tuple(tokens.shape)} of {tokens.dtype} on {tokens.device}"
            )
        if not len(tokens):
            raise ShapeError("expected at least one token for each column, found none")
        low, high = (int(v) for v in torch.aminmax(tokens))
        if low < 0 or high >= self.core.outputs:
            raise ShapeError(
                f"expected tokens from 0 to {self.core.outputs - 1}, found {low if low < 0 else high}"
            )
        return tokens

    def _tokens_call(
        self, tokens: Tensor, steps: int, scores: Tensor, stride: int, *, every: int, draw: int
    ) -> None:
        tokens = tokens.to(torch.int64).contiguous()
        self._call(
            steps,
            tokens=tokens.data_ptr(),
            given=steps,
            every=every,
            draw=draw,
            logits=scores.data_ptr(),
            logits_t=stride,
        )
