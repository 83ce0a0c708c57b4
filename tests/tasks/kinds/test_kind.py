"""The seam: kinds by name, words of --select, what classes were before there were kinds."""

import pytest

from distill_jax.core.errors import UserError
from distill_jax.tasks.classification.cells import (
    ClassifierSetup,
    DataConfig,
    TeacherConfig,
    TrainingConfig,
)
from distill_jax.tasks.kinds.kind import register
from distill_jax.tasks.kinds.kinds import all_names, kind_named


def test_kinds_by_name():
    assert all_names()[0] == "classes" == DataConfig().kind.name
    assert {"classes", "number", "labels"} <= set(all_names())
    with pytest.raises(UserError, match=r"unknown task 'nummber'.*Did you mean 'number'"):
        DataConfig(task="nummber")


@pytest.mark.parametrize("name", all_names())
def test_what_a_kind_promises(name):
    kind = kind_named(name)
    keys = {column.key for column in kind.columns}
    assert set(kind.tested) <= keys
    assert kind.columns[0].higher_is_better and kind.main in kind.decides.values()
    assert set(kind.lower) <= set(kind.decides.values()) and kind.alone == kind.rows[0]
    assert kind.decides["loss"] in kind.lower
    with pytest.raises(ValueError, match=name):
        register(kind)


def test_words_of_select():
    classes = kind_named("classes")
    assert classes.metric_of("macro-F1") == classes.metric_of("macro_f1") == "macro_f1"
    assert classes.metric_of("loss") == "nll"
    with pytest.raises(UserError, match=r"'macro' \(task classes\).*'macro_f1'"):
        classes.metric_of("macro")
    with pytest.raises(UserError, match=r"'accuracy' \(task number\).*loss, mse, pearson"):
        ClassifierSetup(DataConfig(task="number"))
    teacher = TeacherConfig(training=TrainingConfig(select="pearson"))
    assert ClassifierSetup(DataConfig(task="number"), teacher).kind.name == "number"


def test_what_is_for_classes_is_refused():
    with pytest.raises(UserError, match="both texts of a pair would be those of column 'a'"):
        DataConfig(text="a", text_b="a")
    with pytest.raises(UserError, match="label noise is for classes, not for task number"):
        DataConfig(task="number", label_noise=0.1)
    with pytest.raises(UserError, match="separator must be more than white space"):
        DataConfig(task="labels", label_separator=" ")


@pytest.mark.parametrize(
    ("columns", "file", "content", "texts"),
    [
        ({"text": "review"}, "transfer.csv", "review\na film\n", (("a film",), None)),
        ({"task": "number"}, "train.csv", "sentence,label\na film,x\n", (("a film",), None)),
        ({"task": "labels"}, "transfer.txt", "a film\n", (("a film",), None)),
        ({"text_b": "b"}, "train.csv", "sentence,b\none,two\n", (("one",), ("two",))),
        ({"task": "tags"}, "train.jsonl", '{"tokens": ["a", "film"]}', (("a film",), None)),
        ({"task": "intent_slots"}, "train.conll", "a\tB-x\nfilm\tO\n", (("a film",), None)),
        (
            {"task": "relations"},
            "train.jsonl",
            '{"tokens": ["a", "film"], "subject": [0, 1], "object": [1, 2], "relation": "none"}',
            (("@ a @ # film #",), None),
        ),
    ],
)
def test_texts_of_other_files_come_in_the_columns_of_the_data(
    tmp_path, columns, file, content, texts
):
    """No label is read, and none need be there; nor need validation or test."""
    (tmp_path / file).write_text(content)
    data = DataConfig(**columns)
    table = data.kind.load_more(data, f"files:{tmp_path}").splits["train"]
    assert (table.texts, table.texts_b) == texts and table.labels_N is None


@pytest.mark.parametrize("task", ["spans", "relations"])
def test_texts_that_ask_nothing_are_refused(task):
    data = DataConfig(task=task)
    with pytest.raises(UserError, match=r"'review_snippets/movie' has no (questions|relations)"):
        data.kind.load_more(data, "review_snippets/movie")
