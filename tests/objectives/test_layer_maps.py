"""Which student layer learns from which teacher layer."""

import pytest

from distill_jax.core.errors import UserError
from distill_jax.objectives.layer_maps import layer_pairs, table
from distill_jax.objectives.terms import LayerMap


@pytest.mark.parametrize(
    ("layers", "student", "teacher", "expected"),
    [
        ("uniform", 2, 6, ((1, 3), (2, 6))),
        ("uniform", 4, 12, ((1, 3), (2, 6), (3, 9), (4, 12))),
        ("uniform", 6, 6, tuple((i, i) for i in range(1, 7))),
        ("uniform", 4, 6, ((1, 2), (2, 3), (3, 5), (4, 6))),  # halves go up
        ("uniform", 5, 12, ((1, 2), (2, 5), (3, 7), (4, 10), (5, 12))),
        ("spread", 5, 12, ((1, 2), (2, 4), (3, 7), (4, 9), (5, 12))),
        ("spread", 3, 2, ((1, 1), (2, 1), (3, 2))),
        ("uniform", 4, 1, ((1, 1), (2, 1), (3, 1), (4, 1))),
        ("last", 2, 6, ((1, 5), (2, 6))),
        ("first", 2, 6, ((1, 1), (2, 2))),
        ("skip", 3, 6, ((1, 2), (2, 4))),
        (LayerMap(((2, 6), (1, 3))), 2, 6, ((2, 6), (1, 3))),
        (LayerMap(((-1, -1), (-2, 3))), 2, 6, ((2, 6), (1, 3))),
        (LayerMap(((0, 0),)), 2, 6, ((0, 0),)),
    ],
)
def test_pairs(layers, student, teacher, expected):
    assert layer_pairs(layers, student, teacher, lowest=0) == expected


@pytest.mark.parametrize(
    ("layers", "student", "teacher", "words"),
    [
        (LayerMap(((3, 1),)), 2, 6, "student has no layer 3: allowed are 1 to 2"),
        (LayerMap(((1, 7),)), 2, 6, "teacher has no layer 7"),
        (LayerMap(((0, 0),)), 2, 6, "student has no layer 0"),
        (LayerMap(((-3, 1),)), 2, 6, "student has no layer -3"),
        ("last", 4, 2, "at least as deep"),
        ("first", 4, 2, "at least as deep"),
        ("skip", 1, 6, "leaves nothing"),
    ],
)
def test_layers_that_do_not_exist_are_refused(layers, student, teacher, words):
    with pytest.raises(UserError, match=words):
        layer_pairs(layers, student, teacher, lowest=1)


def test_the_table_is_readable():
    assert table(((1, 3), (2, 6))) == "student 1 <- teacher 3, student 2 <- teacher 6"
