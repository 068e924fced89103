"""One epoch (or more) of the ``word-language-model`` preset, beside the same network built from torch.nn.

Same initial weights, same order of the data. The other side is ``benchmarks/wikitext_torch.py`` (nothing
of gatewise in it), each a process of its own.

    python benchmarks/wikitext.py DATA --dropout 0 --seed 1111 --out gatewise.json
    python benchmarks/wikitext_torch.py DATA --dropout 0 --seed 1111 --out torch.json
    python benchmarks/wikitext.py --compare gatewise.json torch.json

On a card, the larger setting of that program, both sides for an epoch and ours for as many as five minutes allow:

    python benchmarks/wikitext_torch.py DATA --hidden 650 --dropout 0.5 --device cuda --dtype tf32 --out torch.json
    python benchmarks/wikitext.py DATA --hidden 650 --dropout 0.5 --device cuda --dtype bfloat16
    python benchmarks/wikitext.py DATA --hidden 650 --dropout 0.5 --tied --device cuda --dtype bfloat16 --epochs 40 --minutes 5

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
from wikitext_torch import Network, high_water, nudge, products, read_tokens

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


def learner_of(args: argparse.Namespace) -> tuple[LanguageLearner, TrainOptions]:
    """The preset on WikiText-2, and its training options."""
    values = dict(PRESETS["word-language-model"].values)
    values |= {"dropout": args.dropout, "seed": args.seed, "checkpoint_seconds": 0.0}
    values |= {"epochs": args.epochs, "minutes": args.minutes, "device": args.device}
    values |= {"embedding_size": args.hidden, "hidden_size": args.hidden, "tied": args.tied}
    values["dtype"] = "float32" if args.dtype == "tf32" else args.dtype
    text = with_values(TextOptions(vocabulary_from="all"), values)
    corpus = text.corpus([args.data / f"{split}.txt" for split in ("train", "valid", "test")])
    train = corpus.splits["train"]
    cut = dataclasses.replace(train, ids=train.ids[: int(args.share * len(train.ids))])
    corpus = dataclasses.replace(corpus, splits={**corpus.splits, "train": cut})
    training = with_values(TrainOptions(), values)
    model = with_values(LanguageModelOptions(), values)
    streams = with_values(StreamOptions(), values)
    return language_learner(corpus, model, streams, training, engine=args.engine), training


@torch.no_grad()
def copy_weights(learner: LanguageLearner, corpus: Corpus, args: argparse.Namespace) -> None:
    """Give the model the initial weights of the torch.nn network of the same seed."""
    vocabulary, _ = read_tokens(args.data)
    torch.manual_seed(args.seed)
    other = Network(len(vocabulary), args.hidden, tied=args.tied)
    nudge(other, args.nudge)
    tokenizer = corpus.tokenizer
    words = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
    assert tokenizer.eos_id is not None
    words[tokenizer.eos_id] = "<eos>"
    order = torch.tensor([vocabulary[word] for word in words])
    model = learner.model
    model.embedding.weight.copy_(other.encoder.weight[order])
    if model.decoder is not None:
        model.decoder.weight.copy_(other.decoder.weight[order])
        model.decoder.bias.copy_(other.decoder.bias[order])
    model.stack.load_state_dict(other.rnn.state_dict(), strict=True)


def run(args: argparse.Namespace) -> dict[str, object]:
    """Train; the figures."""
    keep_freed_memory()  # as the command does
    if args.plain_cost:
        seq_to_seq.linear_cross_entropy = plain_linear_cross_entropy
    products(args.device, args.dtype)
    learner, training = learner_of(args)
    copy_weights(learner, learner.corpus, args)
    progress = PlainProgress(lambda line: print(line, flush=True))
    with (
        tempfile.TemporaryDirectory() as folder,
        RunFolder.create(Path(folder) / "run") as target,
    ):
        result = train(learner, target, training, progress)
        if args.share == 1:
            learner.model.load_state_dict(target.best().tensors)
    names = ("dropout", "seed", "share", "nudge", "plain_cost", "hidden", "tied", "dtype")
    figures: dict[str, object] = {name: getattr(args, name) for name in names}
    figures |= {
        "tokens_per_second": result.tokens_per_second,
        "seconds": result.seconds,
        "epochs": result.epochs,
        "peak_kib": high_water(),
        "engine": result.engine,
    }
    learner.model.eval()
    for split in ("valid", "test") if args.share == 1 else ("valid",):
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
    parser.add_argument("--hidden", type=int, default=200)
    parser.add_argument("--tied", action="store_true")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "tf32", "bfloat16"))
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("OURS", "TORCH"))
    args = parser.parse_args()
    if args.compare:
        compare(*args.compare)
        return
    figures = run(args)
    if args.out:
        args.out.write_text(json.dumps(figures) + "\n")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
