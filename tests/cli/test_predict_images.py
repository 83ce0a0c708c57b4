"""``distill-jax predict`` of images, and what does not take images: in words."""

import csv
import json

import jax
import numpy as np
import pytest
from image_files import NAMES, quarters, written

from distill_jax.cli.main import dispatch
from distill_jax.core.errors import UserError
from distill_jax.evaluation.open_images import open_images
from distill_jax.models.mlp import MLPS, MlpConfig, init_mlp

IMAGES, LABELS = quarters(300)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a classifier of 8 x 8 images, drawn by chance."""
    folder = tmp_path_factory.mktemp("run") / "model"
    config = MlpConfig((6,), 4)
    MLPS.save(folder, config, init_mlp(config, jax.random.key(0)), None, NAMES)
    return folder.parent


@pytest.fixture
def file(tmp_path):
    return written(tmp_path / "own.npz", IMAGES, labels=np.array(NAMES)[LABELS])


def test_every_form_has_the_classes_of_the_model(model, file, tmp_path, capsys):
    answers = open_images(model).classify(IMAGES)
    dispatch(["predict", str(model), "--input", str(file)])
    out, told = capsys.readouterr()
    lines = [line.split("\t") for line in out.splitlines()]
    assert [line[0] for line in lines] == [answer.label for answer in answers]
    assert [line[2] for line in lines] == [str(n) for n in range(300)]
    right = sum(a.label == NAMES[label] for a, label in zip(answers, LABELS, strict=True))
    assert told == f"{right} of 300 labels are the classes given\n"
    target = tmp_path / "answers.csv"
    dispatch(["predict", str(model), "--input", str(file), "--output", str(target),
              "--batch-size", "7"])  # fmt: skip
    with open(target, newline="") as source:
        rows = list(csv.DictReader(source))
    assert [row["predicted"] for row in rows] == [answer.label for answer in answers]
    assert [row["label"] for row in rows] == [NAMES[label] for label in LABELS]
    sums = [sum(float(row[f"probability of {name}"]) for name in NAMES) for row in rows]
    np.testing.assert_allclose(sums, 1, atol=1e-5)
    bare = written(tmp_path / "bare.npz", IMAGES[:2])
    dispatch(["predict", str(model), "--input", str(bare), "--format", "jsonl"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["predicted"] for row in rows] == [answer.label for answer in answers[:2]]


def test_floats_in_the_unit_interval_are_the_same_images(model):
    opened = open_images(model, temperature=1)
    floats = (IMAGES[:9] / np.float32(255))[..., None]
    assert opened.classify(floats) == opened.classify(IMAGES[:9])


def test_what_the_model_cannot_read_is_refused(model, file, tmp_path):
    opened = open_images(model)
    with pytest.raises(UserError, match=r"uint8 \[2, 9, 9, 1\]; this model reads .*8, 8, 1"):
        opened.classify(np.zeros((2, 9, 9), np.uint8))
    with pytest.raises(UserError, match=r"must lie in \[0, 1\]"):
        opened.classify(np.full((1, 8, 8, 1), 2, np.float32))
    with pytest.raises(UserError, match="batch size must be at least 1"):
        opened.classify(IMAGES[:1], batch_size=0)
    for arguments, message in (
        ((), "name them with --input FILE.npz"),
        (("--input", str(tmp_path / "a.csv")), "unknown ending of --input 'a.csv' for images"),
        (("a text",), "texts is for texts"),
        (("--input", str(file), "--text-b", "x"), "text_b is for texts"),
        (("--input", str(tmp_path / "gone.npz")), "no file"),
    ):
        with pytest.raises(UserError, match=message):
            dispatch(["predict", str(model), *arguments])


def test_what_is_for_texts_says_so_of_images(model):
    with pytest.raises(UserError, match="has a classifier of images; exports are of"):
        dispatch(["export", str(model), "--format", "onnx"])


def test_data_shows_a_file_of_images_and_checks_it(file, capsys):
    dispatch(["data", f"images:{file}"])
    told = capsys.readouterr().out
    assert "train: " in told and "images of 8 x 8 x 1" in told
    assert "a fixed hash of each image decides its split" in told
    assert "all checks of training passed (teacher mlp-800-800)" in told
    with pytest.raises(UserError, match=r"does not fit teacher .*images are given to a model of"):
        dispatch(["data", f"images:{file}", "--teacher", "minilm-l12"])
