"""Numbers that change while training."""

import pytest

from distill_jax.objectives.schedules import Schedule, format_number, value_at


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule("linear", ((0.0, 1.0), (1.0, 0.0))), {0: 1, 0.25: 0.75, 1: 0}),
        (Schedule("linear", ((0.2, 4.0), (0.6, 2.0))), {0: 4, 0.2: 4, 0.4: 3, 0.6: 2, 1: 2}),
        (Schedule("cosine", ((0.0, 1.0), (1.0, 0.0))), {0: 1, 0.5: 0.5, 1 / 3: 0.75, 1: 0}),
        (Schedule("geometric", ((0.0, 1.0), (1.0, 1e-10))), {0: 1, 0.1: 0.1, 0.25: 10**-2.5}),
        (Schedule("piecewise", ((0.0, 0.0), (0.5, 1.0), (1.0, 0.0))), {0.25: 0.5, 0.75: 0.5}),
        (Schedule("piecewise", ((0.5, 3.0),)), {0: 3, 0.5: 3, 1: 3}),
        (Schedule("step", ((0.0, 1.0), (0.5, 2.0))), {0: 1, 0.49: 1, 0.5: 2, 1: 2}),
        (Schedule("step", ((0.5, 2.0),)), {0: 2, 1: 2}),
    ],
)
def test_values_along_the_way(schedule, expected):
    for share, value in expected.items():
        assert schedule.at(share) == pytest.approx(value)
    low, high = schedule.extremes
    assert all(low <= schedule.at(i / 50) <= high for i in range(51))


def test_a_plain_number_stays():
    assert value_at(0.3, 0.7) == 0.3


def test_numbers_print_as_short_as_they_read_back():
    for value, text in ((4.0, "4"), (0.1, "0.1"), (1e-5, "1e-05"), (1e22, "1e+22"), (-2.0, "-2")):
        assert format_number(value) == text and float(text) == value
