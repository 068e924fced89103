"""The lecture's five controls on a trained language model: layer and units chosen, each exact.

python examples/controls.py RUN [TEXT] [--layer 0] [--units 0,5,9] [--engine reference]

The engine is `reference`, since tanh(c[t]) is compared bit for bit with torch's: the compiled engines
have a tanh of their own, the same to a few roundings. All else is exact on each of them.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

import gatewise as gw
from gatewise.run import LanguageRun

TEXT = "The sea was calm, and nobody said a word about the night before."
RECORD = gw.Record("h", "c", "g", "f", "i", "o")


def rows(
    run: LanguageRun, text: str, layer: int, engine: str, control: gw.Control | None
) -> dict[str, Tensor]:
    """Name -> (T, H) of one layer while the text is read."""
    reading = run.read(text, record=RECORD, control=control, engine=engine)
    path = f"layers.{layer}."
    return {k.removeprefix(path): v[:, 0] for k, v in reading.record.items() if k.startswith(path)}


def checks(
    run: LanguageRun, text: str, layer: int, units: list[int], engine: str = "reference"
) -> dict[str, bool]:
    """Control -> whether what the lecture says holds, bit for bit, on the units and only there."""
    where = {"layer": layer, "units": units}
    plain = rows(run, text, layer, engine, None)
    at = torch.tensor(units)
    found = {}

    off = rows(run, text, layer, engine, gw.Control.off("o", **where))
    found["output off: h[t] = 0, while c[t] lives on"] = bool(
        (off["h"][:, at] == 0).all() and (off["c"][:, at] != 0).any()
    )
    on = rows(run, text, layer, engine, gw.Control.on("o", **where))
    found["output on: h[t] = tanh(c[t])"] = torch.equal(on["h"][:, at], on["c"][:, at].tanh())
    reset = rows(run, text, layer, engine, gw.Control.reset(**where))
    found["memory reset: c[t] = 0"] = bool((reset["c"][:, at] == 0).all())
    middle = len(plain["c"]) // 2
    keep = rows(run, text, layer, engine, gw.Control.keep(**where, time=slice(middle, None)))
    kept = keep["c"][middle - 1, at].expand(len(plain["c"]) - middle, -1)
    found["memory keep: c[t] = c[t-1]"] = torch.equal(keep["c"][middle:, at], kept)
    write = rows(run, text, layer, engine, gw.Control.write(**where))
    found["memory write: c[t] = g[t]"] = torch.equal(write["c"][:, at], write["g"][:, at])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("text", nargs="?", default=TEXT)
    parser.add_argument("--layer", type=int, default=0)
    parser.add_argument("--units", default="0,1,2,3")
    parser.add_argument("--engine", default="reference")
    args = parser.parse_args()
    run = gw.load(args.run)
    assert isinstance(run, LanguageRun)
    units = [int(u) for u in args.units.split(",")]
    results = checks(run, args.text, args.layer, units, args.engine)
    print(f"{args.run}, layer {args.layer}, units {units}, {len(args.text)} characters read")
    for what, holds in results.items():
        print(f"  {'exact' if holds else 'NOT EXACT':9}  {what}")
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
