"""Letters: two rows share one if and only if they do not differ."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from distill_jax.tables.letters import letters_of

pairs = st.integers(1, 7).flatmap(
    lambda n: st.tuples(
        st.permutations(range(n)),
        st.sets(st.sampled_from(list(itertools.combinations(range(n), 2)) or [(0, 0)])),
    )
)


def test_by_hand():
    assert letters_of([2, 0, 1], set()) == {0: "a", 1: "a", 2: "a"}
    assert letters_of([2, 0, 1], {(2, 1)}) == {2: "a", 0: "ab", 1: "b"}
    everyone = set(itertools.combinations(range(3), 2))
    assert letters_of([2, 0, 1], everyone) == {2: "a", 0: "b", 1: "c"}


@given(pairs)
def test_a_common_letter_is_no_difference(case):
    ranked, different = case
    different = {pair for pair in different if pair[0] != pair[1]}
    letters = letters_of(ranked, different)
    assert "a" in letters[ranked[0]] and all(letters.values())
    for pair in itertools.combinations(sorted(ranked), 2):
        common = set(letters[pair[0]]) & set(letters[pair[1]])
        assert bool(common) == (pair not in different)
