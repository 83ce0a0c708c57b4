"""Digests: the same content, the same name, in every process and in any order of keys."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.core.digests import (
    LATE,
    canonical_json,
    digest,
    digest_arrays,
    digest_strings,
    fields_that_count,
    sha256_file,
    unit_interval,
)


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    names: tuple[str, ...]


def test_canonical_json_by_hand():
    value = {"b": (1, 2.5), "a": Point(np.int64(3), ("ä",)), 7: None}
    assert canonical_json(value) == '{"7":null,"a":{"names":["ä"],"x":3},"b":[1,2.5]}'


def test_golden_digest_does_not_change_between_versions():
    """It names folders on people's disks."""
    assert digest({"a": [1, 2.5, "ä", None, True]}) == "c0e4137d045902a9"


@pytest.mark.parametrize("value", [{1, 2}, object(), {"a": np.zeros(2)}])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(TypeError):
        digest(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [-math.inf]}])
def test_numbers_json_does_not_have_are_refused(value):
    with pytest.raises(ValueError, match="JSON"):
        digest(value)


@given(st.lists(st.text(max_size=4), max_size=6), st.lists(st.text(max_size=4), max_size=6))
def test_strings_have_the_same_digest_only_where_they_are_the_same(one, other):
    assert (digest_strings(one) == digest_strings(other)) == (one == other)


def test_arrays_count_by_name_dtype_shape_and_content():
    base = {"a": np.arange(6, dtype=np.int32), "b": np.ones(2, np.float32)}
    variants = [
        {"a": base["a"].astype(np.int64), "b": base["b"]},
        {"a": base["a"].reshape(2, 3), "b": base["b"]},
        {"c": base["a"], "b": base["b"]},
        {"a": base["a"][::-1], "b": base["b"]},
        {"a": base["a"]},
    ]
    found = {digest_arrays(arrays) for arrays in (base, *variants)}
    assert len(found) == 1 + len(variants)
    assert digest_arrays({"b": base["b"], "a": base["a"][::-1][::-1]}) == digest_arrays(base)


def test_file_digest_is_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(tmp_path / "abc") == expected


def test_unit_interval_is_fixed_and_even():
    assert unit_interval("movie/1") == 0.7304335251777604  # every split stands on this
    values = [unit_interval(str(n)) for n in range(4000)]
    assert all(0 <= value < 1 for value in values)
    assert abs(np.mean(values) - 0.5) < 0.02
    assert abs(np.mean([value < 0.1 for value in values]) - 0.1) < 0.02


def test_digests_do_not_depend_on_the_process():
    program = (
        "from distill_jax.core.digests import digest, unit_interval\n"
        "print(digest({'x': ['y', 1]}), unit_interval('z'))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert seen == {f"{digest({'x': ['y', 1]})} {unit_interval('z')}\n"}


@dataclasses.dataclass(frozen=True)
class Later(Point):
    more: int = dataclasses.field(default=0, metadata=LATE)


def test_a_field_that_came_later_counts_only_off_its_default():
    """What was filed before it came keeps its name, however deep it stands."""
    assert digest({"a": [Later(1, ("b",))]}) == digest({"a": [Point(1, ("b",))]})
    assert digest({"a": [Later(1, ("b",), 2)]}) != digest({"a": [Point(1, ("b",))]})
    assert fields_that_count(Later(1, ())) == {"x": 1, "names": ()}
