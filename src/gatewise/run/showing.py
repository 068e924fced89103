"""How loaded runs and what they read show themselves in a notebook. It knows their data, not their classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gatewise.checkpoint import RunLog
from gatewise.display import Markup, block, escape, table
from gatewise.train.figures import FIGURES

_TOKENS = 2000
_SHADE = (213, 94, 0)


def run_html(
    mapping: str,
    path: Path,
    step: int,
    parameters: int,
    config: Mapping[str, Any],
    verbs: Sequence[str],
    notes: Sequence[str],
) -> Markup:
    """Mapping, sizes, figures, and what it can do."""
    rows: list[list[str | int | None]] = [["path", str(path)], ["step", step]]
    rows += [["parameters", parameters], ["can", ", ".join(verbs)]]
    rows += [["model", _settings(config.get("model"))], ["data", _settings(config.get("data"))]]
    measured = validation(path, step)
    for name, (digits, unit) in FIGURES.items():
        value = measured.get(name)
        if isinstance(value, int | float):
            rows.append([f"validation, {unit}", f"{value:,.{digits}f}"])
    rows += [["note", note] for note in notes]
    return block(f"Run of mapping {mapping}", table((), [row for row in rows if row[1] != ""]))


def _settings(part: object) -> str:
    """`cell lstm, hidden size 256`: what is set; what is off or nothing is left out."""
    if not isinstance(part, Mapping):
        return ""
    shown = {k: v for k, v in part.items() if isinstance(v, str | int | float) and v}
    return ", ".join(
        name.replace("_", " ") if value is True else f"{name.replace('_', ' ')} {_value(value)}"
        for name, value in shown.items()
        if name != "fingerprint"
    )


def _value(value: str | float) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def validation(path: Path, step: int) -> dict[str, Any]:
    """What the validation of a checkpoint found, from the log of its run; nothing where there is none."""
    if path.parent.name != "checkpoints":
        return {}
    found = RunLog(path.parent.parent / "log.jsonl").validations()
    return next((one for one in reversed(found) if one.get("step") == step), {})


def reading_html(
    tokens: Sequence[str], nats: Sequence[float], record: Markup, notes: Sequence[str]
) -> Markup:
    """A text, each token the darker the more it surprised the model; and what was recorded.

    Args:
        tokens: as they are shown.
        nats: what each cost; NaN for the first.
        record: as it shows itself.
        notes: what to tell of the text.
    """
    known = [value for value in nats if value == value]
    mean = f", {sum(known) / len(known):.4f} nats/token (the darker, the more)" if known else ""
    edge = max(known, default=0.0) or 1.0
    spans = [_token(*one, edge) for one in zip(tokens[:_TOKENS], nats[:_TOKENS], strict=True)]
    text = Markup(f'<pre style="white-space:pre-wrap;line-height:1.6">{"".join(spans)}</pre>')
    more = f"\u2026 {len(tokens) - _TOKENS:,} more tokens" if len(tokens) > _TOKENS else ""
    return block(f"{len(tokens):,} tokens{mean}", text, more, *notes, record)


def _token(token: str, nats: float, edge: float) -> str:
    share = 0.75 * min(1.0, max(0.0, nats / edge)) if nats == nats else 0.0
    red, green, blue = (round(255 + (one - 255) * share) for one in _SHADE)
    cost = f"{nats:.3f} nats" if nats == nats else "the first"
    style = f"background:rgb({red},{green},{blue});color:#000"
    end = "\n" if token.endswith("\\n") else ""  # a new line is shown, and made
    return f'<span style="{style}" title="{cost}">{escape(token)}</span>{end}'
