"""``export.json`` of others is read as what it may be: hostile."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.export import manifest as manifests
from distill_jax.export.manifest import MANIFEST, read_manifest, write_manifest
from distill_jax.export.opened import open_export


@pytest.fixture
def copy(exports, tmp_path):
    """A copy of an export, to be damaged."""
    return shutil.copytree(exports["onnx"], tmp_path / "copy")


def forged(folder, **changes):
    """A manifest with other content, whose digest fits."""
    raw = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    raw = {**raw, **changes}
    raw["digest"] = manifests._digest(raw)
    (folder / MANIFEST).write_text(json.dumps(raw), encoding="utf-8")
    return folder


def test_it_is_read_as_it_was_written(copy, tmp_path):
    manifest = read_manifest(copy)
    write_manifest(tmp_path, manifest)
    assert (tmp_path / MANIFEST).read_bytes() == (copy / MANIFEST).read_bytes()
    assert manifest.parity["sentences"] >= 16 and manifest.parity["worst_difference"] < 1e-4
    assert set(manifest.files) == {"README.md", "golden.json", "model.onnx", "tokenizer.json"}
    assert {"distill_jax", "jax", "onnx"} <= set(manifest.versions)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"files": {"../../etc/passwd": "0" * 64}}, "no name of a file in the folder"),
        ({"files": {"/etc/passwd": "0" * 64}}, "no name of a file in the folder"),
        ({"files": {"a/../../b": "0" * 64}}, "no name of a file in the folder"),
        ({"files": {"export.json": "0" * 64}}, "no name of a file in the folder"),
        ({"files": {"model.onnx": "f00"}}, "SHA-256 of model.onnx is none"),
        ({"files": {f"f{n}": "0" * 64 for n in range(100)}}, "100 files, more than"),
        ({"files": ["model.onnx"]}, "files must be a mapping"),
        ({"label_names": "ab"}, "label_names must be a list"),
        ({"label_names": ["a", "a"]}, "must be different names"),
        ({"label_names": [1, 2]}, "label_names must be"),
        ({"max_length": 0}, "max_length must be from 1"),
        ({"max_length": True}, "max_length must be a whole number"),
        ({"temperature": -1}, "temperature must be a positive number"),
        ({"temperature": "1"}, "temperature must be a number"),
        ({"format": "onnxx"}, "unknown export format 'onnxx'.*Did you mean 'onnx'"),
        ({"format": ["onnx"]}, "format must be text"),
        ({"parity": {"tolerance": 1e9}}, "tolerance must be a number between 0 and 1"),
        ({"parity": {"tolerance": "no"}}, "tolerance must be a number between 0 and 1"),
        ({"surprise": 1}, "surprise"),
        ({"files": {}}, "lists no tokenizer.json"),
    ],
)
def test_hostile_content_is_refused(copy, changes, said):
    with pytest.raises(UserError, match=said):
        open_export(forged(copy, **changes))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"digest": "0"}',
        "[" * 100_000,
        '{"a": NaN}',
        b"\xff\xfe{}",
    ],
)
def test_what_is_no_manifest_is_refused(copy, text):
    data = text if isinstance(text, bytes) else text.encode()
    (copy / MANIFEST).write_bytes(data)
    with pytest.raises(UserError, match=r"export\.json is damaged"):
        open_export(copy)


def test_classes_that_the_model_lacks_are_told(copy, exports):
    export = open_export(forged(copy, label_names=["a", "b", "c"]))
    ids_BT = np.ones((2, 3), np.int64)
    with pytest.raises(UserError, match=r"gives \[2, 2\] for 2 texts of 3 classes"):
        export.logits(ids_BT, ids_BT * 0, ids_BT)


def test_a_huge_one_is_not_read(copy, monkeypatch):
    monkeypatch.setattr(manifests, "MOST_BYTES", 100)
    with pytest.raises(UserError, match="larger than 100 bytes"):
        open_export(copy)


def test_a_link_out_of_the_folder_is_no_file_of_it(copy, tmp_path):
    shutil.move(copy / "model.onnx", tmp_path / "elsewhere.onnx")
    (copy / "model.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(UserError, match=r"model\.onnx is missing"):
        open_export(copy)


def test_a_manifest_cannot_be_made_wrong(exports):
    with pytest.raises(UserError, match="max_length"):
        dataclasses.replace(read_manifest(exports["onnx"]), max_length=0)
