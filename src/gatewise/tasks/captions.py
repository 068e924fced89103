"""Images, or vectors, with texts that describe them, in the formats that captioners' data come in.

neuraltalk2's list, Karpathy's dataset_*.json, Flickr8k.token.txt with its split files, COCO's
captions_*.json, a folder of images with a .txt each; and tables of vectors and texts. Images are opened
with Pillow (extra `caption`); one that is missing or broken is left out, named and counted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import BadZipFile

import numpy as np

from gatewise.errors import DataError, OptionError
from gatewise.tasks.skips import Skips
from gatewise.tasks.tables import lines_of, matching, read_table, read_text

Image: TypeAlias = "np.ndarray[Any, np.dtype[np.uint8]]"

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".tif", ".tiff")
SPLITS = {"train": "train", "restval": "train", "val": "valid", "valid": "valid", "dev": "valid"}
MISSING, NO_TEXT = "no image file", "no caption"


@dataclass(frozen=True)
class Described:
    """One thing and what is said of it.

    Args:
        name: as its source names it; never changed.
        texts: one or more.
        split: train, valid, test, or "" where nobody said.
        path: of the image; None of a vector.
    """

    name: str
    texts: tuple[str, ...]
    split: str = ""
    path: Path | None = None


@dataclass(frozen=True, eq=False)
class Captions:
    """Things with texts.

    Args:
        items: in the order of their source.
        vectors: (n, D) float32 of a table of vectors; None of images.
        skipped: what was left out.
    """

    items: list[Described]
    vectors: np.ndarray[Any, np.dtype[np.float32]] | None = None
    skipped: Skips = field(default_factory=Skips)

    def __len__(self) -> int:
        return len(self.items)

    def part(self, split: str) -> Captions:
        """Those of one split."""
        rows = [k for k, item in enumerate(self.items) if item.split == split]
        vectors = None if self.vectors is None else self.vectors[rows]
        return Captions([self.items[k] for k in rows], vectors)


def read_captions(
    source: str | Path,
    images: str | Path | None = None,
    splits: Mapping[str, str | Path] | None = None,
    *,
    bare: bool = False,
) -> Captions:
    """The images and texts of a source; its format is told by what is in it.

    Args:
        source: a folder, a .json, or a file of `name.jpg#0<tab>text` lines.
        images: the folder that the names are in. Default: that of `source`, and `images` in it.
        splits: of a source that has none (Flickr8k): for train, valid, test a file of names.
        bare: the images need not be there: their features are elsewhere.
    Raises:
        DataError: with file, and line or entry, if the format is none of these; if nothing is left.
    """
    source = Path(source)
    if source.is_dir():
        rows = _folder(source)
    elif source.suffix.lower() == ".json":
        rows = _json(source)
    else:
        rows = _token_file(source)
    if splits:
        rows = _split(rows, splits)
    folders = [Path(images)] if images else [source if source.is_dir() else source.parent]
    return _found(str(source), rows, [*folders, *(f / "images" for f in folders)], bare=bare)


def read_vectors(path: str | Path, text: str = "text", split: str | None = None) -> Captions:
    """A table of vectors with texts: a .npz of `vectors` (n, D) and `texts` (n,), or a CSV, TSV, JSONL or
    Parquet whose columns but these are the numbers.

    Args:
        path: the file.
        text: a table's column of texts.
        split: a table's column of train, valid and test.
    Raises:
        DataError: with file and line, if a value is not a number.
    """
    if Path(path).suffix.lower() == ".npz":
        vectors, texts, parts = _npz(path)
        names = [f"row {k + 1}" for k in range(len(texts))]
    else:
        table = read_table(path)
        texts = table.texts(text)
        parts = table.texts(split) if split else [""] * len(table)
        columns = matching(table, None, [text, *([split] if split else [])])
        if not columns or not len(table):
            raise DataError(f"{path}: expected columns of numbers beside {text!r}, found none")
        vectors = np.stack([table.numbers(name) for name in columns], 1).astype(np.float32)
        names = [f"line {line}" for line in table.lines]
    skipped, kept = Skips(), []
    for k, name in enumerate(names):
        reason = NO_TEXT if not texts[k].strip() else ""
        if not reason and not np.isfinite(vectors[k]).all():
            reason = "a value that is missing or not finite"
        if reason:
            skipped.add(f"{path}, {name}", reason)
        else:
            kept.append(k)
    if not kept:
        raise DataError(f"{path}: expected vectors with texts, found none ({skipped.summary()})")
    items = [Described(names[k], (texts[k].strip(),), _split_name(parts[k])) for k in kept]
    return Captions(items, vectors[kept], skipped)


def open_image(path: str | Path, pixels: int) -> Image:
    """The middle square of an image at a size, (pixels, pixels, 3) uint8, turned as its camera says.

    Raises:
        DataError: if it is missing or broken.
        OptionError: if Pillow is not installed.
    """
    library = _pillow()
    try:
        with library.Image.open(path) as image:
            return _fitted(library, library.ImageOps.exif_transpose(image), pixels)
    except FileNotFoundError:
        raise DataError(f"{path}: expected an image, found no such file") from None
    except (OSError, ValueError, SyntaxError, library.Image.DecompressionBombError) as error:
        raise DataError(f"{path}: expected an image, found a broken one ({error})") from None


def fitted(image: Image, pixels: int) -> Image:
    """The middle square of an image (H, W, 3) at a size.

    Raises:
        OptionError: if Pillow is not installed.
    """
    if image.shape == (pixels, pixels, 3):
        return image
    library = _pillow()
    return _fitted(library, library.Image.fromarray(image), pixels)


def _fitted(library: Any, image: Any, pixels: int) -> Image:
    return np.array(library.ImageOps.fit(image.convert("RGB"), (pixels, pixels)), np.uint8)


def _pillow() -> Any:
    try:
        import PIL
        import PIL.Image
        import PIL.ImageOps
    except ImportError:
        raise OptionError(
            "images need Pillow, which is not installed: run pip install 'gatewise[caption]'"
        ) from None
    return PIL


def load_images(captions: Captions, pixels: int) -> tuple[Captions, Image]:
    """Those whose images can be read, and the images, (n, pixels, pixels, 3) uint8.

    Raises:
        DataError: if none can.
    """
    images, kept, skipped = [], [], Skips(list(captions.skipped.entries))
    for item in captions.items:
        try:
            images.append(open_image(item.path or item.name, pixels))
        except DataError:
            skipped.add(str(item.path), "a broken image")
        else:
            kept.append(item)
    if not kept:
        raise DataError(f"expected images, found none that can be read ({skipped.summary()})")
    return Captions(kept, None, skipped), np.stack(images)


def _folder(folder: Path) -> list[Described]:
    """Each image with the .txt of the same name, a caption a line."""
    rows = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGES):
        beside = path.with_suffix(".txt")
        texts = lines_of(read_text(beside)) if beside.is_file() else []
        rows.append(Described(str(path.relative_to(folder)), tuple(texts)))
    if rows and not any(row.texts for row in rows):
        raise DataError(
            f"{folder}: expected a text beside each image ({Path(rows[0].name).with_suffix('.txt')}, a caption a "
            f"line), found {len(rows):,} images and no text; captions in one file: name that, and --images {folder}"
        )
    return rows


_FORMATS = "expected neuraltalk2's list, Karpathy's dataset or COCO's captions"


def _json(path: Path) -> list[Described]:
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected JSON: {error}") from None
    try:
        if isinstance(found, list):
            return _entries(path, found, lambda e: (e["file_path"], e["captions"]))
        if "annotations" in found:
            return _coco(path, found)
        return _entries(path, found["images"], _karpathy)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: {_FORMATS}, found an entry without {error}") from None


def _karpathy(entry: Any) -> tuple[str, list[Any]]:
    """Name and captions of an image of Karpathy's datasets."""
    folder = Path(entry.get("filepath", ""))
    return str(folder / entry["filename"]), [one["raw"] for one in entry["sentences"]]


def _entries(
    path: Path, found: Sequence[Any], read: Callable[[Any], tuple[str, Any]]
) -> list[Described]:
    """What `read` finds in each entry.

    Raises:
        DataError: with the entry's number and what it has, if it is not of the format.
    """
    rows = []
    for number, entry in enumerate(found, 1):
        try:
            rows.append(_entry(entry, *read(entry)))
        except (KeyError, TypeError, AttributeError) as error:
            has = ", ".join(map(repr, entry)) if isinstance(entry, dict) else repr(entry)[:60]
            what = f"one without {error}" if isinstance(error, KeyError) else f"not {error}"
            raise DataError(
                f"{path}, entry {number}: {_FORMATS}, found {what}; it has {has or 'nothing'}"
            ) from None
    return rows


def _entry(entry: Mapping[str, Any], name: str, texts: Sequence[str]) -> Described:
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise TypeError("a list of captions as texts")
    return Described(name, tuple(texts), _split_name(str(entry.get("split", ""))))


def _coco(path: Path, found: Mapping[str, Any]) -> list[Described]:
    names = {image["id"]: image["file_name"] for image in found["images"]}
    texts: dict[Any, list[str]] = {key: [] for key in names}
    for entry in found["annotations"]:
        if entry["image_id"] not in texts:
            raise DataError(f"{path}: expected captions of its images, found {entry['image_id']!r}")
        texts[entry["image_id"]].append(entry["caption"])
    return [Described(name, tuple(texts[key])) for key, name in names.items()]


def _token_file(path: Path) -> list[Described]:
    """Flickr8k's `name.jpg#0<tab>text` lines."""
    texts: dict[str, list[str]] = {}
    for number, line in enumerate(lines_of(read_text(path)), 1):
        name, tab, text = line.partition("\t")
        bare, mark, _ = name.rpartition("#")
        if line.strip() and not (tab and mark):
            found = repr(line[:60])
            raise DataError(f"{path}, line {number}: expected name#0<tab>text, found {found}")
        if bare:
            texts.setdefault(bare, []).append(text)
    return [Described(name, tuple(several)) for name, several in texts.items()]


def _split(rows: Iterable[Described], splits: Mapping[str, str | Path]) -> list[Described]:
    part: dict[str, str] = {}
    for split, path in splits.items():
        for name in lines_of(read_text(path)):
            if part.setdefault(name.strip(), split) != split:
                raise DataError(f"{path}: expected each image in one split, found {name!r} in two")
    return [Described(r.name, r.texts, part.get(r.name, ""), r.path) for r in rows]


def _split_name(name: str) -> str:
    return SPLITS.get(name.strip().lower(), name.strip().lower())


def _found(
    source: str, rows: Iterable[Described], folders: Sequence[Path], *, bare: bool
) -> Captions:
    items, skipped = [], Skips()
    for row in rows:
        texts = tuple(text.strip() for text in row.texts if text.strip())
        paths = [p for p in (folder / row.name for folder in folders) if p.is_file()]
        if not texts or not (paths or bare):
            skipped.add(f"{source}, {row.name}", MISSING if texts else NO_TEXT)
        else:
            items.append(Described(row.name, texts, row.split, paths[0] if paths else None))
    if not items:
        said = skipped.summary()
        raise DataError(f"{source}: expected images with captions, found none ({said or 'empty'})")
    return Captions(items, None, skipped)


def _npz(path: str | Path) -> tuple[np.ndarray[Any, np.dtype[np.float32]], list[str], list[str]]:
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            vectors, texts = file["vectors"].astype(np.float32), file["texts"]
            parts = file["split"] if "split" in file.files else np.full(len(texts), "")
    except (OSError, ValueError, KeyError, AttributeError, TypeError, BadZipFile) as error:
        raise DataError(f"{path}: expected vectors and texts as .npz: {error}") from None
    if vectors.ndim != 2 or texts.shape != vectors.shape[:1] or parts.shape != texts.shape:
        found = f"{vectors.shape}, {texts.shape}"
        raise DataError(f"{path}: expected vectors (n, D) and texts (n,), found {found}")
    return vectors, [str(t) for t in texts], [str(p) for p in parts]
