"""A run's checkpoint with its weights rounded, and what the rounding costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gatewise.checkpoint import Checkpoint, load_checkpoint
from gatewise.errors import EngineError
from gatewise.run.language import LanguageRun, build
from gatewise.run.packing import WHOLE
from gatewise.run.stored import as_dense, as_stored, quantised
from gatewise.step.choose import refusal
from gatewise.text.corpora import build_corpus

_COLUMNS = 16


def rounded(
    run: LanguageRun, dtype: str, data: Sequence[str] = ()
) -> tuple[Checkpoint, dict[str, Any] | None]:
    """The run's checkpoint with weights of that dtype; and what they cost on a text, where one is given.

    Args:
        run: of float32 weights.
        dtype: "float32", "bfloat16", "int8" or "int4".
        data: held-out texts, as `gatewise eval` takes them.

    Returns:
        the checkpoint, to be given to `export_checkpoint`, and what its config.json says of the cost:
        tokens, perplexity, that of float32, and the share that is lost.

    Raises:
        EngineError: if the step engine, which alone has weights of 8 and 4 bits, cannot run the model.
    """
    if dtype in WHOLE and (why := refusal(run.model)) is not None:
        raise EngineError(
            f"weights of {dtype} cannot be had, since the step engine cannot run this: {why}; "
            "export bfloat16"
        )
    source = as_dense(load_checkpoint(str(run.path)))
    config = {k: v for k, v in source.config.items() if k != "weights"}
    tensors = {n: t.float() if t.is_floating_point() else t for n, t in source.tensors.items()}
    exact = replace(source, config=config, tensors=tensors)
    found = exact
    if dtype != "float32":
        whole = quantised(run.model, dtype) if dtype in WHOLE else {}
        found = as_stored(exact, whole, dtype)
    if not data:
        return found, None
    cost = _cost(exact, found, data)
    if dtype != "float32":
        weights = found.config["weights"] | {"cost": cost}
        found = replace(found, config=found.config | {"weights": weights})
    return found, cost


def _cost(exact: Checkpoint, found: Checkpoint, data: Sequence[str]) -> dict[str, Any]:
    """Both as they will be when they are loaded."""
    runs = [LanguageRun(each, build(each)[1].eval()) for each in (exact, found)]
    corpus = build_corpus(list(data), tokenizer=runs[0].tokenizer, fractions=(1.0,))
    tokens = corpus.splits["train"]
    before, after = (each.evaluate(tokens, batch_size=_COLUMNS) for each in runs)
    return {
        "tokens": after.tokens,
        "perplexity": after.perplexity,
        "perplexity_float32": before.perplexity,
        "lost": after.perplexity / before.perplexity - 1,
    }
