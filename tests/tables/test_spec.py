"""The description of a table: kept as JSON, it puts runs where they stand."""

import dataclasses
import io
import json
import math

import pytest
from rich.console import Console
from samples import place, sample_run, sample_runs, sample_spec, sample_teacher

from distill_jax.core.errors import UserError
from distill_jax.tables.build import place_rows, table_of
from distill_jax.tables.columns import COLUMNS
from distill_jax.tables.latex import to_latex
from distill_jax.tables.markdown import to_markdown
from distill_jax.tables.spec import Place, TableSpec
from distill_jax.tables.terminal import TerminalTable
from distill_jax.tables.trends import best_of, difference, ordering


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


def chosen_among(*candidates, group="tiny", row="ce, chosen", seeds=3):
    """(places, runs): name -> (validation score by seed, test score) of a row's settings."""
    places, runs = [], []
    for name, validation, test in candidates:
        for seed in range(seeds):
            run = sample_run(f"{row}: {name}", group, seed, test, hash=f"{name}/{seed}")
            score = validation[seed] if isinstance(validation, tuple) else validation
            metrics = {**run.metrics, "validation/accuracy": score}
            runs.append(dataclasses.replace(run, metrics=metrics))
            places.append(Place(row, group, seed, run.hash, name))
    return places, runs


def chosen_table(places, finished, **changes):
    base = sample_runs(groups=("tiny",), rows=("ce", "kl"))
    spec = sample_spec([], places=(*map(place, base), *places), **changes)
    assert TableSpec.from_json(spec.to_json()) == spec  # the ledger and this are all it takes
    return table_of(spec, [*base, *finished])


def test_of_a_rows_settings_the_best_on_validation_stands_there_whatever_the_test_says():
    places, runs = chosen_among(
        ("slow", (0.70, 0.60, 0.68), 0.99), ("fast", (0.69, 0.69, 0.67), 0.55), ("long", 0.65, 0.9)
    )
    table = chosen_table(places, runs)
    row = next(row for row in table.students if row.row == "ce, chosen")
    assert [run.hash for run in row.runs.values()] == ["fast/0", "fast/1", "fast/2"]
    assert [r.row for r in table.students] == ["ce", "kl", "ce, chosen"]
    assert table.notes[-1] == (
        "tiny `ce, chosen` is fast: of 3 settings the best by mean validation/accuracy, 68.3%. "
        "All settings, in %: slow: 66.0; fast: 68.3; long: 65.0."
    )
    swapped = [
        dataclasses.replace(run, metrics={**run.metrics, "test/accuracy": 1 - i / 9})
        for i, run in enumerate(runs)
    ]
    assert chosen_table(places, swapped).notes[-1] == table.notes[-1]


def test_nothing_is_chosen_before_all_settings_are_finished_or_where_none_is_finite():
    places, runs = chosen_among(("a", 0.7, 0.7), ("b", 0.6, 0.7))
    table = chosen_table(places, runs[:-1])
    row = next(row for row in table.students if row.row == "ce, chosen")
    assert not row.runs
    assert "1 of 12 runs are not finished." in table.notes
    assert table.unfinished == (1, 12)
    assert "not chosen yet" in table.notes[-1]
    places, runs = chosen_among(("a", math.nan, 0.7), ("b", 0.6, 0.7), ("c", (0.9, math.nan, 1), 1))
    assert "is b: of 3 settings" in chosen_table(places, runs).notes[-1]
    lost, runs = chosen_among(("a", math.nan, 0.7), ("b", math.nan, 0.7))
    assert "no setting has a finite validation/accuracy" in chosen_table(lost, runs).notes[-1]


def test_a_place_without_candidates_is_written_as_it_always_was():
    spec = sample_spec(sample_runs(), [sample_teacher()])
    assert "candidate" not in spec.to_json()
    run = sample_run("ce", "tiny", 0)
    several = [Place("ce", "tiny", 0, run.hash, name) for name in "ab"]
    assert sample_spec([], places=tuple(several)).hashes == (run.hash,)
    with pytest.raises(UserError, match="one run stands at two seeds"):
        sample_spec([], places=(several[0], dataclasses.replace(several[0], seed=1)))


def test_a_column_that_no_run_has_a_number_for_is_left_out():
    runs = sample_runs()
    calibrated = next(c for c in COLUMNS if c.key == "test/ece_calibrated")
    spec = sample_spec(runs, columns=(*sample_spec(runs).columns, calibrated))
    without = dataclasses.replace(table_of(sample_spec(runs), runs), spec=spec)
    assert table_of(spec, runs) == without
    one = dataclasses.replace(runs[0], metrics={**runs[0].metrics, "test/ece_calibrated": 0.031})
    table = table_of(spec, [one, *runs[1:]])
    assert [column.title for column in table.columns][-1] == "ECE % (T fitted)"
    assert "3.1 (n=1)" in to_markdown(table)
    first = sample_spec(runs, columns=(calibrated,), tested=())
    assert table_of(first, runs).columns == (calibrated,)


def test_nothing_finished():
    with pytest.raises(UserError, match="no finished run"):
        table_of(sample_spec(sample_runs()), [])


def test_the_protocol_stands_under_the_table_in_every_form():
    runs = sample_runs()
    table = table_of(sample_spec(runs, protocol=("All items | compete.",)), runs)
    console = Console(file=io.StringIO(), width=120)
    console.print(TerminalTable(table))
    assert "All items | compete." in console.file.getvalue()
    assert "- All items \\| compete.\n- Mean ±" in to_markdown(table)
    assert r"compete.\par" in to_latex(table)
