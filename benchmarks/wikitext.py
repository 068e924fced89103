"""One epoch of the ``word-language-model`` preset, beside the same network built from torch.nn.

Same initial weights, same order of the data. The other side is ``benchmarks/wikitext_torch.py`` (nothing
of gatewise in it), each a process of its own.

    python benchmarks/wikitext.py DATA --dropout 0 --seed 1111 --out gatewise.json
    python benchmarks/wikitext_torch.py DATA --dropout 0 --seed 1111 --out torch.json
    python benchmarks/wikitext.py --compare gatewise.json torch.json

Plain SGD at a rate of 20 is chaotic: one weight moved by one rounding (``--nudge 1``) gives losses 0.1 apart
after 75 steps, on either side. So two programs agree after an epoch only if they round alike at each
step. ``--plain-cost`` takes torch's own cross entropy in place of gatewise's chunked one, which rounds in
another order; everything else stays, and then, without dropout, both sides take the same steps bit for bit and
agree after the epoch but for the evaluation's own rounding.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import tempfile
from pathlib import Path

import torch
from wikitext_torch import Network, high_water, nudge, read_tokens

from gatewise.checkpoint import RunFolder
from gatewise.losses import plain_linear_cross_entropy
from gatewise.mappings import LanguageLearner, LanguageModelOptions, StreamOptions, seq_to_seq
from gatewise.presets import PRESETS
from gatewise.text.corpora import Corpus
from gatewise.train import (
    PlainProgress,
    TextOptions,
    TrainOptions,
    keep_freed_memory,
    language_learner,
    train,
    with_values,
)


def learner_of(
    data: Path, dropout: float, seed: int, share: float
) -> tuple[LanguageLearner, TrainOptions]:
    """The preset on WikiText-2, and its training options for one epoch."""
    values = dict(PRESETS["word-language-model"].values)
    values |= {"dropout": dropout, "seed": seed, "epochs": 1.0, "checkpoint_seconds": 0.0}
    text = with_values(TextOptions(vocabulary_from="all"), values)
    corpus = text.corpus([data / f"{split}.txt" for split in ("train", "valid", "test")])
    train = corpus.splits["train"]
    cut = dataclasses.replace(train, ids=train.ids[: int(share * len(train.ids))])
    corpus = dataclasses.replace(corpus, splits={**corpus.splits, "train": cut})
    training = with_values(TrainOptions(), values)
    model = with_values(LanguageModelOptions(), values)
    streams = with_values(StreamOptions(), values)
    return language_learner(corpus, model, streams, training), training


@torch.no_grad()
def copy_weights(
    learner: LanguageLearner, corpus: Corpus, data: Path, seed: int, places: int
) -> None:
    """Give the model the initial weights of the torch.nn network of the same seed."""
    vocabulary, _ = read_tokens(data)
    torch.manual_seed(seed)
    other = Network(len(vocabulary))
    nudge(other, places)
    tokenizer = corpus.tokenizer
    words = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
    assert tokenizer.eos_id is not None
    words[tokenizer.eos_id] = "<eos>"
    order = torch.tensor([vocabulary[word] for word in words])
    model = learner.model
    assert model.decoder is not None
    model.embedding.weight.copy_(other.encoder.weight[order])
    model.decoder.weight.copy_(other.decoder.weight[order])
    model.decoder.bias.copy_(other.decoder.bias[order])
    model.stack.load_state_dict(other.rnn.state_dict(), strict=True)


def run(
    data: Path, dropout: float, seed: int, share: float, places: int, plain: bool
) -> dict[str, object]:
    """Train one epoch; the figures."""
    keep_freed_memory()  # as the command does
    if plain:
        seq_to_seq.linear_cross_entropy = plain_linear_cross_entropy
    learner, training = learner_of(data, dropout, seed, share)
    copy_weights(learner, learner.corpus, data, seed, places)
    progress = PlainProgress(lambda line: print(line, flush=True))
    with (
        tempfile.TemporaryDirectory() as folder,
        RunFolder.create(Path(folder) / "run") as target,
    ):
        result = train(learner, target, training, progress)
    figures: dict[str, object] = {
        "dropout": dropout,
        "seed": seed,
        "share": share,
        "nudge": places,
        "plain_cost": plain,
        "tokens_per_second": result.tokens_per_second,
        "peak_kib": high_water(),
        "engine": result.engine,
    }
    learner.model.eval()
    for split in ("valid", "test") if share == 1 else ("valid",):
        with torch.no_grad():
            evaluation = learner.evaluate(split)
        assert evaluation is not None
        nats = evaluation.nats_per_token
        figures |= {f"{split}_nats": nats, f"{split}_perplexity": math.exp(nats)}
    return figures


def compare(ours: Path, theirs: Path) -> None:
    """Print both sides and their ratios."""
    sides = [json.loads(path.read_text()) for path in (ours, theirs)]
    print(f"{'':18} {'gatewise':>12} {'torch.nn':>12} {'ratio':>9}")
    names = ("valid_perplexity", "test_perplexity", "tokens_per_second", "peak_kib")
    for name in (n for n in names if n in sides[0] and n in sides[1]):
        a, b = (float(side[name]) for side in sides)
        print(f"{name:18} {a:12.3f} {b:12.3f} {a / b:9.5f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=1111)
    parser.add_argument("--share", type=float, default=1.0, help="of the training tokens")
    parser.add_argument("--nudge", type=int, default=0, help="weights moved by one rounding")
    parser.add_argument("--plain-cost", action="store_true", help="torch's cross entropy")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("OURS", "TORCH"))
    args = parser.parse_args()
    if args.compare:
        compare(*args.compare)
        return
    figures = run(args.data, args.dropout, args.seed, args.share, args.nudge, args.plain_cost)
    if args.out:
        args.out.write_text(json.dumps(figures) + "\n")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
