"""Steps as text: what is read, what it is called, and what is said of mistakes."""

import pytest

from distill_jax.compression.grammar import parse_steps
from distill_jax.compression.kinds import kinds
from distill_jax.core.errors import UserError


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("prune(0.5) -> distil -> int8", None),
        (" prune( share = 0.5 )->distil( )", "prune(0.5) -> distil"),
        ("prune(pattern='2:4')", "prune(0.5, pattern='2:4')"),
        ("int8(train=true, rate=1e-3)", "int8(rate=0.001, train=True)"),
        ("prune(0.8, schedule=cubic) -> distil", "prune(0.8, schedule='cubic') -> distil"),
        ("distil(objective='0.5*ce+kl')", "distil(objective='0.5*ce + kl')"),
        ("drop(heads=0.5, layers=1)", None),
        ("vocabulary(min_count=2) -> drop(ffn=0.5)", "vocabulary(2) -> drop(ffn=0.5)"),
        ("vocabulary(characters=False)", None),
        ("int8(activations='static')", "int8(activations='static')"),
    ],
)  # fmt: skip
def test_texts_have_one_canonical_form(text, canonical):
    steps = parse_steps(text)
    written = " -> ".join(map(str, steps))
    assert written == (canonical or text)
    assert parse_steps(written) == steps


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prune -> distill", "unknown step 'distill' at column 10 .* Did you mean 'distil'"),
        ("prune(0.5, shedule=cubic)", "unknown option of prune 'shedule' .*'schedule'"),
        ("prune(0.5, by=magnitud)", "unknown by 'magnitud'.*Did you mean 'magnitude'"),
        ("", "column 1 .*a step is missing"),
        ("prune -> ", "column 10 .*a step is missing"),
        ("prune(1.5)", r"must be in \(0, 1\), not 1.5"),
        ("prune(0.5, 0.6)", "takes its options by name: share, by"),
        ("prune(0.5, share=0.6)", "share of prune is given twice"),
        ("prune(open('x'))", "expected a number, a word"),
        ("prune(0.5", "cannot read"),
        ("prune(0.5, by=movement)", "needs schedule=cubic"),
        ("prune(0.5, schedule=cubic)", "distil must follow it"),
        ("prune(0.5, schedule=cubic) -> int8", "distil must follow it"),
        ("prune(0.4, pattern=2)", "pattern must be text"),
        ("prune(pattern='4:2')", "keeps some of a group"),
        ("prune(0.4, pattern='2:4')", "a pattern has its own share"),
        ("int8 -> distil", "ends in integers, which nothing can follow"),
        ("int8(rate=1e-4)", "takes no steps"),
        ("distil(objective='kll')", "unknown loss 'kll'.*Did you mean 'kl'"),
        ("distil(epochs=-1)", "epochs of distil must not be negative"),
        ("drop", "drop what"),
        ("drop(heads=1)", r"must be in \[0, 1\)"),
        ("vocabulary(0)", "min_count must be at least 1"),
        ("prune(" + "1" * 3000 + ")", "at most 2000 characters"),
    ],
)
def test_mistakes_are_named_in_one_line(text, message):
    with pytest.raises(UserError, match=message) as caught:
        parse_steps(text)
    assert "\n" not in str(caught.value)


def test_every_kind_is_known_by_its_name():
    assert set(kinds()) == {"prune", "distil", "drop", "vocabulary", "int8"}
