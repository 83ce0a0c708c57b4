"""Layouts: blocks of metrics and grids, with published numbers beside the measured ones."""

import dataclasses
import math

import pytest
from samples import sample_run, sample_runs, sample_spec, sample_teacher

from distill_jax.tables.build import table_of
from distill_jax.tables.markdown import escape, to_markdown
from distill_jax.tables.published import parse_published
from distill_jax.tables.sheet import MISSING, every_test, sheets_of, sources_of

PUBLISHED = parse_published(
    """
title = "A paper"
task = "toy"
source = "Somebody 2020"
columns = ["tiny", "huge"]
remarks = ["An erratum: `x`."]
[papers]
a = "Somebody 2020"
[[numbers]]
row = "kl"
column = "tiny"
value = 71.0
spread = 0.4
metric = "accuracy"
split = "test"
paper = "a"
table = "Table 1"
read_in = "the paper"
[[numbers]]
row = "their own"
column = "huge"
value = 80.25
metric = "accuracy"
split = "dev"
paper = "a"
table = "Table 2"
read_in = "the paper"
remark = "best run"
""",
    where="test",
)


def texts(sheet):
    return [[cell.text for cell in line.cells] for line in sheet.lines]


def tabulate(runs, teachers=(), published=None, **changes):
    spec = sample_spec(runs, teachers, **changes)
    return table_of(spec, [*runs, *teachers], published)


def test_metrics_show_difference_and_both_p_values():
    table = tabulate(sample_runs(), [sample_teacher()])
    (sheet,) = sheets_of(table)
    assert sheet.heading == (
        *("student", "objective", "seeds", "accuracy %", "Δ [95%]", "p"),
        *("p seeds", "p examples", "run (s)"),
    )
    teacher, ce, kl, *_ = texts(sheet)
    assert teacher == ["minilm", "teacher", "1", "80.0", *[MISSING] * 4, "20"]
    assert ce[:3] == ["tiny", "ce", "3"] and ce[4:8] == [MISSING] * 4 and ce[8] == "21"
    test = table.rows[2].entries["test/accuracy"].tests.joint
    assert kl[4] == (
        f"{100 * test.difference:+.1f} [{100 * test.low:+.1f}, {100 * test.high:+.1f}]"
    )
    bold = {line.cells[1].text for line in sheet.lines if line.cells[3].bold}
    assert bold == {"kl", "0.9*kl(T=4) + 0.1*ce"}
    assert [line.section for line in sheet.lines] == [
        "teacher",
        *["group tiny"] * 3,
        *["group l2"] * 3,
    ]


def test_grid_by_hand():
    runs = [run for run in sample_runs() if (run.row, run.group) != ("kl", "l2")]
    table = tabulate(runs, [sample_teacher()], layout="grid")
    (sheet,) = sheets_of(table)
    assert sheet.heading == ("objective", "tiny", "l2")
    assert [line[0] for line in texts(sheet)] == ["ce", "kl", "0.9*kl(T=4) + 0.1*ce"]
    assert texts(sheet)[1][2] == ""  # never planned
    assert sheet.lead == (
        "accuracy %, by objective (rows) and student (columns).",
        "teacher minilm: 80.0",
    )
    for line in sheet.lines:
        for group, cell in zip(("tiny", "l2"), line.cells[1:], strict=True):
            rows = [r for r in table.rows if (r.row, r.group) == (line.cells[0].text, group)]
            if rows:
                entry = rows[0].entries["test/accuracy"]
                mean, sd = 100 * entry.summary.mean, 100 * entry.summary.sd
                assert cell.text == f"{mean:.1f} ± {sd:.1f}"
                assert cell.bold == entry.bold(True)
    assert [[c.bold for c in line.cells] for line in sheet.lines][2] == [False, True, True]


def test_a_grid_shows_what_is_missing_and_what_is_incomplete():
    runs = sample_runs()
    spec = sample_spec(runs, layout="grid")
    finished = [r for r in runs if r.group == "tiny" or (r.row, r.seed) == ("ce", 0)]
    (sheet,) = sheets_of(table_of(spec, finished))
    assert [line[2] for line in texts(sheet)] == [
        f"{100 * finished[-1].metrics['test/accuracy']:.1f} (n=1)",
        MISSING,
        MISSING,
    ]


def test_teachers_of_the_grids_groups_are_a_row_of_it():
    runs = sample_runs()
    teachers = [sample_teacher("tiny"), sample_teacher("l2")]
    (sheet,) = sheets_of(tabulate(runs, teachers, layout="grid"))
    assert texts(sheet)[0] == ["teacher", "80.0", "80.0"]
    assert sheet.lines[0].section != sheet.lines[1].section and len(sheet.lead) == 1


def test_a_grid_of_many_groups_is_turned_round():
    groups = tuple(f"g{i}" for i in range(9))
    runs = sample_runs(groups, ("ce", "kl"))
    teachers = [sample_teacher("g3")]
    table = tabulate(runs, teachers, layout="grid")
    (sheet,) = sheets_of(table)
    assert sheet.heading == ("student", "teacher", "ce", "kl")
    assert sheet.lead == ("accuracy %, by student (rows) and objective (columns).",)
    assert [line[0] for line in texts(sheet)] == list(groups)
    assert [line[1] for line in texts(sheet)] == ["", "", "", "80.0", *[""] * 5]
    rows = {(row.row, row.group): row.entries["test/accuracy"] for row in table.students}
    for line in sheet.lines:
        entry = rows["kl", line.cells[0].text]
        assert line.cells[3].text.startswith(f"{100 * entry.summary.mean:.1f} ±")
        assert line.cells[3].bold == entry.bold(True)
    crowded = sample_runs(groups, tuple(["ce", *map(str, range(9))]), seeds=1)
    assert sheets_of(tabulate(crowded, layout="grid"))[0].heading == ("objective", *groups)


def test_a_row_stands_beside_the_published_row_that_it_names():
    table = tabulate(sample_runs(), published=PUBLISHED, published_rows=(("ce", "their own"),))
    (main,) = sheets_of(table)
    by_row = {line.cells[1].text: [cell.text for cell in line.cells[-2:]] for line in main.lines}
    assert by_row["ce"] == [MISSING, "80.25"]
    assert by_row["kl"] == ["71.0 ± 0.4", MISSING]
    assert "`ce` is their own" in " ".join(table.notes)


def test_published_numbers_are_columns_of_their_own_and_never_bold():
    table = tabulate(sample_runs(), published=PUBLISHED)
    main, beside = sheets_of(table)
    assert main.heading[-2:] == ("A paper: tiny", "A paper: huge")
    by_row = {line.cells[1].text: line.cells[-2:] for line in main.lines}
    assert [cell.text for cell in by_row["kl"]] == ["71.0 ± 0.4", MISSING]
    assert [cell.text for cell in by_row["ce"]] == [MISSING, MISSING]
    assert not any(cell.bold for cells in by_row.values() for cell in cells)
    assert texts(beside) == [["their own", MISSING, "80.25"]]
    notes = " ".join(table.notes)
    assert "as published (Somebody 2020), not measured here" in notes
    assert "An erratum" in notes and "their own (huge), 80.25: best run" in notes
    unpublished = tabulate(sample_runs())
    assert [row.entries for row in table.rows] == [row.entries for row in unpublished.rows]


def test_published_numbers_stand_below_a_grid():
    main, beside = sheets_of(tabulate(sample_runs(), published=PUBLISHED, layout="grid"))
    assert main.heading == ("objective", "tiny", "l2")
    assert beside.heading == ("objective", "tiny", "huge")
    assert texts(beside) == [["kl", "71.0 ± 0.4", MISSING], ["their own", MISSING, "80.25"]]
    assert "Somebody 2020" in beside.lead[0]


def test_rows_that_match_nothing_add_no_empty_columns():
    published = dataclasses.replace(PUBLISHED, numbers=PUBLISHED.numbers[1:])
    main, beside = sheets_of(tabulate(sample_runs(), published=published))
    assert main.heading[-1] == "run (s)" and len(beside.lines) == 1


def test_sources_are_listed():
    sheet = sources_of(PUBLISHED)
    assert texts(sheet)[1] == [
        *("their own", "huge", "accuracy", "dev", "Somebody 2020", "Table 2", "the paper"),
        "best run",
    ]
    assert all(len(line.cells) == len(sheet.heading) for line in sheet.lines)


def test_every_test_in_numbers():
    table = tabulate(sample_runs(), layout="grid")
    sheet = every_test(table)
    assert len(sheet.lines) == 4  # 2 rows against ce in 2 groups
    assert all(len(line.cells) == len(sheet.heading) for line in sheet.lines)
    assert texts(sheet)[0][:4] == ["tiny", "kl − ce", "accuracy %", "3"]
    assert every_test(tabulate(sample_runs(seeds=2))) is None


def test_a_grid_of_one_diverged_run():
    runs = [sample_run("ce", "tiny", 0, math.nan)]
    (sheet,) = sheets_of(tabulate(runs, layout="grid"))
    assert texts(sheet) == [["ce", "nan"]]


@pytest.mark.parametrize(
    ("text", "escaped"),
    [("a*b|c", r"a\*b\|c"), ("<0.001", "<0.001"), ("<b>", r"\<b>"), ("x\ny", "x y"), ("\\", r"\\")],
)
def test_markdown_escapes(text, escaped):
    assert escape(text) == escaped


@pytest.mark.parametrize("layout", ["metrics", "grid"])
def test_markdown_lines_have_as_many_cells_as_the_heading(layout):
    text = to_markdown(
        tabulate(sample_runs(rows=("ce", "a | b")), [sample_teacher()], PUBLISHED, layout=layout)
    )
    blocks = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 2
    for block in blocks:
        counts = {line.replace(r"\|", "").count("|") for line in block.splitlines()}
        assert len(counts) == 1
