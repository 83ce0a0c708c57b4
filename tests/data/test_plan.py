import functools
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from padding import padding_fraction

from distill_jax.core.errors import UserError
from distill_jax.data.plan import (
    PlannedBatch,
    choose_lengths,
    make_batch,
    plan_epoch,
    plan_full,
    plan_in_order,
    worthwhile_lengths,
)
from distill_jax.data.subsets import labelled_rows
from distill_jax.data.tokenise import TokenTable, tokenise_dataset

row_lengths = st.lists(st.integers(1, 40), min_size=1, max_size=200).map(np.array)
batch_sizes = st.integers(1, 33)


def planned_tokens(plan, batch_size):
    return sum(batch_size * batch.length for batch in plan)


def check_plan(plan, lengths_N, shapes, batch_size):
    rows = np.concatenate([batch.rows for batch in plan])
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(lengths_N)))
    assert len(plan) == math.ceil(len(lengths_N) / batch_size)
    assert sum(len(batch.rows) < batch_size for batch in plan) <= 1
    for batch in plan:
        assert batch.length in shapes
        assert lengths_N[batch.rows].max() <= batch.length


@given(row_lengths, batch_sizes, st.integers(1, 5), st.integers(0, 9), st.integers(0, 9))
def test_a_plan_holds_every_row_once_in_full_batches_that_fit(lengths, size, shapes, seed, epoch):
    shapes = choose_lengths(lengths, batch_size=size, max_shapes=shapes)
    plan = plan_epoch(lengths, shapes, batch_size=size, seed=seed, epoch=epoch)
    check_plan(plan, lengths, shapes, size)
    check_plan(plan_in_order(lengths, shapes, batch_size=size), lengths, shapes, size)


@given(row_lengths, batch_sizes, st.integers(1, 4))
def test_shapes_chosen_for_other_rows_work_too(lengths, size, max_shapes):
    shapes = choose_lengths(np.append(lengths, [45, 3]), batch_size=7, max_shapes=max_shapes)
    check_plan(plan_epoch(lengths, shapes, batch_size=size, seed=0, epoch=0), lengths, shapes, size)


def test_a_plan_is_a_pure_function_of_lengths_seed_and_epoch():
    lengths = np.random.default_rng(0).integers(3, 40, 500)
    shapes = choose_lengths(lengths, batch_size=16)

    def flat(seed, epoch):
        plan = plan_epoch(lengths, shapes, batch_size=16, seed=seed, epoch=epoch)
        return [tuple(batch.rows) for batch in plan]

    assert flat(3, 2) == flat(3, 2)
    different = [flat(3, 2), flat(3, 3), flat(4, 2), flat(2, 3)]
    assert all(a != b for a, b in itertools.combinations(different, 2))
    # Not only the order of the batches: the company of a row changes as well.
    assert {frozenset(rows) for rows in different[0]} != {frozenset(r) for r in different[1]}


def test_a_plan_does_not_change_from_release_to_release():
    lengths = np.arange(3, 15)
    plan = plan_epoch(lengths, (8, 14), batch_size=5, seed=1, epoch=2)
    assert [(batch.rows.tolist(), batch.length) for batch in plan] == [
        ([6, 0, 1, 8, 7], 14),
        ([5, 3], 8),
        ([2, 11, 10, 4, 9], 14),
    ]


def test_batches_come_in_random_order():
    lengths = np.sort(np.random.default_rng(0).integers(3, 40, 640))
    plan = plan_epoch(lengths, (10, 20, 30, 40), batch_size=16, seed=0, epoch=0)
    order = [batch.length for batch in plan]
    assert order != sorted(order) and order != sorted(order, reverse=True)


def test_plan_in_order_goes_from_short_to_long():
    lengths = np.array([9, 2, 5, 2, 7])
    plan = plan_in_order(lengths, (5, 9), batch_size=2)
    assert [(b.rows.tolist(), b.length) for b in plan] == [([1], 5), ([3, 2], 5), ([4, 0], 9)]


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=40).map(np.array),
    st.integers(1, 9),
    st.integers(1, 3),
)
def test_choose_lengths_is_optimal(lengths, size, max_shapes):
    """No other choice of as many lengths promises fewer tokens: compared with all of them."""

    def promised(shapes):
        pad = -len(lengths) % size
        filled = [0] + [((lengths <= s).sum() + pad) // size * size for s in shapes]
        return sum(
            s * (b - a) for s, (a, b) in zip(shapes, itertools.pairwise(filled), strict=True)
        )

    chosen = choose_lengths(lengths, batch_size=size, max_shapes=max_shapes, max_padding=0.0)
    assert len(chosen) <= max_shapes and chosen[-1] == lengths.max()
    shorter = sorted(set(lengths.tolist()) - {int(lengths.max())})
    others = [
        (*rest, int(lengths.max()))
        for count in range(min(max_shapes, len(shorter) + 1))
        for rest in itertools.combinations(shorter, count)
    ]
    assert promised(chosen) == min(map(promised, others))
    plan = plan_epoch(lengths, chosen, batch_size=size, seed=0, epoch=0)
    assert planned_tokens(plan, size) <= promised(chosen)


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=40).map(np.array),
    st.sets(st.integers(1, 30), max_size=2),
    st.sampled_from([0, 20, 150]),
)
def test_worthwhile_lengths_cost_least(lengths, compiled, price):
    """All subsets of the lengths that may be are the oracle."""

    def cost(shapes):
        at = np.searchsorted(shapes, lengths)
        used = {shapes[k] for k in at}
        return sum(shapes[k] for k in at) + price * len(used - compiled)

    allowed = sorted({8, 16, 24, 30} | compiled)
    choices = [
        shapes
        for count in range(1, len(allowed) + 1)
        for shapes in itertools.combinations(allowed, count)
        if shapes[-1] >= lengths.max()
    ]
    chosen = worthwhile_lengths(lengths, compiled=compiled, price=price, longest=30)
    assert cost(chosen) == min(map(cost, choices))
    assert list(chosen) == sorted(chosen) and chosen[-1] >= lengths.max()


@given(row_lengths, st.integers(1, 60))
def test_a_full_plan_holds_every_row_once(lengths, tokens):
    shapes = choose_lengths(lengths, max_shapes=3)
    plan = plan_full(lengths, shapes, lambda length: max(1, tokens // length))
    np.testing.assert_array_equal(
        np.sort(np.concatenate([batch.rows for batch in plan])), np.arange(len(lengths))
    )
    for batch in plan:
        assert batch.length in shapes and lengths[batch.rows].max() <= batch.length
    for batch in plan[:-1]:
        assert len(batch.rows) == max(1, tokens // batch.length)


def test_choose_lengths_uses_no_more_shapes_than_the_target_needs():
    lengths = np.repeat([10, 11, 20, 40], 64)
    assert choose_lengths(lengths, batch_size=32) == (11, 20, 40)
    assert choose_lengths(lengths, batch_size=32, max_padding=0.0) == (10, 11, 20, 40)
    assert choose_lengths(lengths, batch_size=32, max_shapes=1) == (40,)


def test_mistakes_are_reported():
    with pytest.raises(UserError, match="no rows"):
        choose_lengths(np.array([], np.int64))
    with pytest.raises(UserError, match="at least 1"):
        choose_lengths(np.array([3]), max_shapes=0)
    with pytest.raises(UserError, match="a row has 9 tokens, the longest batch length is 8"):
        plan_epoch(np.array([3, 9]), (4, 8), batch_size=2, seed=0, epoch=0)
    with pytest.raises(UserError, match="no rows"):
        plan_in_order(np.array([], np.int64), (4,), batch_size=2)
    with pytest.raises(ValueError, match="ascending"):
        plan_in_order(np.array([3]), (8, 4), batch_size=2)


def ragged_table(rows, labels):
    lengths = [len(row) for row in rows]
    return TokenTable(
        ids=tuple(f"e{i}" for i in range(len(rows))),
        tokens_S=np.concatenate(rows).astype(np.int32),
        token_types_S=np.concatenate([np.arange(n) % 2 for n in lengths]).astype(np.int8),
        offsets_N1=np.append(0, np.cumsum(lengths)),
        labels_N=np.array(labels, np.int32),
    )


def test_make_batch_places_every_token():
    table = ragged_table([[5, 6], [7], [8, 9, 10]], [1, -1, 0])
    batch = make_batch(table, PlannedBatch(np.array([2, 1], np.int32), 4), batch_size=3)
    np.testing.assert_array_equal(batch.example_ids_B, [2, 1, -1])
    np.testing.assert_array_equal(batch.input_ids_BT, [[8, 9, 10, 0], [7, 0, 0, 0], [0] * 4])
    np.testing.assert_array_equal(batch.token_type_ids_BT, [[0, 1, 0, 0], [0] * 4, [0] * 4])
    np.testing.assert_array_equal(batch.where_BT.sum(1), [3, 1, 0])
    np.testing.assert_array_equal(batch.label_where_B, [True, False, False])
    np.testing.assert_array_equal(batch.labels_B, [0, 0, 0])
    assert batch.pixels_BHWC is None
    dtypes = {name: str(v.dtype) for name, v in vars(batch).items() if v is not None}
    assert dtypes == {
        "example_ids_B": "int32",
        "input_ids_BT": "int32",
        "token_type_ids_BT": "int32",
        "where_BT": "bool",
        "labels_B": "int32",
        "label_where_B": "bool",
    }


def test_make_batch_refuses_a_row_that_does_not_fit():
    table = ragged_table([[5, 6], [7]], [1, 0])
    with pytest.raises(ValueError, match="2 tokens in a batch of 1"):
        make_batch(table, PlannedBatch(np.array([0, 1], np.int32), 1), batch_size=2)


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=9), min_size=1, max_size=40))
def test_an_epoch_of_batches_gives_every_row_back(rows):
    table = ragged_table(rows, [0] * len(rows))
    shapes = choose_lengths(table.lengths_N, batch_size=4, max_shapes=3)
    for planned in plan_epoch(table.lengths_N, shapes, batch_size=4, seed=0, epoch=0):
        batch = make_batch(table, planned, batch_size=4)
        for row, tokens, where in zip(
            batch.example_ids_B, batch.input_ids_BT, batch.where_BT, strict=True
        ):
            assert tokens[where].tolist() == (rows[row] if row >= 0 else [])


# Measured over five epochs; the rest is the partial batch and the longest rows' batch.
PADDING = {
    ("movie", 32): 0.10,
    ("movie", 64): 0.10,
    ("product", 32): 0.10,
    ("product", 64): 0.12,
    ("news", 32): 0.10,
    ("news", 64): 0.10,
    ("tweet", 32): 0.10,
    ("tweet", 64): 0.10,
}


@pytest.fixture(scope="module")
def reviews(review_dataset, minilm_folder):
    """(domain) -> its training split in tokens, cut once."""
    tokenizer = minilm_folder / "tokenizer.json"
    return functools.cache(
        lambda domain: tokenise_dataset(review_dataset(domain), tokenizer).splits["train"]
    )


@pytest.mark.parametrize(("domain", "batch_size"), PADDING)
def test_padding_of_the_review_data(domain, batch_size, reviews):
    lengths = reviews(domain).lengths_N
    shapes = choose_lengths(lengths, batch_size=batch_size)
    assert len(shapes) <= 16
    for epoch in range(5):
        plan = plan_epoch(lengths, shapes, batch_size=batch_size, seed=0, epoch=epoch)
        padding = padding_fraction(lengths, plan, batch_size=batch_size)
        assert padding <= PADDING[domain, batch_size]


@pytest.mark.parametrize("batch_size", [32, 64])
def test_padding_of_a_tenth_of_the_movie_snippets(batch_size, reviews):
    train = reviews("movie")
    lengths = train.take(labelled_rows(train, 0.1)).lengths_N
    shapes = choose_lengths(lengths, batch_size=batch_size)
    plan = plan_epoch(lengths, shapes, batch_size=batch_size, seed=0, epoch=0)
    assert padding_fraction(lengths, plan, batch_size=batch_size) <= 0.10
