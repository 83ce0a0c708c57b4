import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from searches import tokens_of, toy_search, toy_table

from distill_jax.core.errors import UserError
from distill_jax.data.query_lists import choose_candidates, pair_table
from distill_jax.data.query_product import TRANSFER
from distill_jax.training.feed import Feed


def lists(table, step, seed=0, batch_size=5):
    return Feed(table, (table.query_length,), batch_size, seed, draws=table.draw)(step)[0]


def test_candidates_are_judged_ones_first_then_what_is_found():
    data = toy_search()

    def found(rows):
        return np.tile(np.arange(len(data.items)), (len(rows), 1))

    candidates = choose_candidates(data, found, size=8)
    query = int(data.splits["train"][0])
    judged, gains = data.judged(query)
    assert candidates.items_QM[query, :4].tolist() == judged[:4].tolist()  # half of the places
    assert candidates.gains_QM[query, :4] == pytest.approx(gains[:4])
    assert not set(candidates.items_QM[query, 4:]) & set(judged.tolist())  # relevant, and known
    assert (candidates.gains_QM[query, 4:] == 0).all()
    transfer = int(data.splits[TRANSFER][0])
    assert set(data.unjudged(transfer)) <= set(candidates.items_QM[transfer].tolist())
    assert np.isnan(candidates.gains_QM[transfer]).all()
    for split in ("validation", "test"):
        assert (candidates.items_QM[data.splits[split]] == -1).all()


def test_some_candidates_are_drawn_from_all_products_the_same_in_every_run():
    data = toy_search()

    def found(rows):
        return np.tile(np.arange(len(data.items)), (len(rows), 1))

    def those_of(share):
        return choose_candidates(data, found, size=12, random_share=share).items_QM[query, 6:]

    query = int(data.splits["train"][0])
    judged = set(data.judged(query)[0].tolist())
    best = [item for item in range(len(data.items)) if item not in judged]
    assert those_of(0.0).tolist() == best[:6]
    mixed = those_of(0.5)
    assert mixed[:3].tolist() == best[:3] and not set(mixed.tolist()) & judged
    assert len(set(mixed.tolist())) == 6 and mixed.tolist() == those_of(0.5).tolist()
    with pytest.raises(UserError, match="random share"):
        those_of(1.5)


@given(st.integers(0, 50), st.integers(0, 5))
def test_a_list_starts_with_a_relevant_product_and_the_rest_are_less_so(step, seed):
    table = toy_table()
    batch = lists(table, step, seed)
    for row, query in enumerate(batch.example_ids_B):
        if query < 0:
            assert not batch.there_BN[row].any() and not batch.label_where_B[row]
            continue
        gain_of = dict(zip(*(x.tolist() for x in table.data.judged(int(query))), strict=True))
        items = batch.items_BN[row][batch.there_BN[row]].tolist()
        gains = [gain_of.get(item, 0.0) for item in items]
        assert gains[0] > 0 and max(gains[1:]) < gains[0] and len(set(items)) == len(items)
        assert batch.label_where_B[row]


def test_the_relevant_product_changes_from_step_to_step():
    table = toy_table()
    firsts = {}
    for step in range(30):
        batch = lists(table, step)
        for query, items in zip(batch.example_ids_B, batch.items_BN, strict=True):
            firsts.setdefault(int(query), set()).add(int(items[0]))
    assert all(len(found) > 2 for query, found in firsts.items() if query >= 0)


def test_lists_are_a_pure_function_of_seed_and_step():
    table = toy_table()
    one, again, other = lists(table, 3), lists(table, 3), lists(table, 3, seed=1)
    assert (one.items_BN == again.items_BN).all()
    assert not np.array_equal(one.items_BN, other.items_BN)
    larger = lists(table, 3, batch_size=5).items_BN
    assert (one.items_BN == larger).all()


def test_unlabelled_queries_start_with_the_teachers_favourite():
    table = toy_table(transfer=True)
    seen = 0
    for step in range(8):
        batch = lists(table, step)
        for row, query in enumerate(batch.example_ids_B):
            if query >= 0 and query in table.data.splits[TRANSFER]:
                scores = dict(
                    zip(table.candidates.items_QM[query], table.scores_QM[query], strict=True)
                )
                own = [scores[item] for item in batch.items_BN[row][batch.there_BN[row]]]
                assert own[0] == max(own) and not batch.label_where_B[row]
                seen += 1
    assert seen > 3


def test_other_lists_products_are_wrong_unless_relevant_or_in_the_list():
    table = toy_table()
    for step in range(6):
        batch = lists(table, step, batch_size=8)
        first_B = np.where(batch.there_BN[:, 0], batch.items_BN[:, 0], -1)
        for b in range(8):
            wrong = [int(first_B[c]) for c in np.flatnonzero(batch.other_where_BB[b])]
            if batch.example_ids_B[b] < 0:
                assert not wrong
                continue
            judged, gains = table.data.judged(int(batch.example_ids_B[b]))
            out = {*judged[gains > 0].tolist(), *batch.items_BN[b].tolist(), -1}
            assert set(wrong) == set(first_B.tolist()) - out and len(set(wrong)) == len(wrong)


def test_tokens_are_those_of_the_drawn_products():
    towers, pairs = (lists(toy_table(kind), 2) for kind in ("towers", "pairs"))
    items = tokens_of(toy_search().items)
    for row in range(5):
        for place in np.flatnonzero(towers.there_BN[row]):
            own = items.take(towers.items_BN[row, place : place + 1]).tokens_S
            assert (towers.item_ids_BNT[row, place] == own).all()
            query = towers.query_ids_BT[row]
            assert pairs.pair_ids_BNT[row, place].tolist() == [*query, *own[1:]]
            assert pairs.pair_types_BNT[row, place].tolist() == [0] * 4 + [1] * 3
    assert pairs.item_ids_BNT is None and towers.pair_ids_BNT is None


def test_pairs_are_what_the_tokeniser_makes_of_pairs(minilm_folder):
    from distill_jax.data.table import TextDataset, TextTable
    from distill_jax.data.tokenise import tokenise_dataset

    left, right = ("hot drink", "a"), ("Mug | Food + Beverage", "Ünïcode 12")

    def tokens(texts, texts_b=None):
        table = TextTable(("x", "y"), texts, texts_b)
        data = TextDataset("t", (), {"train": table})
        return tokenise_dataset(data, minilm_folder / "tokenizer.json").splits["train"]

    both = pair_table(tokens(left), tokens(right), np.array([0, 1]), np.array([0, 1]))
    whole = tokens(left, right)
    for name in ("tokens_S", "token_types_S", "offsets_N1"):
        assert np.array_equal(getattr(both, name), getattr(whole, name)), name


def test_what_cannot_be_a_list_is_refused():
    with pytest.raises(UserError, match="a list has 2 to 12 products"):
        toy_table(list_size=13)
    with pytest.raises(UserError, match="at least 2 candidates"):
        toy_table(size=1)
    table = toy_table(transfer=True)
    with pytest.raises(UserError, match="need a teacher's scores"):
        type(table)(
            table.data, table.queries, table.items, table.candidates, 4, "towers", use_transfer=True
        )
