"""Any bytes in the user's files: a data set, or one line that says where they are wrong."""

import gzip
import io
import json
import logging
import tarfile
import zipfile

import pytest
from damages import damaged, damaged_json, told
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distill_jax.data import files
from distill_jax.data.archives import extract
from distill_jax.data.tokenise import tokenise_dataset
from distill_jax.tasks.classification.cells import DataConfig
from distill_jax.tasks.classification.splits import prepare_texts

ROWS = [
    {"id": f"n{n}", "sentence": f"the film is {word} {n}", "other": "a, \"b\"", "label": label}
    for n, (word, label) in enumerate([("good", "pos"), ("bad", "neg")] * 6)
]  # fmt: skip
CSV = "id,sentence,other,label\n" + "".join(
    f'{row["id"]},"{row["sentence"]}","a, ""b""",{row["label"]}\n' for row in ROWS
)
TSV = "id\tsentence\tother\tlabel\n" + "".join("\t".join(row.values()) + "\n" for row in ROWS)
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS)
TEXTS = {".csv": CSV, ".tsv": TSV, ".jsonl": JSONL}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("distill_jax").setLevel(logging.ERROR)
    yield
    logging.getLogger("distill_jax").setLevel(logging.NOTSET)


def load(folder, toy_teacher, contents, **columns):
    """Reads the files and goes on to what is trained on."""
    for old in folder.iterdir():
        old.unlink()
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    dataset = files.load(folder, **columns)
    assert len(dataset.digest) == 16 and len(dataset.label_names) >= 2
    tokens = tokenise_dataset(dataset, toy_teacher / "tokenizer.json", max_length=16)
    for split, table in dataset.splits.items():
        assert tokens.splits[split].ids == table.ids
    config = DataConfig(f"files:{folder}", label_fraction=0.5, max_length=16)
    task = prepare_texts(config, dataset, toy_teacher / "tokenizer.json")
    assert task.summary and task.training_table(with_teacher=True).digest


@settings(max_examples=100)
@given(st.sampled_from(sorted(TEXTS)), st.sampled_from(["train", "dev", "test"]), st.data())
def test_files_with_damage(folder, toy_teacher, ending, split, data):
    contents = {f"{name}{ending}": TEXTS[ending].encode() for name in ("train", "dev", "test")}
    contents[f"{split}{ending}"] = data.draw(damaged(TEXTS[ending].encode()))
    columns = data.draw(st.sampled_from([{}, {"text_b": "other"}, {"label": "other"}]))
    told(lambda: load(folder, toy_teacher, contents, **columns))


@settings(max_examples=80)
@given(st.sampled_from(sorted(TEXTS)), st.binary(max_size=60))
@example(".csv", b'id,sentence,label\n"' + b"a" * 200_000)
@example(".csv", b"\xff\xfei\x00d\x00")
@example(".csv", b"sentence,label\n\0,\0\n")
@example(".jsonl", b"[" * 100_000)
@example(".jsonl", b'{"sentence": "\\ud800", "label": "a"}\n{"sentence": "b", "label": "c"}')
@example(".jsonl", b'{"sentence": "a", "label": ' + b"9" * 5000 + b"}")
@example(".jsonl", b'{"sentence": "a", "label": "a", "id": "\\udfff"}\n' * 2)
def test_any_bytes(folder, toy_teacher, ending, data):
    whole = TEXTS[ending].encode()
    told(lambda: load(folder, toy_teacher, {f"train{ending}": data, f"dev{ending}": whole}))
    told(lambda: load(folder, toy_teacher, {f"train{ending}": whole, f"dev{ending}": data}))
    told(lambda: load(folder, toy_teacher, {f"train{ending}": whole + data, "dev.csv": data}))


@settings(max_examples=80)
@given(st.lists(damaged_json(ROWS[0]), min_size=1, max_size=4))
def test_rows_of_any_json(folder, toy_teacher, rows):
    text = JSONL + "".join(json.dumps(row) + "\n" for row in rows)
    contents = {"train.jsonl": text.encode(), "dev.jsonl": text.encode()}
    told(lambda: load(folder, toy_teacher, contents))


# Archives.


def make_archives():
    tar, bundle = io.BytesIO(), io.BytesIO()
    with (
        gzip.GzipFile(fileobj=tar, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as out,
    ):
        for name in ("b.txt", "d/a.txt"):
            info = tarfile.TarInfo(name)
            info.size = 300
            out.addfile(info, io.BytesIO(b"one two three " * 30))
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_DEFLATED) as out:
        for name in ("b.txt", "d/a.txt"):
            out.writestr(zipfile.ZipInfo(name), b"one two three " * 30, zipfile.ZIP_DEFLATED)
    return {"a.tar.gz": tar.getvalue(), "a.zip": bundle.getvalue()}


ARCHIVES = make_archives()


@settings(max_examples=250)
@given(st.sampled_from(sorted(ARCHIVES)), st.data())
def test_archives(tmp_path_factory, name, data):
    folder = tmp_path_factory.getbasetemp() / "archives"
    (folder / "into").mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data.draw(damaged(ARCHIVES[name])))
    target = folder / "into/a.txt"
    target.unlink(missing_ok=True)
    told(lambda: extract(folder / name, {"d/a.txt": (target, 500)}, max_total=4096))
    assert {file.name for file in folder.rglob("*")} <= {*ARCHIVES, "into", "a.txt"}
    assert not target.exists() or target.stat().st_size <= 500
