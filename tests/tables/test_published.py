"""Published numbers: every set is complete, sourced and consistent; mistakes in a set are found."""

import re
from pathlib import Path

import pytest

from distill_jax.core.errors import UserError
from distill_jax.tables.build import table_of
from distill_jax.tables.ledger import Ledger
from distill_jax.tables.published import load_published, names, parse_published
from distill_jax.tables.spec import TableSpec

SET = """
title = "A task, %"
task = "task"
source = "A 2020"
columns = ["dev", "test"]
remarks = ["differs"]
[papers]
a = "A et al. 2020"
[[numbers]]
row = "small"
column = "dev"
value = 91.5
metric = "accuracy"
split = "dev"
paper = "a"
table = "Table 1"
read_in = "README"
"""


def test_the_sets():
    assert names() == (
        "derrd_citeulike",
        "glue_sst2",
        "hinton2015",
        "kim2021",
        "tang2019",
        "wang2023",
    )


@pytest.mark.parametrize("name", names())
def test_every_number_says_where_it_comes_from(name):
    published = load_published(name)
    assert published.numbers and published.remarks and published.source and published.task
    for number in published.numbers:
        assert re.search(r"(19|20)\d\d", number.paper), number
        assert number.table and number.read_in and number.metric, number
        assert number.split in ("dev", "test")
        if number.column.startswith("errors"):
            assert number.value == int(number.value) > 0, "a count"
        elif number.column.endswith("@10"):
            assert 0 < number.value < 1, "a share"
        else:
            assert 50 < number.value < 100, "percent"
        assert number.column in published.columns


@pytest.mark.parametrize("name", names())
def test_columns_named_after_a_split_hold_that_split(name):
    for number in load_published(name).numbers:
        if number.column in ("dev", "test"):
            assert number.column == number.split


def test_rows_are_row_column_value():
    rows = load_published("glue_sst2").rows
    assert rows["DistilBERT 6x768"] == {"dev": 91.3, "test": 92.5}
    assert rows["BERT-Tiny 2x128"] == {"test": 83.2}
    assert next(iter(rows)).startswith("BERT-base")


def test_a_set_as_text():
    published = parse_published(SET, where="a.toml")
    assert published.rows == {"small": {"dev": 91.5}}
    assert published.numbers[0].paper == "A et al. 2020"
    assert published.remarks == ("differs",)


def test_unknown_set_names_the_near_one():
    with pytest.raises(UserError, match="Did you mean 'glue_sst2'"):
        load_published("glue_sst")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('read_in = "README"\n', "", "read_in"),
        ('read_in = "README"', 'read_in = ""', "does not say its read_in"),
        ('table = "Table 1"', 'table = ""', "does not say its table"),
        ('paper = "a"', 'paper = "b"', "unknown paper"),
        ('column = "dev"', 'column = "validation"', "unknown column"),
        ('split = "dev"', 'split = "train"', "unknown split"),
        ("value = 91.5", "value = nan", "not a number"),
        ('a = "A et al. 2020"', 'a = "A et al. 2020"\nb = "B 2021"', "no number is of B 2021"),
        ('title = "A task, %"', "", "title"),
        ('task = "task"', 'task = "task"\ntsk = "task"', "tsk"),
        ("[papers]", "[papers", "no set of published numbers"),
        (SET[SET.index("[[numbers]]") :], 2 * SET[SET.index("[[numbers]]") :], "two numbers"),
    ],
)
def test_mistakes_in_a_set(old, new, message):
    assert old in SET
    with pytest.raises(UserError, match=message):
        parse_published(SET.replace(old, new), where="a.toml")


def test_remarks_stand_beside_their_numbers_under_the_table():
    """First those on rows that the table has, by the name that they have here."""
    folder = Path(__file__).resolve().parents[2] / "experiments/results/glue_published"
    spec = TableSpec.from_json((folder / "table.json").read_text())
    notes = list(table_of(spec, Ledger(folder / "ledger.jsonl").rows()).notes)

    def index(*words):
        (found,) = [n for n, note in enumerate(notes) if all(word in note for word in words)]
        return found

    own = [
        index("`minilm-6x384-released`, there MiniLM 6x384 (dev), 91.5: ", "UniLM v2"),
        index("`distilbert`, there DistilBERT 6x768 (dev), 91.3: fine-tuned on labels"),
        index("`turc-mini`, there BERT-Mini 4x256 (test), 85.9: ", "fine-tuned on labels alone"),
        index("`tinybert-4`, there TinyBERT 4x312 (test), 92.6: trained on data augmented"),
    ]
    assert max(own) < index("MiniLM 12x384 (dev), 93.0: distilled from")
    assert any("none uses released weights" in line for line in spec.protocol)
