"""Any bytes in files of tags, intents and questions: a data set, or one line that says where."""

import json
import logging

import pytest
from damages import damaged, damaged_json, told
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distill_jax.tasks.classification.cells import DataConfig
from distill_jax.tasks.classification.splits import prepare_texts

CONLL = "".join(f"the\tO\ngood\tB-x\nfilm\tI-x\n{n}\tO\n\n" for n in range(12))
ROW = {"tokens": ["the", "good", "film"], "tags": ["O", "B-x", "I-x"], "intent": "a"}
ROWS = [{**ROW, "tokens": [str(n), "good", "film"], "intent": "ab"[n % 2]} for n in range(12)]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS)
QUESTION = {"id": "1", "question": "is it good", "answers": [{"text": "good", "answer_start": 4}]}
PARAGRAPHS = [
    {"context": f"the good film {n}", "qas": [{**QUESTION, "id": str(n)}]} for n in range(12)
]
SQUAD = json.dumps({"data": [{"title": "t", "paragraphs": PARAGRAPHS}]})
FILES = {
    "tags": ("conll", CONLL),
    "intent_slots": ("jsonl", JSONL),
    "spans": ("json", SQUAD),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("token_data")


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("distill_jax").setLevel(logging.ERROR)
    yield
    logging.getLogger("distill_jax").setLevel(logging.NOTSET)


def load(folder, toy_teacher, task, ending, **contents):
    """Reads the files and goes on to what is trained on."""
    for old in folder.iterdir():
        old.unlink()
    for stem, data in contents.items():
        (folder / f"{stem}.{ending}").write_bytes(data)
    config = DataConfig(f"files:{folder}", label_fraction=1.0, max_length=24, task=task)
    splits = prepare_texts(config, config.kind.load(config), toy_teacher / "tokenizer.json")
    assert len(splits.digest) == 16
    for table in (splits.everything, splits.validation, splits.test):
        assert len(table.aside) == len(table)
        assert len(table.targets_S) == table.offsets_N1[-1]


@settings(max_examples=60)
@given(st.sampled_from(sorted(FILES)), st.sampled_from(["train", "dev", "test"]), st.data())
def test_files_with_damage(folder, toy_teacher, task, split, data):
    ending, text = FILES[task]
    contents = {name: text.encode() for name in ("train", "dev", "test")}
    contents[split] = data.draw(damaged(text.encode()))
    told(lambda: load(folder, toy_teacher, task, ending, **contents))


@settings(max_examples=40)
@given(st.sampled_from(sorted(FILES)), st.binary(max_size=60))
@example("tags", b"a\tB-x\n" * 3)
@example("tags", b"\xff\xfea\x00\t\x00O\x00")
@example("intent_slots", b'{"tokens": ["\\ud800"], "tags": ["B-\\ud800"], "intent": "a"}')
@example("intent_slots", b'{"tokens": ["a"], "tags": ["B-\\ud800"], "intent": "\\udfff"}')
@example("spans", b'{"data": [{"paragraphs": [{"context": "\\ud800", "qas": []}]}]}')
@example("spans", b'{"data": [{"paragraphs": 3}]}')
def test_any_bytes(folder, toy_teacher, task, data):
    ending, text = FILES[task]
    told(lambda: load(folder, toy_teacher, task, ending, train=data, dev=text.encode()))
    told(lambda: load(folder, toy_teacher, task, ending, train=text.encode(), dev=data))


@settings(max_examples=40)
@given(st.lists(damaged_json(ROWS[0]), min_size=1, max_size=3))
def test_rows_of_any_json(folder, toy_teacher, rows):
    text = JSONL + "".join(json.dumps(row) + "\n" for row in rows)
    contents = {"train": text.encode(), "dev": text.encode()}
    told(lambda: load(folder, toy_teacher, "intent_slots", "jsonl", **contents))


@settings(max_examples=40)
@given(damaged_json({"data": [{"paragraphs": PARAGRAPHS[:2]}]}))
def test_questions_of_any_json(folder, toy_teacher, value):
    told(lambda: load(folder, toy_teacher, "spans", "json", train=json.dumps(value).encode()))
