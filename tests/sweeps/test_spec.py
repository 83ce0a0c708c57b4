"""The description of a table: kept as JSON, it puts runs where they stand."""

import dataclasses
import io
import json

import pytest
from rich.console import Console
from samples import sample_run, sample_runs, sample_spec, sample_teacher

from distill_jax.core.errors import UserError
from distill_jax.sweeps.latex import to_latex
from distill_jax.sweeps.spec import Place, TableSpec, place_rows, table_of
from distill_jax.sweeps.terminal import TerminalTable
from distill_jax.sweeps.trends import best_of, difference, ordering


def test_json_and_back():
    spec = sample_spec(
        sample_runs(),
        [sample_teacher()],
        layout="grid",
        published="kim2021",
        tested=(),
        trends=(
            ordering("rises", [("kl", "l2"), ("ce", "l2")]),
            difference("好", best_of([("kl", "l2"), ("ce", "l2")]), ("ce", "l2"), margin=0.01),
        ),
    )
    assert TableSpec.from_json(spec.to_json()) == spec
    assert "好" in spec.to_json()


def test_what_may_be_left_out():
    fields = json.loads(sample_spec(sample_runs()).to_json())
    for name in ("teachers", "tested", "group_title", "published", "trends", "protocol"):
        del fields[name]
    assert TableSpec.from_json(json.dumps(fields)) == sample_spec(sample_runs(), protocol=())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"columns": 3}',
        sample_spec(sample_runs()).to_json().replace('"seed"', '"sede"', 1),
        sample_spec(sample_runs()).to_json().replace('"name"', '"nmae"', 1),
    ],
)
def test_damage_is_told_in_one_line(text):
    with pytest.raises(UserError, match="not the description of a table") as error:
        TableSpec.from_json(text)
    assert "\n" not in str(error.value)


def test_bad_descriptions():
    with pytest.raises(UserError, match=r"unknown layout 'gird'.*Did you mean 'grid'"):
        sample_spec(sample_runs(), layout="gird")
    with pytest.raises(UserError, match="no columns"):
        sample_spec(sample_runs(), columns=())
    run = sample_run("ce", "tiny", 0)
    twice = (Place("ce", "tiny", 0, run.hash), Place("ce", "tiny", 1, run.hash))
    with pytest.raises(UserError, match="one run stands at two seeds"):
        sample_spec([], places=twice)


def test_a_run_at_several_places_takes_their_labels():
    run = sample_run("old row", "old group", 7)
    places = [Place("a", "x", 0, run.hash), Place("b", "y", 1, run.hash), Place("c", "z", 0, "no")]
    placed = place_rows(places, [sample_run("other", "other", 1), run])
    assert [(p.row, p.group, p.seed, p.hash) for p in placed] == [
        ("a", "x", 0, run.hash),
        ("b", "y", 1, run.hash),
    ]
    assert placed[0].metrics is run.metrics


def test_unfinished_runs_are_missing_and_counted():
    runs = sample_runs()
    spec = sample_spec(runs, [sample_teacher()])
    table = table_of(spec, [run for run in runs if run.row != "kl"])
    assert [(row.group, row.row) for row in table.students] == list(
        dict.fromkeys((p.group, p.row) for p in spec.places)
    )
    assert {row.row for row in table.students if not row.runs} == {"kl"}
    assert table.notes[0] == "7 of 19 runs are not finished."
    assert "not finished" not in " ".join(table_of(spec, [*runs, sample_teacher()]).notes)


def test_runs_of_other_tables_do_not_enter():
    runs = sample_runs()
    stray = sample_run("kl", "tiny", 9, 0.99)
    assert table_of(sample_spec(runs), [*runs, stray]) == table_of(sample_spec(runs), runs)


def test_teachers_of_one_group_are_no_replicates():
    runs = sample_runs(groups=("tiny",))
    first, second = sample_teacher("tiny"), dataclasses.replace(sample_teacher("tiny"), hash="t2")
    table = table_of(sample_spec(runs, [first, second]), [*runs, first, second])
    assert [(row.row, len(row.runs)) for row in table.teachers] == [
        ("teacher", 1),
        ("teacher 2", 1),
    ]


def test_nothing_finished():
    with pytest.raises(UserError, match="no finished run"):
        table_of(sample_spec(sample_runs()), [])


def test_the_protocol_stands_under_the_table_in_every_form():
    runs = sample_runs()
    table = table_of(sample_spec(runs, protocol=("All items | compete.",)), runs)
    console = Console(file=io.StringIO(), width=120)
    console.print(TerminalTable(table))
    assert "All items | compete." in console.file.getvalue()
    assert "- All items \\| compete.\n- Mean ±" in table.to_markdown()
    assert r"compete.\par" in to_latex(table)
