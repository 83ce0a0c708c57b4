"""Small files of texts and labels, for tests of what is read from them."""

import csv
import io
import json

import pytest

from distill_jax.core.errors import UserError
from distill_jax.data import files

TRAIN = [("good", "pos"), ("bad", "neg"), ("fine", "pos"), ("awful", "neg")]
TEST = [("nice", "pos"), ("poor", "neg")]
DEV = [("sweet", "pos"), ("sour", "neg")]


def write(folder, stem, rows, ending=".tsv", header=("sentence", "label")):
    path = folder / f"{stem}{ending}"
    if ending == ".jsonl":
        lines = [json.dumps(dict(zip(header, row, strict=True))) for row in rows]
    else:
        separator = "\t" if ending == ".tsv" else ","
        lines = [separator.join(map(str, row)) for row in [header, *rows]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_all(folder, ending=".tsv"):
    for stem, rows in (("train", TRAIN), ("dev", DEV), ("test", TEST)):
        write(folder, stem, rows, ending)


def fails(folder, match, **columns):
    with pytest.raises(UserError, match=match) as caught:
        files.load(folder, **columns)
    assert "\n" not in str(caught.value)


def many(count, start=0):
    return [(f"text number {i}", i % 2) for i in range(start, start + count)]


def delimited(rows, separator, quoting=csv.QUOTE_MINIMAL, header=("sentence", "label")):
    out = io.StringIO()
    csv.writer(out, delimiter=separator, quoting=quoting).writerows([header, *rows])
    return out.getvalue()
