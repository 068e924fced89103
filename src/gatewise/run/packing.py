"""Which of a language model's two forms answers: itself, or packed for the step engine.

The step engine is taken where it can run the model, unless another engine is asked for by name. Where it cannot,
that is said once; an engine or a dtype asked for by name that cannot be had is an error.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gatewise.errors import EngineError, unknown
from gatewise.mappings import LanguageModel
from gatewise.step.choose import DTYPES, refusal

if TYPE_CHECKING:
    from gatewise.engine.cpu.step.formats import Quantised
    from gatewise.step.generation import StepLanguageModel

_LOG = logging.getLogger("gatewise.engine")

WHOLE = ("int8", "int4")
"""Kinds of numbers that the step engine alone has."""


class Packing:
    """The packed forms of one model, each made when it is first asked for.

    Args:
        model: the model.
        dtype: what is packed where nothing else is asked for.
        stored: matrices in whole numbers, as they were exported.
    """

    def __init__(
        self,
        model: LanguageModel,
        dtype: str | None = None,
        stored: Mapping[str, Quantised] | None = None,
    ) -> None:
        self._model, self.dtype = model, dtype
        if stored and dtype is not None and refusal(model) is None:
            from gatewise.step.packed import remember

            remember(model, dtype, stored)
        self._made: dict[str, StepLanguageModel] = {}
        self._said = False

    def settle(self, dtype: str) -> None:
        """Answer with weights of that dtype from now on, where nothing else is asked for.

        Raises:
            EngineError: if they cannot be had; the message says why.
        """
        self.form(dtype=dtype)
        self.dtype = dtype

    def form(
        self, engine: str = "auto", dtype: str | None = None
    ) -> LanguageModel | StepLanguageModel:
        """What answers.

        Args:
            engine: "auto" or "step" for the packed form, another engine's name for the model itself.
            dtype: of the packed weights. Default: as they were exported, else float32.

        Raises:
            EngineError: if what was asked for by name cannot be had; the message says why.
        """
        if dtype is not None and dtype not in DTYPES:
            raise unknown("dtype", dtype, DTYPES)
        if engine not in ("auto", "step"):
            if dtype is not None:
                raise EngineError(
                    f"engine {engine} has no weights of {dtype}: leave out the engine or the dtype"
                )
            return self._model
        why = refusal(self._model)
        if why is None:
            return self._packed(dtype or self.dtype or "float32")
        if engine == "step" or dtype is not None:
            asked = "engine step" if dtype is None else f"weights of {dtype}"
            raise EngineError(
                f"{asked} cannot be had, since the step engine cannot run this: {why}"
            )
        self._say(why)
        return self._model

    def _packed(self, dtype: str) -> StepLanguageModel:
        from gatewise.step.generation import StepLanguageModel

        made = self._made.get(dtype)
        if made is None:
            made = self._made.setdefault(dtype, StepLanguageModel(self._model, dtype))
        return made

    def _say(self, why: str) -> None:
        if not self._said:
            self._said = True
            _LOG.warning("not the step engine, because %s: generation takes the slower way", why)
