"""Tags in files: CoNLL columns and JSONL, checked and mended."""

import json

import pytest

from distill_jax.core.errors import UserError
from distill_jax.data.load import load_dataset
from distill_jax.data.tags import (
    IntentTagColumn,
    TagColumn,
    number_of_tags,
    read_tag,
    repaired,
    tag_order,
    with_sound_tags,
)

TRAIN = "Emma\tB-per\nsang\tO\n\nin\tO\nNew\tB-loc\nYork\tI-loc\n\n"
DEV = "York\tI-loc\nYork\tI-loc\n\n"
TEST = "Emma\tB-per,B-loc\nsang\tO\n\n"


def folder(tmp_path, **files):
    for name, text in files.items():
        stem, _, ending = name.rpartition("_")
        (tmp_path / f"{stem}.{ending}").write_text(text, encoding="utf-8")
    return f"files:{tmp_path}"


def load(spec, labels=None, **columns):
    names = {"text": "tokens", "label": "tags", **columns}
    return with_sound_tags(load_dataset(spec, labels=labels or TagColumn(), **names))


def test_columns_become_sentences_and_tags(tmp_path):
    data = load(folder(tmp_path, train_conll=TRAIN, dev_conll=DEV, test_conll=TEST))
    assert data.label_names == ("O", "B-loc", "I-loc", "B-per", "I-per")
    assert data.splits["train"].texts == ("Emma sang", "in New York")
    assert data.splits["train"].targets == (("B-per", "O"), ("O", "B-loc", "I-loc"))
    assert data.splits["validation"].targets == (("B-loc", "I-loc"),)
    assert data.splits["test"].targets == (("B-per", "O"),)
    notes = " | ".join(data.notes)
    assert "several joined by commas: the first counts (test 1)" in notes
    assert "read as B-TYPE, as conlleval does (validation 1)" in notes


def rows(*sentences):
    return "".join(json.dumps(each) + "\n" for each in sentences)


def test_jsonl_has_lists_or_text(tmp_path):
    train = rows(
        {"tokens": ["Emma", "sang"], "tags": ["B-per", "O"]},
        {"tokens": "in York", "tags": "O B-per"},
        {"tokens": ["no", "tags"]},
    )
    test = rows({"tokens": ["Emma"], "tags": ["B-per"]})
    data = load(folder(tmp_path, train_jsonl=train, dev_jsonl=test, test_jsonl=test))
    assert data.splits["train"].targets == (("B-per", "O"), ("O", "B-per"), None)
    assert data.splits["train"].labels_N.tolist() == [0, 0, -1]
    assert any("1 of 3 train rows have no label: transfer set" in note for note in data.notes)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, r"line 2: column 'tags' has 1 tags for 2 words"),
        (
            {"tokens": ["a"], "tags": ["S-per"]},
            r"line 2: word 'a': unknown tag 'S-per'; allowed: O",
        ),
        ({"tokens": ["a b"], "tags": ["O"]}, r"line 2: column 'tokens': word 0 is 'a b'"),
        ({"tokens": [], "tags": []}, r"line 2: expected text in column 'tokens'"),
        ({"tokens": ["a"], "tags": 3}, r"has no tags for 1 words"),
    ],
)
def test_faults_name_file_and_line(tmp_path, row, told):
    good = {"tokens": ["Emma"], "tags": ["B-per"]}
    spec = folder(tmp_path, train_jsonl=rows(good, row), test_jsonl=rows(good))
    with pytest.raises(UserError, match=told):
        load(spec)


def test_a_type_that_train_does_not_have_is_refused(tmp_path):
    spec = folder(tmp_path, train_conll=TRAIN, dev_conll=DEV, test_conll="x\tO\n\nx\tB-pers\n")
    with pytest.raises(UserError, match=r"unknown tag 'B-pers' in .*line 3.*mean 'B-per'"):
        load(spec)


def test_no_entity_at_all_is_refused(tmp_path):
    spec = folder(tmp_path, train_conll="a\tO\n\nb\tO\n", test_conll="a\tO\n")
    with pytest.raises(UserError, match="no entity in column 'tags'"):
        load(spec)


def test_what_goes_on_with_nothing_begins():
    assert repaired(["O", "I-a", "I-a", "I-b", "B-a", "I-a"]) == (
        ("O", "B-a", "I-a", "B-b", "B-a", "I-a"),
        2,
    )


def test_types_with_commas_are_not_several():
    assert read_tag("B-a,b", "here") == ("B-a,b", False)
    assert read_tag("I-a,B-b", "here") == ("I-a", True)
    assert tag_order({"I-b", "O", "B-a"}) == ("O", "B-a", "I-a", "B-b", "I-b")


def test_intents_stand_behind_the_tags(tmp_path):
    train = rows(
        {"tokens": ["play", "jazz"], "tags": ["O", "B-genre"], "intent": "Play"},
        {"tokens": ["rain", "?"], "tags": ["O", "O"], "intent": "Ask"},
        {"tokens": ["hm"]},
    )
    test = rows({"tokens": ["jazz"], "tags": ["B-genre"], "intent": "Play"})
    spec = folder(tmp_path, train_jsonl=train, dev_jsonl=test, test_jsonl=test)
    data = load(spec, IntentTagColumn())
    assert data.label_names == ("O", "B-genre", "I-genre", "Ask", "Play")
    assert number_of_tags(data.label_names) == 3
    assert data.splits["train"].labels_N.tolist() == [1, 0, -1]
    assert data.splits["train"].targets == (("O", "B-genre"), ("O", "O"), None)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"tokens": ["a"], "tags": ["O"]}, "'tags' without 'intent'"),
        ({"tokens": ["a"], "intent": "Ask"}, "'intent' without 'tags'"),
        (
            {"tokens": ["a"], "tags": ["O"], "intent": "B-x"},
            "an intent called 'B-x'; expected a name that is no tag",
        ),
        ({"tokens": ["a"], "tags": ["O"], "intent": ["x"]}, "column 'intent' holds"),
    ],
)
def test_intents_are_checked(tmp_path, row, told):
    good = [{"tokens": ["jazz"], "tags": ["B-genre"], "intent": name} for name in ("Play", "Ask")]
    spec = folder(tmp_path, train_jsonl=rows(*good, row), test_jsonl=rows(*good))
    with pytest.raises(UserError, match=told):
        load(spec, IntentTagColumn())


def test_wnut_is_read_whole(shared_data):
    data = load(f"files:{shared_data('wnut17')}")
    counts = {split: len(table) for split, table in data.splits.items()}
    assert counts == {"train": 3394, "validation": 1009, "test": 1287}
    assert len(data.label_names) == 13
    entities = sum(tag.startswith("B-") for own in data.splits["train"].targets for tag in own)
    assert entities == 1975


def test_snips_is_read_whole(shared_data):
    data = load(f"files:{shared_data('snips')}", IntentTagColumn())
    assert len(data.splits["test"]) == 700
    assert len(data.splits["train"]) + len(data.splits["validation"]) == 13784
    assert len(data.label_names) - number_of_tags(data.label_names) == 7
    again = load(f"files:{shared_data('snips')}", IntentTagColumn())
    assert again.digest == data.digest
