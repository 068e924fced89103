"""`gatewise train caption`: images or vectors with texts to a run folder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from cyclopts import Parameter

from gatewise.checkpoint import RunFolder, load_checkpoint
from gatewise.cli import screen, settings
from gatewise.cli.options import Engine, Json, flags_of, given
from gatewise.cli.training import (
    Chosen,
    ConfigFile,
    Form,
    Out,
    Resume,
    check_folder,
    finished,
    note_validation,
    run_training,
)
from gatewise.errors import OptionError
from gatewise.mappings.described import CaptionLearner
from gatewise.mappings.examples import BatchOptions
from gatewise.mappings.image_encoder import ImageOptions
from gatewise.mappings.vec_to_seq import CaptionOptions
from gatewise.tasks.captions import Captions
from gatewise.tasks.described import CaptionDataOptions, scenes
from gatewise.tasks.pixels import decoded
from gatewise.text.sides import Side, Sides
from gatewise.train import TrainOptions
from gatewise.train.captions import (
    CaptionTextOptions,
    EncoderOptions,
    Pretrained,
    caption_learner,
)

FORM = Form(
    "caption",
    {
        "files": CaptionDataOptions,
        "text": CaptionTextOptions,
        "model": CaptionOptions,
        "images": ImageOptions,
        "encoder": EncoderOptions,
        "batches": BatchOptions,
        "training": TrainOptions,
    },
    "caption",
)
SCENES = "scenes"
"""The preset of a run without data."""
_NAMED = 3

if TYPE_CHECKING:
    FileFlags: TypeAlias = CaptionDataOptions
    TextFlags: TypeAlias = CaptionTextOptions
    ModelFlags: TypeAlias = CaptionOptions
    ImageFlags: TypeAlias = ImageOptions
    EncoderFlags: TypeAlias = EncoderOptions
    BatchFlags: TypeAlias = BatchOptions
    TrainFlags: TypeAlias = TrainOptions
else:
    _FIRST = settings.preset_values(FORM.preset, FORM.mapping)
    FileFlags = flags_of(CaptionDataOptions, "Data", 1, __name__, _FIRST)
    TextFlags = flags_of(CaptionTextOptions, "Text", 2, __name__, _FIRST)
    ModelFlags = flags_of(CaptionOptions, "Model", 3, __name__, _FIRST)
    ImageFlags = flags_of(ImageOptions, "Images", 4, __name__, _FIRST)
    EncoderFlags = flags_of(EncoderOptions, "Images", 4, __name__, _FIRST)
    BatchFlags = flags_of(BatchOptions, "Batches", 5, __name__, _FIRST)
    TrainFlags = flags_of(TrainOptions, "Training", 6, __name__, _FIRST)


@dataclass(frozen=True)
class Settings(Chosen):
    """The options of a run."""

    files: CaptionDataOptions
    text: CaptionTextOptions
    model: CaptionOptions
    images: ImageOptions
    encoder: EncoderOptions
    batches: BatchOptions
    training: TrainOptions


def train_caption(
    data: Annotated[
        list[str],
        Parameter(
            allow_leading_hyphen=True,
            show_default=False,
            help="Images with texts: neuraltalk2's or Karpathy's .json, COCO's captions_*.json, "
            "Flickr8k.token.txt with --split-files, or a folder of images with a .txt each; or a table of "
            "vectors and texts (.npz, .csv, .tsv, .jsonl, .parquet). Without any: rendered scenes, from "
            "the preset scenes.",
        ),
    ] = [],  # noqa: B006
    /,
    *,
    out: Out,
    preset: Annotated[str | None, Parameter(help=FORM.preset_help())] = None,
    config: ConfigFile = None,
    resume: Resume = False,
    engine: Engine = "auto",
    json: Json = False,
    files: Annotated[FileFlags, Parameter(name="*")] = FileFlags(),  # noqa: B008
    text: Annotated[TextFlags, Parameter(name="*")] = TextFlags(),  # noqa: B008
    model: Annotated[ModelFlags, Parameter(name="*")] = ModelFlags(),  # noqa: B008
    images: Annotated[ImageFlags, Parameter(name="*")] = ImageFlags(),  # noqa: B008
    encoder: Annotated[EncoderFlags, Parameter(name="*")] = EncoderFlags(),  # noqa: B008
    batches: Annotated[BatchFlags, Parameter(name="*")] = BatchFlags(),  # noqa: B008
    training: Annotated[TrainFlags, Parameter(name="*")] = TrainFlags(),  # noqa: B008
) -> int:
    """Train a captioner; `gatewise train caption --help` says more."""
    check_folder(out, resume=resume)
    flags = (files, text, model, images, encoder, batches, training)
    if not data and preset is None and config is None and not resume:
        preset = SCENES
    values = FORM.values(out if resume else None, preset, config, flags)
    chosen = FORM.settings(Settings, values)
    chosen.validate()
    stored = _stored(out, data) if resume else None
    pretrained = Pretrained.read(chosen.encoder)
    if pretrained is not None and stored is None and "image_size" not in given(flags):
        sized = dataclasses.replace(chosen.images, image_size=pretrained.pixels)
        chosen = dataclasses.replace(chosen, images=sized)
    learner, notes = caption_learner(
        _things(data, chosen),
        chosen.text,
        chosen.model,
        chosen.images,
        chosen.batches,
        chosen.training,
        pretrained=pretrained,
        side=stored,
        cache=chosen.files.cache,
        engine=engine,
    )
    learner.extra |= {
        name: dataclasses.asdict(getattr(chosen, name))
        for name in ("text", "files", "images", "encoder")
    } | {"embedded": not data}
    _say(learner, notes, chosen.text.tokenizer)
    result = run_training(learner, chosen.training, out, resume=resume)
    return finished(result, " ".join(["gatewise eval", str(out), *data]), json=json)


def _say(learner: CaptionLearner, notes: list[str], tokenizer: str) -> None:
    sizes = ", ".join(
        f"{name} {len(part):,} of {len(part.things):,}" for name, part in learner.parts.items()
    )
    size = learner.model.config.vocab_size
    screen.say(f"texts: {sizes}; vocabulary: {size:,} ({tokenizer})")
    for note in notes:
        screen.say(note)
    note_validation(learner)


def _things(data: list[str], chosen: Settings) -> dict[str, tuple[Any, Captions]]:
    """Images or vectors of each part; what is left out is said."""
    pixels = chosen.images.image_size
    if not data:
        screen.say("no data given: drawing scenes of shapes here, which takes some seconds")
        return scenes(pixels)
    return opened(chosen.files, data, pixels)


def opened(
    files: CaptionDataOptions, data: list[str], pixels: int
) -> dict[str, tuple[Any, Captions]]:
    """The images or vectors in `data`, by part; what is left out is said."""
    parts = files.read(data)
    whole = parts.pop("")
    if line := whole.skipped.summary(_NAMED):
        screen.say(line)
    outside = len(whole) - sum(len(part) for part in parts.values())
    if outside:
        screen.say(f"left out: {outside:,} that are in none of the parts train, valid and test")
    found: dict[str, tuple[Any, Captions]] = {}
    for name, part in parts.items():
        if part.vectors is not None:
            found[name] = (part.vectors, part)
            continue
        kept, images = decoded(part, pixels, cache=files.cache)
        if line := kept.skipped.summary(_NAMED):
            screen.say(line)
        found[name] = (images, kept)
    return found


def _stored(out: Path, data: list[str]) -> Side | None:
    """The vocabulary of the run in the folder `out`; None if nothing was saved yet.

    Raises:
        OptionError: a run on data is to go on without them, or one without on data.
    """
    if not RunFolder.open(out).checkpoints():
        return None
    found = load_checkpoint(out, "latest")
    embedded = found.config.get("embedded")
    if embedded is False and not data:
        raise OptionError(
            f"--resume: the run in {out} was begun on data, found none: name the same data again"
        )
    if embedded is True and data:
        raise OptionError(
            f"--resume: the run in {out} was begun without data, on rendered scenes, found {data[0]}: "
            "leave the data out, or begin another run with a new --out"
        )
    return Sides.from_json(found.tokenizer_json).source
