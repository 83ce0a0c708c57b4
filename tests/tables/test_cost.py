"""Score against latency: every row that was timed, and no other."""

import dataclasses

from samples import sample_runs, sample_spec, sample_teacher, sample_yardstick

from distill_jax.tables.build import table_of
from distill_jax.tables.cost import draw_costs, has_costs
from distill_jax.tables.drawing import save_drawing

KEY = "test/accuracy"


def timed(run, latency):
    return dataclasses.replace(run, metrics={**run.metrics, "latency/p50_ms": latency})


def test_a_point_a_row_at_its_means(tmp_path):
    runs = [timed(run, 1.0 + run.seed) for run in sample_runs() if run.row != "kl"]
    runs += [run for run in sample_runs() if run.row == "kl"]  # nobody timed it
    teachers = [timed(sample_teacher(), 8.0)]
    table = table_of(sample_spec(runs, teachers), [*teachers, *runs])
    assert has_costs(table, KEY)
    drawn = draw_costs(table, KEY).axes[0].containers
    points = sorted((float(c[0].get_xdata()[0]), float(c[0].get_ydata()[0])) for c in drawn)
    means = [
        (2.0, 100 * row.entries[KEY].summary.mean) for row in table.students if row.row != "kl"
    ]
    assert points == sorted([*means, (8.0, 80.0)])
    first, second = (
        [
            path.read_bytes()
            for path in save_drawing(lambda: draw_costs(table, KEY, title="T"), tmp_path / name)
        ]
        for name in ("a", "b")
    )
    assert first == second


def test_a_yardstick_was_not_timed_and_has_no_point():
    runs, yardstick = [timed(run, 1.0) for run in sample_runs()], sample_yardstick()
    for each in (yardstick, timed(yardstick, 3.0)):
        table = table_of(sample_spec(runs, (), [each]), [each, *runs])
        assert len(draw_costs(table, KEY).axes[0].containers) == len(table.students)


def test_nobody_timed_no_figure():
    runs = sample_runs()
    assert not has_costs(table_of(sample_spec(runs), runs), KEY)
