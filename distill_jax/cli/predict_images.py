"""``distill-jax predict`` of images: an ``.npz`` in, a class for each image out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from distill_jax.core.errors import UserError, unknown

IMAGE, LABEL = "image", "label"
"""Columns of the output: the image's number in the file, from 0, and its label where it has one."""
ENDING = ".npz"


def predict_images(
    folder: Path,
    file: Path | None,
    output: Path | None,
    writer_of: Callable[..., Any],
    sink: Callable[..., Any],
    *,
    temperature: float | Literal["auto"],
    batch_size: int | None,
) -> None:
    """Classify the images of a file.

    Args:
      file: with an array ``images``, see docs/data.md.
      writer_of: (columns, names, form) -> what makes lines of rows.
      sink: (output) -> a context whose value takes the text.

    Raises:
      UserError: for no file, or one that the model cannot read.
    """
    from distill_jax.data.image_files import read_images
    from distill_jax.evaluation.answers import ClassForm
    from distill_jax.evaluation.open_images import open_images

    if file is None:
        raise UserError(f"{folder} has a classifier of images: name them with --input FILE.npz")
    if file.suffix.lower() != ENDING:
        raise unknown("ending of --input", file.name, [ENDING], where="for images")
    opened = open_images(folder, temperature=temperature)
    raw = read_images(file, labels=False)
    labelled = any(word is not None for word in raw.words)
    columns = (IMAGE, LABEL) if labelled else (IMAGE,)
    writer = writer_of(columns, (IMAGE,), ClassForm(opened.label_names, opened.temperature))
    done = right = 0
    with sink(output) as write:
        write(writer.head())
        for answers in opened.answers(raw.images_NHWC, batch_size=batch_size):
            words = raw.words[done : done + len(answers)]
            rows = [{IMAGE: str(done + n), LABEL: word} for n, word in enumerate(words)]
            write(writer.rows(rows, answers))
            right += sum(a.label == word for a, word in zip(answers, words, strict=True))
            done += len(answers)
    if labelled:
        known = sum(word is not None for word in raw.words)
        print(f"{right:,} of {known:,} labels are the classes given", file=sys.stderr)
    if output is not None:
        print(f"{done} rows: {output}", file=sys.stderr)
