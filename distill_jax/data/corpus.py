"""``--data`` as text alone: what a language model learns from, labels or not.

Texts that nobody split are held out by a fixed hash of the text, so that equal texts stay together.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from distill_jax.core.digests import unit_interval
from distill_jax.core.errors import UserError, unknown
from distill_jax.core.files import user_path
from distill_jax.data.file_formats import ENDINGS, kind_of, place, read_cells, read_lines
from distill_jax.data.load import BUILT_IN, load_dataset
from distill_jax.data.split_files import TEXT, TRANSFER, find_split_files
from distill_jax.data.splits import content_ids
from distill_jax.data.table import SPLITS, Dataset, TextTable, check_named, fold

HELD_OUT = 0.05
"""Share of the texts that becomes a split where there is none: validation, and test."""
FORMS = (*BUILT_IN, "files:FOLDER", "text:FILE", "tfds:NAME")

Corpus = Dataset[TextTable]
"""Splits of texts without labels; ``label_names`` is ()."""


def load_corpus(spec: str, *, text: str = "sentence", home: Path | None = None) -> Corpus:
    """The texts of a data set.

    Args:
      spec: a built-in data set, or TFDS's; ``files:FOLDER``, as for classification, but no file and
        no row needs a label; ``text:FILE``, a text a line (``.txt``), or any file of rows with a
        column ``text``.
      text: column of files and TFDS data.
      home: where prepared data are kept.

    Raises:
      UserError: for what is not there, or holds no text.
    """
    kind, _, rest = spec.partition(":")
    if kind == "files" and rest:
        return _with_held_out(spec, *_of_folder(user_path(rest), text))
    if kind == "text" and rest:
        path = user_path(rest)
        if not path.is_file():
            raise UserError(f"no file {path}; expected a text a line (.txt), or rows of text")
        return _with_held_out(spec, {"train": _of_file(path, text)}, ())
    if spec not in BUILT_IN and kind != "tfds":
        raise unknown("data set", spec, FORMS)
    dataset = load_dataset(spec, text=text, home=home)
    splits = {split: dataset.splits[split] for split in SPLITS}
    for table in splits.values():
        if table.texts_b is not None:
            raise UserError(f"{spec} has pairs of texts; a language model learns from single ones")
    bare = {
        split: dataclasses.replace(table, labels_N=None, scores_N=None)
        for split, table in splits.items()
    }
    return Corpus(spec, (), bare, dataset.notes)


def _of_folder(folder: Path, text: str) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """The texts of a folder by split, and what is said of its files. Transfer files are training
    texts here."""
    files = find_split_files(folder)
    texts: dict[str, list[str]] = {}
    for split, paths in files.paths.items():
        into = texts.setdefault("train" if split == TRANSFER else split, [])
        for path in paths:
            into += _of_file(path, text)
    return texts, files.notes


def _of_file(path: Path, text: str) -> list[str]:
    if kind_of(path) == TEXT:
        return [_stripped(line, place(path, number)) for number, line in read_lines(path)]
    if not path.is_dir() and not path.name.lower().endswith(ENDINGS):
        raise UserError(f"{path}: expected one of {', '.join((TEXT, *ENDINGS))}")
    return list(_cells(path, text))


def _cells(path: Path, text: str) -> Iterator[str]:
    for number, cells in read_cells(path):
        where = place(path, number)
        check_named([text], cells, f"{where}; name it with --text")
        value = cells[text]
        if value is None or (isinstance(value, str) and not value.strip()):
            continue
        if not isinstance(value, str):
            raise UserError(f"{where}: expected text in column {text!r}, found {value!r:.60}.")
        yield _stripped(value, where)


def _stripped(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: half of a character, {text[error.start]!r}.") from error
    return text.strip()


def _with_held_out(name: str, texts: dict[str, list[str]], notes: tuple[str, ...]) -> Corpus:
    """All three splits, what is missing held out of train."""
    told = list(notes)
    missing = [split for split in ("validation", "test") if not texts.get(split)]
    train = texts.get("train", [])
    if not train:
        raise UserError(f"data {name!r}: no texts")
    if missing:
        chosen = [_split_of(each, missing) for each in train]
        for split in missing:
            texts[split] = _of_split(train, chosen, split)
        texts["train"] = _of_split(train, chosen, "train")
        held = " and ".join(f"{len(texts[split]):,} as {split}" for split in missing)
        told.append(f"{held} are held out of {len(train):,} texts by a fixed hash")
        if not all(texts[split] for split in SPLITS):
            raise UserError(
                f"data {name!r}: {len(train)} texts are too few to hold out a "
                f"{' and a '.join(missing)} split; add such files, or more texts."
            )
    return Corpus(name, (), {split: _table(texts[split]) for split in SPLITS}, tuple(told))


def _split_of(text: str, missing: Sequence[str]) -> str:
    place = int(unit_interval(f"corpus/{fold(text)}") / HELD_OUT)
    return missing[place] if place < len(missing) else "train"


def _of_split(texts: Sequence[str], chosen: Sequence[str], split: str) -> list[str]:
    return [text for text, own in zip(texts, chosen, strict=True) if own == split]


def _table(texts: Sequence[str]) -> TextTable:
    return TextTable(content_ids(tuple(texts)), tuple(texts))
