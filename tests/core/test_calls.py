"""Calls as text: what may stand without a name, columns, one canonical form."""

import dataclasses
from typing import ClassVar

import pytest

from distill_jax.core.calls import Vocabulary, parse_call, parse_sum, written
from distill_jax.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Base:
    kind: ClassVar[str] = ""

    times: int = dataclasses.field(default=1, kw_only=True)


@dataclasses.dataclass(frozen=True)
class Cut(Base):
    kind: ClassVar[str] = "cut"

    share: float = 0.5
    where: str = "front"


@dataclasses.dataclass(frozen=True)
class Bare(Base):
    kind: ClassVar[str] = "bare"


WORDS = Vocabulary({"cut": Cut, "bare": Bare}, "thing", "cut(0.5)")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("cut", (Cut(),)),
        ("cut(0.1)", (Cut(0.1),)),
        ("cut(1, times=3)", (Cut(1.0, times=3),)),
        ("bare(times=2) + cut(where=r'a\\d+ + b')", (Bare(times=2), Cut(where="a\\d+ + b"))),
        ("cut(-1) + bare() + cut(where=back)", (Cut(-1.0), Bare(), Cut(where="back"))),
    ],
)
def test_sums_are_read_and_written(text, expected):
    found = parse_sum(text, WORDS)
    assert found == expected
    again = " + ".join(map(written, found))
    assert parse_sum(again, WORDS) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cut + cutt(0.1)", "unknown thing 'cutt' at column 7 .*Did you mean 'cut'"),
        ("cut(tims=2)", "unknown option of cut 'tims'.*'times'"),
        ("bare(3)", "bare takes its options by name: times"),
        ("cut(0.1, share=0.2)", "share of cut is given twice"),
        ("cut - bare", "expected a thing like cut"),
        ("cut(", "cannot read the things"),
        ("+".join(["cut"] * 1000), "at most 2000 characters"),
        ("cut(where=f(x))", "expected a number, a word"),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(UserError, match=message) as told:
        parse_sum(text, WORDS)
    assert "\n" not in str(told.value)


def test_a_first_option_is_written_where_it_is_wanted():
    assert written(Cut(), names_first=True) == "cut(0.5)"
    assert written(Cut(where="back")) == "cut(where='back')"
    assert parse_call("cut(0.2, where='back')", WORDS, where="here") == Cut(0.2, "back")
