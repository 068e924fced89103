"""`gatewise inspect`: one verb below it for each thing to look at."""

from __future__ import annotations

from cyclopts import App, Group

INSPECTIONS = {
    "ablate": "What each unit is worth: the cost of a text without it.\n\n"
    "Each unit of a state or gate is held at 0 (or --value) all through the text, many at a time; those without which the "
    "next token costs most stand first. --follow sees apart what it costs behind brackets, quotes, ...",
    "batches": "How a text becomes columns and windows of a batch, as a picture.\n\n"
    "Without a file: the alphabet in 4 columns and windows of 3 rows.",
    "direction": "A steering vector: the direction in which a state differs between two sets of texts.\n\n"
    "--toward and --away are files of a text a line (\\\\n in it is a new line). Half of each makes the vector; on the other half "
    "it is told how well it tells them apart, and what adding it (--strengths) does to the cost of both. A prompt is continued "
    "with each strength; --save writes the last as a control.",
    "fading": "How one token fades in a unit of a net, or is kept by its gates: the lecture's picture, from real values.\n\n"
    "For each step after it, how much the unit's memory and what it says (h) still depend on that token, and how far its input, forget and "
    "output gates are open. Several runs stand one below the other; --before adds each as it was before training.",
    "gradients": "How far back nets look, of language models and memory tasks: their gradients through time.\n\n"
    "For each lag, how much the cost of a token depends on the state so many tokens before; beside it, what "
    "that norm changes by per step, the largest lag at which it is still 1 % of its largest value, and the mean lag. "
    "--before shows the same net before training, --exponents how fast small changes of the state grow.",
    "lens": "What the decoder would say from each layer, and with its output gates open.\n\n"
    "After each token, the most probable next one as read from h of each layer, and from h as it would be with the output gate open "
    "(all that the memory holds). A lower layer has a basis of its own: --fit finds the linear map from it on a text.",
    "novelty": "How much of a generated text stands in the training text.\n\n"
    "For each length, the share of the generated text's substrings that occur in the given "
    "files, and the longest passage that was copied.",
    "patch": "States of another text, put into a model that has read this one: whose continuation does it write?\n\n"
    "Each state of each layer (or --name) is taken after the last token of OTHER and set at the last of PROMPT, alone and all together; "
    "for each, what is written, and what the continuations of both texts cost then.",
    "paths": "The path that the state takes, in the plane (or space) in which it differs most, and where it rests.\n\n"
    "Of a memory task its test sequences, coloured by what is asked; of a language model a text, coloured by time. --points X looks for "
    "the states at which the net stands still while X is read again and again, and says whether they attract.",
    "ratings": "What people said of captions, on the lecture's four levels.\n\n"
    "How many captions got each level, how far the raters agree, and with --references how well each metric "
    "goes with them.",
    "read": "A sequence through the model: the cost of each step, and what its gates did.\n\n"
    "A text of a language model, a classifier or a translator; a series or a table, an image, a sentence to tag, or the number of a "
    "memory task's test sequence. --record f,c names what to read: in every layer, or one as layers.0.f. The table shows the "
    "mean over the units; --out saves every value, --plot draws them, --unit colours the text by one.",
    "search": "Where else the same units are on.\n\n"
    "The units of a gate or state that are on all through --span of --text (with --around: and off around it, or the other way round) are looked up in other texts. "
    "What was read of them is kept in --index, a folder, so that the next search takes a moment.",
    "steer": "What a model writes with its gates set, beside what it writes by itself.\n\n"
    "--do reset --time 10 clears the memory at the eleventh token, --do off --name o closes the output gates, --do set --name layers.0.c "
    "--units 17 --value 2 holds a unit, --sweep 0,0.5,1 tries several values; --control takes a file. --save writes the control for "
    "--control of complete, generate and inspect read.",
    "units": "Which units follow something in a text, and what they are worth there.\n\n"
    "--follow names it: brackets, quotes, indentation, ..., or a regular expression between slashes. Units are ranked "
    "by how well each alone tells those tokens from the others; the best are held at 0, and the cost of the next token "
    "is compared there and elsewhere. Without --follow: how often gates are open and closed, and how long units remember.",
    "vectors": "The vectors that an encoder reads phrases into, as a map of two dimensions (PCA).\n\n"
    "--plot draws it with the phrases written on it, --region zooms on a part of it, --out saves it.",
}

app = App(
    name="inspect",
    help="Look inside a run, or at how a text is read.",
    group_commands=Group("Inspections", sort_key=1),
)
for _name, _help in INSPECTIONS.items():
    app.command(f"gatewise.cli.inspect_{_name}:inspect_{_name}", name=_name, help=_help)
