"""Files of predictions: the forms that are read, what of them is refused, and in which words."""

import csv
import io
import json
import zipfile

import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.teachers.predictions import LEAST, read_predictions, write_predictions

ROWS = {"a": (0.9, 0.1), "b": (0.25, 0.75), "c": (0.0, 1.0)}
NAMES = ("neg", "pos")


def csv_of(rows):
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def wide(prefix="", rows=ROWS):
    return [
        {"id": key, **{prefix + n: p for n, p in zip(NAMES, said, strict=True)}}
        for key, said in rows.items()
    ]


def objects(kind="probabilities"):
    return "\n".join(
        json.dumps({"id": key, kind: dict(zip(NAMES, said, strict=True))})
        for key, said in ROWS.items()
    )


@pytest.fixture
def written(tmp_path):
    def write(text, name="said.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (csv_of(wide()), "said.csv"),
        (csv_of([{**row, "split": "train", "sentence": "so"} for row in wide()]), "said.csv"),
        (csv_of([{**row, "predicted": "?"} for row in wide("probability of ")]), "said.csv"),
        (csv_of(wide()).replace(",", "\t"), "said.tsv"),
        (json.dumps(wide()), "said.json"),
        (objects(), "said.jsonl"),
    ],
)
def test_the_forms_of_probabilities(written, text, name):
    said = read_predictions(written(text, name))
    assert (said.by, said.keys, said.names) == ("id", ("a", "b", "c"), NAMES)
    assert said.kind == "probabilities"
    logits_NC = said.logits([1, 0], "spread")
    swapped_NC = np.array([said[::-1] for said in ROWS.values()])
    np.testing.assert_allclose(logits_NC, np.log(np.maximum(swapped_NC, LEAST)), rtol=1e-6)
    assert logits_NC.dtype == np.float32 and np.isfinite(logits_NC).all()


@pytest.mark.parametrize(
    ("text", "name"),
    [(csv_of(wide("logit_", {"a": (-3.0, 2.5)})), "said.csv"), (objects("logits"), "x.jsonl")],
)
def test_logits_are_kept_as_they_are(written, text, name):
    said = read_predictions(written(text, name))
    assert said.kind == "logits"
    np.testing.assert_array_equal(said.logits([0, 1], "drop"), said.values_NC.astype(np.float32))


def test_arrays_are_written_and_read_back(tmp_path):
    values_NC = np.float32([[0.5, -1.5], [3.0, 0.0]])
    write_predictions(tmp_path / "said.npz", ["x", "y"], NAMES, values_NC, "logits")
    said = read_predictions(tmp_path / "said.npz")
    assert (said.keys, said.names, said.kind) == (("x", "y"), NAMES, "logits")
    np.testing.assert_array_equal(said.logits([0, 1], "spread"), values_NC)


@pytest.mark.parametrize(("tail", "others"), [("spread", 0.1), ("drop", LEAST)])
def test_the_tail_of_the_likeliest_classes(written, tail, others):
    row = {"id": "a", "label_1": "joy", "probability_1": 0.5, "label_2": "fear"}
    rows = [
        {**row, "probability_2": 0.3},
        {"id": "b", "label_1": "fear", "probability_1": 1.0, "label_2": "", "probability_2": ""},
    ]
    said = read_predictions(written(csv_of(rows)))
    assert said.names == ("joy", "fear") and said.most_named == 2
    logits_NC = said.logits([0, 1, None, None], tail)
    np.testing.assert_allclose(np.exp(logits_NC[0]), [0.5, 0.3, others, others], rtol=1e-5)
    np.testing.assert_allclose(np.exp(logits_NC[1]), [LEAST, 1, LEAST, LEAST], rtol=1e-5)


def test_texts_are_keys_where_there_are_no_ids(written):
    rows = [
        {"sentence": "so", "second": "what", "neg": 0.5, "pos": 0.5},
        {"sentence": "so", "second": "what", "neg": 0.5, "pos": 0.5},
        {"sentence": "so", "second": "there", "neg": 0.1, "pos": 0.9},
    ]
    said = read_predictions(written(csv_of(rows)), text_b="second")
    assert (said.by, said.keys) == ("text", (("so", "what"), ("so", "there")))
    rows[1]["neg"], rows[1]["pos"] = 0.4, 0.6
    with pytest.raises(UserError, match=r"line 3: .*stands at .*line 2 too"):
        read_predictions(written(csv_of(rows)), text_b="second")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("id,neg,pos\n", "no rows"),
        ("id,neg,pos\na,0.5,0.6\n", r"line 2: the probabilities sum to 1.1; expected 1"),
        ("id,neg,pos\na,0.5,0.5\nb,-1,2\n", r"line 3: -1 is no probability; logits .*logit_CLASS"),
        ("id,neg,pos\na,nan,1\n", r"line 2: column 'neg' holds 'nan'; expected a finite number"),
        ("id,neg,pos\na,,1\n", r"line 2: column 'neg' holds ''"),
        ("id,neg,pos\na,0.5,0.5\na,0.5,0.5\n", r"line 3: 'a' stands at .*line 2 too"),
        ("id,neg,pos\n,0.5,0.5\n", r"line 2: column 'id' is empty"),
        ("id,neg\na,1\n", "expected one for each class"),
        ("word,neg,pos\na,0.5,0.5\n", r"neither a column 'id' nor sentence.*data --ids"),
        ("id,label_1,probability_1\na,joy,1.2\n", "line 2: 1.2 is no probability"),
        (
            "id,label_1,probability_1,label_2,probability_2\na,x,0.7,y,0.7\n",
            "sum to 1.4; expected at most 1",
        ),
        ("id,label_1,probability_1,label_2,probability_2\na,x,0.5,x,0.5\n", "'x' is named twice"),
        ("id,label_1,probability_1\na,,\n", "no class is named"),
    ],
)
def test_what_is_no_prediction_is_refused(written, text, message):
    with pytest.raises(UserError, match=message):
        read_predictions(written(text))


def test_objects_that_are_none(written):
    lines = ['{"id": 1, "logits": {"neg": 0.5, "pos": true}}', '{"id": 2, "logits": {}}']
    with pytest.raises(UserError, match=r"'logits.pos' holds True"):
        read_predictions(written(lines[0], "said.jsonl"))
    whole = '{"id": 1, "logits": {"neg": 0.5, "pos": 1}}\n'
    with pytest.raises(UserError, match=r"line 2: expected 'logits' to be an object"):
        read_predictions(written(whole + lines[1], "said.jsonl"))
    partly = '{"id": 2, "logits": {"neg": 0.5}}'
    with pytest.raises(UserError, match=r"line 2: logits of some classes only"):
        read_predictions(written(whole + partly, "said.jsonl"))


def arrays(**changes):
    fields = {"ids": np.array(["a"]), "label_names": np.array(NAMES), "logits": np.zeros((1, 2))}
    fields |= changes
    file = io.BytesIO()
    np.savez(file, **{name: value for name, value in fields.items() if value is not None})
    return file.getvalue()


def damaged_arrays():
    """A packed array, with another first byte."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("ids.npy", b"none of it is read" * 9)
    data = bytearray(file.getvalue())
    data[30 + len("ids.npy")] = 0xFF
    return bytes(data)


def newer_arrays():
    """Whose first entry asks for a version of ZIP that nobody reads."""
    data = bytearray(arrays())
    data[data.index(b"PK\x01\x02") + 6] = 0xF0
    return bytes(data)


def single_array():
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK no zip", "no whole npz"),
        (arrays()[:-40], "no whole npz"),
        (damaged_arrays(), "no whole npz file of plain arrays: Error -3"),
        (newer_arrays(), "zip file version"),
        (single_array(), "no whole npz"),
        (arrays(ids=np.array([{"a": 1}], dtype=object)), "no whole npz file of plain arrays"),
        (arrays(ids=None), "has label_names, logits; expected ids"),
        (arrays(logits=np.zeros((2, 2))), r"shape \(2, 2\) for 1 examples and 2 classes"),
        (arrays(logits=np.array([[np.inf, 0.0]])), "row 0: expected finite numbers"),
        (arrays(logits=np.zeros((1, 2), int)), "numbers with a point"),
        (arrays(probabilities=np.array([[0.5, 0.4]])), "row 0: the probabilities sum to 0.9"),
        (arrays(label_names=np.array(["neg", "neg"])), "and 1 classes"),
    ],
)
def test_arrays_that_are_none(tmp_path, data, message):
    path = tmp_path / "said.npz"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message):
        read_predictions(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="no file of predictions at"):
        read_predictions(tmp_path / "said.csv")
