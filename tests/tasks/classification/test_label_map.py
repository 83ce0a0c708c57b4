"""Which class of a teacher is which of the data."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.core.errors import UserError
from distill_jax.tasks.classification.label_map import (
    FLAG,
    order_of,
    parse_label_map,
    shown_label_map,
)

WORDS = st.text(min_size=1).map(str.strip).filter(bool)


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, unique_by=lambda pair: pair[0]))
def test_what_is_shown_is_read_again_through_a_shell(pairs):
    flag, text = shlex.split(shown_label_map(pairs))
    assert flag == FLAG and parse_label_map(text) == tuple(pairs)


def test_a_map_is_pairs_or_an_object():
    assert parse_label_map(" NEGATIVE = 0, POSITIVE=1") == (("NEGATIVE", "0"), ("POSITIVE", "1"))
    assert parse_label_map('{"a, b": "x=y", "c": 1}') == (("a, b", "x=y"), ("c", "1"))
    assert parse_label_map(None) == ()
    for wrong in ("", "a", "a=", "a=b,,", "{", '{"a": null}', "{}", '{"a": {"b": "c"}}'):
        with pytest.raises(UserError, match=FLAG):
            parse_label_map(wrong)


@pytest.mark.parametrize(
    ("names", "count", "data", "given", "columns", "by"),
    [
        (("neg", "pos"), 2, ("neg", "pos"), "", (0, 1), "names"),
        (("POSITIVE", " Negative"), 2, ("negative", "positive"), "", (1, 0), "names"),
        (("pos", "Pos"), 2, ("Pos", "pos"), "", (1, 0), "names"),  # exact before alike
        (None, 2, ("neg", "pos"), "", (0, 1), "position"),
        (None, 2, ("neg", "pos"), "LABEL_0=pos,LABEL_1=neg", (1, 0), "map"),
        (None, 3, ("neg", "pos"), "label_2=POS,0=neg", (0, 2), "map"),
        (("NEGATIVE", "POSITIVE"), 2, ("0", "1"), "NEGATIVE=0,POSITIVE=1", (0, 1), "map"),
        (("1", "0"), 2, ("neg", "pos"), "1=neg,0=pos", (0, 1), "map"),  # names before numbers
        (("a", "a"), 2, ("neg", "pos"), "1=neg,0=pos", (1, 0), "map"),
    ],
)
def test_classes_find_their_partners(names, count, data, given, columns, by):
    order = order_of(names, count, data, parse_label_map(given or None))
    assert (order.columns, order.by) == (columns, by)
    assert order.as_it_is == (columns == (0, 1) and count == 2) == (not order.told(data))


def test_what_is_left_out_is_said():
    order = order_of(("bad", "so-so", "good"), 3, ("neg", "pos"), (("good", "pos"), ("bad", "neg")))
    assert order.taken == ("bad", "good")
    (line,) = order.told(("neg", "pos"))
    assert "neg is its bad (output 0), pos is its good (output 2); left out: so-so" in line


@pytest.mark.parametrize(
    ("names", "count", "data", "given", "words"),
    [
        (("a", "b"), 2, ("neg", "pos"), "", r"not the data's: a, b and neg, pos.*'a=...,b=...'"),
        (("negativ", "positiv"), 2, ("negative", "positive"), "", "'negativ=negative,positiv="),
        (("neg", "mid", "pos"), 3, ("neg", "pos"), "", "'neg=neg,pos=pos'; a class that is not na"),
        (None, 3, ("neg", "pos"), "", "LABEL_0=...,LABEL_1=...,LABEL_2=...'; a class that"),
        (("a", "b"), 2, ("a", "b", "c"), "", "has 2 classes .a, b., the data 3 .a, b, c.: leave"),
        (("pos", "neg"), 2, ("Pos", "pos"), "", "the teacher's classes are not the data's"),
        (None, 2, ("neg", "pos"), "LABEL_9=neg,1=pos", "'LABEL_9'.*Did you mean 'LABEL_"),
        (None, 2, ("neg", "pos"), "0=neg,1=poss", "class of the data 'poss'.*Did you mean 'pos'"),
        (None, 2, ("neg", "pos"), "0=neg,0=pos", "names '0' twice"),
        (None, 2, ("neg", "pos"), "0=neg,1=neg", "names 'neg' twice"),
        (None, 3, ("neg", "pos"), "2=neg", "not say which class of the teacher is pos; the teach"),
    ],
)
def test_what_has_no_partner_is_refused_in_one_line(names, count, data, given, words):
    with pytest.raises(UserError, match=words) as refused:
        order_of(names, count, data, parse_label_map(given or None))
    assert "\n" not in str(refused.value)


def test_many_classes_make_no_long_message():
    with pytest.raises(UserError) as refused:
        order_of(None, 300, [f"class {n}" for n in range(200)])
    assert len(str(refused.value)) < 1500 and "and so on" in str(refused.value)
