"""Tables: numbers by hand, pairing by seed, footnotes that say what was done, bad input."""

import csv
import dataclasses
import io
import math
import re

import numpy as np
import pytest
from rich.console import Console
from samples import place, sample_spec

from distill_jax.core.errors import UserError
from distill_jax.tables.build import table_of
from distill_jax.tables.columns import COLUMNS, Column
from distill_jax.tables.csv import to_csv
from distill_jax.tables.evidence import pack_correct
from distill_jax.tables.ledger import LedgerRow
from distill_jax.tables.markdown import to_markdown
from distill_jax.tables.sheet import sheets_of
from distill_jax.tables.spec import Place
from distill_jax.tables.statistics import holm, paired_test
from distill_jax.tables.terminal import TerminalTable

ACCURACY = Column("test/accuracy", "accuracy (%)", 100, 1, higher_is_better=True)
CE = [0.50, 0.52, 0.51, 0.49]
KL = [0.60, 0.63, 0.60, 0.60]
MSE = [0.51, 0.50, 0.53, 0.48]


def kept(accuracy):
    """Of a thousand test examples the first are right."""
    return pack_correct(np.arange(1000) < round(1000 * accuracy))


def run(row, seed, accuracy, *, group="tiny", **metrics):
    return LedgerRow(
        hash=f"{group}/{row}/{seed}/{accuracy}",
        experiment="compare",
        row=row,
        group=group,
        seed=seed,
        config={},
        metrics={"test/accuracy": accuracy, "parameters": 4_386_178, **metrics},
        selected_step=None,
        fingerprints={},
        code={},
        packages={},
        device="cpu",
        seconds={"train": 10.0 + seed},
        examples_per_second=None,
        finished_at="2026-01-02T03:04:05+00:00",
        test_correct=None if math.isnan(accuracy) else kept(accuracy),
    )


def runs(row, accuracies, *, group="tiny", seeds=None):
    seeds = seeds or range(len(accuracies))
    return [run(row, s, a, group=group) for s, a in zip(seeds, accuracies, strict=True)]


def everything():
    return [
        *runs("kl", KL),
        *runs("ce", CE),
        *runs("teacher", [0.786], group="minilm"),
        *runs("mse", MSE),
    ]


def build(rows, columns=(ACCURACY,), order=(), **changes):
    students = [row for row in rows if row.row != "teacher"]
    teachers = [row for row in rows if row.row == "teacher"]
    asked = [Place(row, group, 0, f"{group}/{row}") for group, row in order]
    changes |= {"columns": tuple(columns), "places": (*asked, *map(place, students))}
    return table_of(sample_spec(students, teachers, protocol=(), **changes), rows)


def cells(table):
    """The lines of the table as text."""
    return [[cell.text for cell in line.cells] for line in sheets_of(table)[0].lines]


def entry(table, row, group="tiny", key="test/accuracy"):
    return next(r for r in table.rows if (r.row, r.group) == (row, group)).entries[key]


def test_tests_are_paired_by_seed_and_corrected_over_the_rows():
    table = build([*reversed(runs("kl", KL)), *runs("ce", CE), *runs("mse", MSE)])
    ce, kl, mse = (dict(enumerate(scores)) for scores in (CE, KL, MSE))
    raw = [paired_test(kl, ce).p, paired_test(mse, ce).p]
    assert [entry(table, "kl").tests.seeds.p, entry(table, "mse").tests.seeds.p] == raw
    assert [entry(table, "kl").tests.p_seeds, entry(table, "mse").tests.p_seeds] == holm(raw)
    assert entry(table, "ce").tests is None
    assert entry(table, "kl").tests.p_seeds < 0.05 < entry(table, "mse").tests.p_seeds


def test_a_group_is_tested_against_its_own_baseline_and_corrected_over_the_whole_table():
    l2 = [*runs("kl", KL, group="l2"), *runs("ce", [0.61, 0.62, 0.6, 0.61], group="l2")]
    table = build([*everything(), *l2])
    assert entry(table, "kl", "l2").tests.seeds.difference == pytest.approx(-0.0025)
    raw = [entry(table, *place).tests.seeds.p for place in [("kl",), ("mse",), ("kl", "l2")]]
    corrected = [entry(table, *place).tests.p_seeds for place in [("kl",), ("mse",), ("kl", "l2")]]
    assert corrected == holm(raw)
    assert any("Holm-corrected over 3 comparisons" in note for note in table.notes)


def test_order_teacher_first_then_as_asked_then_as_found():
    rows = [*everything(), *runs("kl", KL, group="l2"), *runs("ce", CE, group="l2")]
    found = [(r.group, r.row) for r in build(rows).rows]
    assert found[:4] == [("minilm", "teacher"), ("tiny", "kl"), ("tiny", "ce"), ("tiny", "mse")]
    order = [("l2", "ce"), ("l2", "mse"), ("tiny", "ce"), ("tiny", "mse")]
    table = build(rows, order=order)
    assert [(r.group, r.row, r.role) for r in table.rows] == [
        ("minilm", "teacher", "teacher"),
        ("l2", "ce", "baseline"),
        ("l2", "mse", "compared"),
        ("l2", "kl", "compared"),
        ("tiny", "ce", "baseline"),
        ("tiny", "mse", "compared"),
        ("tiny", "kl", "compared"),
    ]
    assert entry(table, "mse", "l2").summary.n == 0  # asked for, not there: shown as missing
    shown = to_markdown(table)
    assert "| l2      | mse       |     0 |              – |                   – |" in shown


def test_markdown_as_it_is_printed():
    assert to_markdown(build(everything())) == (
        "| student | objective | seeds |   accuracy (%) |             Δ [95%] |      p | p seeds |"
        " p examples |\n"
        "| ------- | --------- | ----: | -------------: | ------------------: | -----: | ------: |"
        " ---------: |\n"
        "| minilm  | teacher   |     1 |           78.6 |                   – |      – |       – |"
        "          – |\n"
        "| tiny    | kl        |     4 | **60.8 ± 1.5** | +10.2 [+8.2, +12.3] | <0.001 |  <0.001 |"
        "     <0.001 |\n"
        "| tiny    | ce        |     4 |     50.5 ± 1.3 |                   – |      – |       – |"
        "          – |\n"
        "| tiny    | mse       |     4 |     50.5 ± 2.1 |   +0.0 [-2.9, +2.9] |  1.000 |   1.000 |"
        "      1.000 |\n"
        "\n"
        "- Mean ± standard deviation over 4 seeds.\n"
        "- p: accuracy (%) against `ce` of the same student, two-sided t-test over 4 seeds and "
        "1,000 test examples at once, both random, Holm-corrected over 2 comparisons. It asks "
        "whether other seeds and other test examples would show the same sign.\n"
        "- p seeds: accuracy (%) against `ce` of the same student, two-sided t-test paired over "
        "4 seeds, Holm-corrected over 2 comparisons. It asks whether training again would show "
        "the same sign on these test examples.\n"
        "- p examples: the same over test examples, two-sided paired bootstrap (10,000 "
        "resamples), Holm-corrected over 2 comparisons. It asks whether other test examples "
        "would show the same sign with these trained models.\n"
        "- Δ: the difference, with its 95% interval by p's test (not corrected).\n"
        "- Bold: better than the baseline at 5% by p's test.\n"
        "- accuracy (%): a true difference of 4.0 would be significant in four of five such "
        "tables (in the median comparison; in the noisiest one, 4.7).\n"
    )


def test_without_what_each_example_contributed_nothing_is_bold():
    rows = [dataclasses.replace(row, test_correct=None) for row in everything()]
    table = build(rows)
    text = to_markdown(table)
    assert entry(table, "kl").tests.p_seeds < 0.001 and entry(table, "kl").tests.joint is None
    assert "**" not in text and "| p seeds |" in text and "p examples" not in text
    assert "- Nothing is bold: the runs did not keep what each test example contributed" in text
    some = [
        dataclasses.replace(row, test_correct=None) if row.row == "mse" else row
        for row in everything()
    ]
    assert "Never bold: tiny `mse`, for want of what" in to_markdown(build(some))


def test_bold_only_in_the_right_direction():
    worse = build([*runs("kl", CE), *runs("ce", KL)])
    assert entry(worse, "kl").tests.p_joint < 0.05 and "**" not in to_markdown(worse)
    for direction, bold in [(True, False), (False, True), (None, False)]:
        column = Column("test/accuracy", "error", higher_is_better=direction)
        table = build([*runs("kl", CE), *runs("ce", KL)], [column])
        assert ("**" in to_markdown(table)) == bold


def test_bold_heeds_the_corrected_p_value():
    rows = [*runs("ce", [0.5, 0.5, 0.5]), *runs("kl", [0.505, 0.506, 0.507])]
    many = [run for i in range(5) for run in runs(f"row {i}", [0.5, 0.51, 0.49])]
    alone, crowded = (entry(build(rows), "kl"), entry(build([*rows, *many]), "kl"))
    assert alone.tests.seeds == crowded.tests.seeds
    assert alone.tests.p_joint < 0.05 < crowded.tests.p_joint
    alone, crowded = build(rows), build([*rows, *many])
    assert "**" in to_markdown(alone) and "**" not in to_markdown(crowded)


def test_fewer_than_three_seeds_have_no_test_and_say_so():
    table = build([*runs("kl", KL[:2]), *runs("ce", CE[:2])])
    assert entry(table, "kl").tests is None
    assert table.notes == (
        "Mean ± standard deviation over 2 seeds.",
        "accuracy (%): no test: fewer than 3 seeds.",
    )
    alone = build([*runs("kl", KL[:1]), *runs("ce", CE[:1])])
    assert "60.0 |" in to_markdown(alone) and alone.notes[0] == "One seed: no spread."


def test_a_missing_seed_is_visible_and_the_rest_is_still_paired_rightly():
    table = build([*runs("kl", KL), *runs("ce", CE[1:], seeds=[1, 2, 3]), *runs("mse", MSE[:2])])
    pairs = paired_test(dict(enumerate(KL)), {1: CE[1], 2: CE[2], 3: CE[3]})
    assert entry(table, "kl").tests.seeds == pairs and pairs.n == 3
    assert [len(row.seeds) for row in table.rows] == [4, 3, 2]
    text = to_markdown(table)
    assert "over 2 to 4 seeds" in text and "paired over 3 seeds" in text
    assert "fewer than 3 seeds in common with the baseline: tiny `mse`." in text


def test_a_diverged_run_is_shown_and_not_tested():
    table = build([*runs("kl", [0.6, math.nan, 0.6]), *runs("ce", CE), *runs("mse", MSE)])
    text = to_markdown(table)
    assert "|          nan |" in text and "not a finite number: tiny `kl`" in text
    assert "Holm-corrected over 1 comparison." in text


def test_a_metric_that_only_some_runs_have_says_how_many():
    rows = [run("kl", 0, 0.6, f=0.1), run("kl", 1, 0.6), *runs("ce", CE[:2])]
    text = to_markdown(build(rows, [ACCURACY, Column("f", "F")]))
    assert "0.1 (n=1)" in text and "–" in text


def test_kinds_scales_and_separators():
    rows = [*runs("ce", CE)]
    columns = [
        ACCURACY,
        Column("parameters", "parameters", decimals=0, kind="value"),
        Column("parameters", "M", 1e-6, 2, "value"),
        Column("seconds/train", "s", kind="mean"),
    ]
    line = cells(build(rows, columns))[0]
    assert line[4:] == ["4,386,178", "4.39", "11.5"]
    differs = [run("ce", 0, 0.5), run("ce", 1, 0.5, parameters=5_000_000)]
    assert cells(build(differs, columns))[0][5] == "4.39 to 5.00"


def test_csv_holds_raw_numbers():
    table = build(everything())
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert [line["row"] for line in lines] == ["teacher", "kl", "ce", "mse"]
    kl = lines[1]
    assert float(kl["mean"]) == entry(table, "kl").summary.mean
    assert float(kl["sd"]) == entry(table, "kl").summary.sd
    tests = entry(table, "kl").tests
    assert (kl["against"], kl["seeds_n"], kl["joint_n"]) == ("ce", "4", "4")
    for kind in ("seeds", "examples", "joint"):
        test = getattr(tests, kind)
        found = [float(kl[f"{kind}_{name}"]) for name in ("difference", "p_raw", "p_holm")]
        assert found == [test.difference, test.p, getattr(tests, f"p_{kind}")]
    assert (float(kl["joint_se"]), float(kl["joint_df"])) == (tests.joint.se, tests.joint.df)
    assert (kl["n"], lines[2]["joint_p_raw"], lines[2]["against"], lines[0]["sd"]) == (
        "4",
        "",
        "",
        "",
    )


def test_markdown_keeps_stars_and_bars_of_labels():
    table = build([*runs("0.9*kl + 0.1*ce | x", KL), *runs("ce", CE)])
    assert r"| 0.9\*kl + 0.1\*ce \| x |" in to_markdown(table)


def test_the_last_run_with_a_hash_counts_and_two_settings_in_one_place_are_an_error():
    first, second = run("ce", 0, 0.5, f=1.0), run("ce", 0, 0.5, f=2.0)
    assert first.hash == second.hash
    assert entry(build([first, second], [ACCURACY, Column("f", "f")]), "ce", key="f").by_seed == {
        0: 2.0
    }
    with pytest.raises(UserError, match=r"two different runs .* seed 0"):
        build([run("ce", 0, 0.5), run("ce", 0, 0.6)])


def test_bad_input():
    with pytest.raises(UserError, match="no finished run"):
        build([])
    with pytest.raises(UserError, match=r"unknown baseline row 'ce'.*Allowed: kl"):
        build(runs("kl", KL))
    with pytest.raises(UserError, match=r"unknown tested column 'test/acuracy'.*Did you mean"):
        build(everything(), tested=("test/acuracy",))


def test_a_teacher_alone_is_a_table():
    assert len(build(runs("teacher", [0.8], group="minilm")).rows) == 1


@pytest.mark.parametrize("width", [60, 80, 200])
def test_terminal_shows_every_number_whole_at_any_width(width):
    columns = [ACCURACY, *(Column("seconds/train", f"time {i} (s)") for i in range(6))]
    label = "hidden_mse(layers='uniform') + [kl](T=4)"
    table = build([*everything(), *runs(label, [0.61, 0.63, 0.6, 0.6])], columns)
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(TerminalTable(table))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert text.count("11.5 ± 1.3") == 6 * 4 and text.count("50.5 ± 1.3") == 1
    assert all(f"time {i} (s)" in text for i in range(6))
    flat = "".join(text.split())
    assert "Holm-correctedover3comparisons" in flat
    assert (label.replace(" ", "") in flat) == (width == 200)


def test_all_columns_of_a_classifier_fit_a_terminal_of_80_and_empty_ones_are_left_out():
    numbers = {column.key: 0.5 for column in COLUMNS if column.key.startswith("test/")}
    del numbers["test/pearson"]
    numbers |= {"latency/p50_ms": 12.25, "latency/p95_ms": 99.5}
    made = [
        dataclasses.replace(run, metrics={**numbers, **run.metrics}, group="12x384x12 students")
        for run in everything()
    ]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(TerminalTable(build(made, COLUMNS)))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "Pearson" not in text
    assert text.count("4.39") == text.count("12.25") == 4


def test_terminal_prints_bold_what_is_significant():
    console = Console(width=120, force_terminal=True, color_system="standard", file=io.StringIO())
    console.print(TerminalTable(build(everything())))
    text = console.file.getvalue()
    bold = re.findall("\x1b\\[1m *([^\x1b]+?)\x1b", text)
    assert "60.8 ± 1.5" in bold and "50.5 ± 2.1" not in bold
    assert "50.5 ± 2.1" in text and "**" not in text
