"""Even choices of layers: two rules, by hand and by law; both sides know both by one name."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.core.layer_choice import spread, uniform
from distill_jax.models.students import choose_layers
from distill_jax.objectives.layer_maps import layer_pairs

DEPTHS = st.tuples(st.integers(1, 48), st.integers(1, 48))


def test_five_of_twelve():
    assert uniform(5, 12) == (2, 5, 7, 10, 12)
    assert spread(5, 12) == (2, 4, 7, 9, 12)


@given(DEPTHS)
def test_both_rise_to_the_last_layer_and_are_near_the_even_places(depths):
    student, teacher = depths
    even = [Fraction(i * teacher, student) for i in range(1, student + 1)]
    for rule, most in ((uniform, Fraction(1, 2)), (spread, Fraction(1))):
        chosen = rule(*depths)
        assert chosen[-1] == teacher and list(chosen) == sorted(chosen)
        assert all(abs(c - e) <= most for c, e in zip(chosen, even, strict=True) if e >= 1)


@given(st.integers(1, 12), st.integers(1, 6))
def test_they_agree_where_the_depths_divide(student, times):
    assert uniform(student, student * times) == spread(student, student * times)


@pytest.mark.parametrize("name", ["uniform", "spread", "first", "last"])
@given(depths=DEPTHS)
def test_copied_layers_and_layer_maps_mean_the_same_by_a_name(name, depths):
    student, teacher = sorted(depths)
    copied = choose_layers(name, student_layers=student, teacher_layers=teacher)
    assert layer_pairs(name, student, teacher) == tuple(enumerate(copied, 1))
