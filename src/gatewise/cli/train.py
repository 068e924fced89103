"""`gatewise train MAPPING DATA... --out RUN`: one verb below it for each mapping."""

from __future__ import annotations

from cyclopts import App, Group

MAPPINGS = {
    "lm": "A language model: what comes next in a text.\n\n"
    "Stops at --epochs, --minutes or --steps, whichever comes first. Ctrl-C saves the run, and "
    "--resume goes on where it stopped; with --epochs or --steps as if it never had.",
    "tag": "A tagger: a tag for each word of a sentence.\n\n"
    "Learns from columns of words and tags (CoNLL), counts tags, and spans as conlleval does. It stops and "
    "resumes as `gatewise train lm` does.",
    "forecast": "A forecaster: how series of numbers go on.\n\n"
    "Learns from columns of tables, one step ahead, and runs freely from there. It stops and resumes as "
    "`gatewise train lm` does.",
    "classify": "A classifier: a class or a number of texts and series.\n\n"
    "Reads folders with one file per class, tables, .npz and .ts. Settings are chosen on a validation "
    "part of what is trained on; a test part is only measured by `gatewise eval`. It stops and resumes "
    "as `gatewise train lm` does.",
    "translate": "An encoder-decoder: a sequence into a vector, and a sequence from it.\n\n"
    "Learns from pairs of texts. --attention none is the single vector; dot, general and additive "
    "look back at every step of the source. It stops and resumes as `gatewise train lm` does.",
    "execute": "Learning to execute: read a program character by character, write what it prints.\n\n"
    "Programs, sums and rows of digits are made here, fresh in every epoch; none of the test's stands in "
    "training. A curriculum says how hard they are. It stops and resumes as `gatewise train lm` does.",
    "caption": "A captioner: a text from an image, or from a vector.\n\n"
    "--vector-to says where the vector goes: the first input, or the first state; --attention looks at the "
    "regions of an image. It stops and resumes as `gatewise train lm` does.",
    "task": "A memory task by name: temporal order, adding, copy, parity, ...; `gatewise tasks` lists them.\n\n"
    "Sequences are made here, new in every batch. It stops when the task is solved, and resumes as "
    "`gatewise train lm` does.",
}

app = App(
    name="train",
    help="Train a model on your files into a run folder. Each mapping has its own options: see "
    "`gatewise train lm --help`.",
    usage="Usage: gatewise train MAPPING DATA... --out RUN [OPTIONS]",
    group_commands=Group("Mappings", sort_key=1),
)
for _name, _help in MAPPINGS.items():
    app.command(f"gatewise.cli.train_{_name}:train_{_name}", name=_name, help=_help)
