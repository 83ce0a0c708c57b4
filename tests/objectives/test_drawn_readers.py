"""DE-RRD's losses on a factorisation, against the sums of the paper's released code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.core.ranking_types import HistoryBatch, Negatives, RankingOutput
from distill_jax.core.top_items import TopItems, Wanted
from distill_jax.core.types import ModelShape
from distill_jax.objectives.drawn_readers import draw_places, once
from distill_jax.objectives.items import negatives_of, resolve_ranking

USERS, ITEMS, D_S, D_T, B, N = 7, 40, 3, 5, 8, 6
STUDENT, TEACHER = ModelShape(1, D_S, 1, ITEMS), ModelShape(1, D_T, 1, ITEMS)
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


IDS = np.array([3, 1, 3, 0, 5, 1, 3, -1], np.int32)  # user 3 thrice, user 1 twice, padding
TARGETS = np.array([4, 9, 4, 4, 7, 2, 8, 0], np.int32)
WHERE = (IDS >= 0)[:, None]
NEGATIVES = RNG.integers(20, ITEMS, (B, 1, N)).astype(np.int32)
NEGATIVES[2, 0, 0] = NEGATIVES[0, 0, 0]
BATCH = HistoryBatch(
    IDS, TARGETS[:, None] + 1, WHERE, TARGETS[:, None], WHERE, negatives_BTN=NEGATIVES
)
USERS_UD, ITEMS_ID = normal(USERS, D_S), normal(ITEMS, D_S)
OUTPUT = RankingOutput(USERS_UD[IDS][:, None], ITEMS_ID, users_UD=USERS_UD)
HEARD_UD, HEARD_ID = normal(USERS, D_T), normal(ITEMS, D_T)
UNSEEN = np.stack([np.random.default_rng(u).permutation(20)[:4] for u in range(USERS)])
FANS = np.stack([np.random.default_rng(i).permutation(USERS)[:3] for i in range(ITEMS)])
ZEROS = np.zeros((B, 1), np.float32)
SAID = TopItems(
    np.zeros((B, 1, 0), np.int32),
    np.zeros((B, 1, 0), np.float32),
    ZEROS,
    ZEROS,
    WHERE,
    queries_BTD=HEARD_UD[IDS][:, None],
    items_BD=HEARD_ID[TARGETS],
    unseen_BK=UNSEEN[IDS].astype(np.int32),
    negatives_BND=HEARD_ID[NEGATIVES[:, 0, :1]],
    fans_BNK=FANS[NEGATIVES[:, 0, :2]].astype(np.int32),
)


def fitted(text):
    return resolve_ranking(text, STUDENT, TEACHER, positions=B)


def value(text, step=0, params=None):
    """The sum over the batch, as the released code has it, of one term."""
    resolved = fitted(text)
    params = resolved.init_params(jax.random.key(0)) if params is None else params
    total, parts = jax.jit(resolved)(params, resolved.numbers(step, 100, 1), OUTPUT, SAID, BATCH)
    ((summed, count),) = parts.values()
    assert count == 7  # all rows but the padding, so that a weight of that makes it the sum
    assert float(total) == pytest.approx(float(summed) / 7, rel=1e-6)
    return float(summed), params


def test_every_id_counts_once():
    weights_B = once(jnp.asarray(IDS), jnp.asarray(WHERE[:, 0]), 1)
    np.testing.assert_allclose(weights_B, [1 / 3, 1 / 2, 1 / 3, 1, 1, 1 / 2, 1 / 3, 0])
    # One row in four counts four times; the mean over orders of the rows is the sum over ids.
    half = once(jnp.asarray(IDS), jnp.asarray(WHERE[:, 0]), 4)
    np.testing.assert_allclose(half, [4 / 3, 2])


def test_places_are_different_ascending_and_the_first_ones_likelier():
    draw = np.array([0, 3], np.uint32)
    places = np.asarray(draw_places(draw, 1, 2000, 12, 3, 4))
    assert (np.diff(places, axis=1) > 0).all() and places.min() >= 0 and places.max() < 12
    share = np.bincount(places.ravel(), minlength=12) / 2000
    # One place of one: exactly the chances exp(-r / decay).
    one = np.bincount(np.asarray(draw_places(draw, 1, 2000, 12, 1, 4)).ravel(), minlength=12) / 2000
    chances = np.exp(-np.arange(1, 13) / 4)
    np.testing.assert_allclose(one, chances / chances.sum(), atol=0.04)
    assert (np.diff(share[::3]) < 0).all()
    later = np.asarray(draw_places(np.array([0, 4], np.uint32), 1, 2000, 12, 3, 4))
    assert (places != later).any()


@pytest.mark.parametrize("kind", ["queries", "items"])
def test_hints_of_one_expert_are_the_sum_over_different_entities(kind):
    more = ", negatives=True" if kind == "items" else ""
    text = f"expert_hints(on='{kind}', experts=1, once=True{more})"
    found, params = value(text)
    (own,) = jax.tree.map(np.asarray, params["expert_hints"]["teacher_0"]).values()

    def cost(vectors, heard):
        middle = np.maximum(vectors @ own["first"]["kernel"][0] + own["first"]["bias"][0], 0)
        made = middle @ own["second"]["kernel"][0] + own["second"]["bias"][0]
        return float(np.sum((heard - made) ** 2)) / D_T

    if kind == "queries":
        expected = cost(USERS_UD[[0, 1, 3, 5]], HEARD_UD[[0, 1, 3, 5]])
    else:
        parts = [np.unique(TARGETS[:7]), np.unique(NEGATIVES[:7, 0, 0])]
        expected = sum(cost(ITEMS_ID[ids], HEARD_ID[ids]) / 2 for ids in parts)
    assert found == pytest.approx(expected, rel=1e-5)


def relaxed(first, below):
    """The released loss: ordered scores above others."""
    later = np.cumsum(np.exp(first[::-1]))
    return -(np.sum(first) - np.sum(np.log(later + np.sum(np.exp(below)))))


def test_lists_of_items_are_the_released_sum_over_different_users():
    """All places of the list are drawn, so that nothing is left to chance."""
    text = "relaxed_ranking(k=4, top=4, drawn=4, sampled=6, stride=1)"
    expected = 0.0
    for user, rows in {0: [3], 1: [1, 5], 3: [0, 2, 6], 5: [4]}.items():
        for row in rows:  # their others were drawn for the row
            below = ITEMS_ID[NEGATIVES[row, 0]] @ USERS_UD[user]
            expected += relaxed(ITEMS_ID[UNSEEN[user]] @ USERS_UD[user], below) / len(rows)
    assert value(text)[0] == pytest.approx(expected, rel=1e-5)


def test_an_item_of_the_list_is_never_among_the_others_below():
    text = "relaxed_ranking(k=4, top=4, drawn=4, sampled=6, stride=1)"
    resolved = fitted(text)
    inside = NEGATIVES.copy()
    inside[:, 0, 2] = UNSEEN[IDS, 1]
    numbers = resolved.numbers(0, 100, 1)
    totals = []
    for negatives in (inside, np.delete(inside, 2, axis=2)):
        own = BATCH.replace(negatives_BTN=negatives)
        totals.append(float(jax.jit(resolved)({}, numbers, OUTPUT, SAID, own)[0]))
    assert totals[0] == pytest.approx(totals[1], rel=1e-6)


def test_lists_of_users_by_item():
    """Other users are drawn in the step; without any that count, the list's own order is left."""
    text = "relaxed_ranking(k=3, top=3, drawn=3, sampled=2, stride=1, by='items', of=2)"
    found, _ = value(text)
    least, most = 0.0, 0.0
    for row in range(7):
        for item in NEGATIVES[row, 0, :2]:
            scores = USERS_UD[FANS[item]] @ ITEMS_ID[item]
            rest = np.setdiff1d(np.arange(USERS), FANS[item])
            worst = np.max(USERS_UD[rest] @ ITEMS_ID[item])
            least += relaxed(scores, np.zeros(0)) / 2
            most += relaxed(scores, np.full(2, worst)) / 2
    assert least < found < most
    assert value(text, step=1)[0] != found


def test_what_they_want_of_the_teacher_and_the_feed():
    lists = fitted("bpr(n=1) + relaxed_ranking(k=2, top=4, drawn=2, sampled=5, stride=1)")
    assert lists.teacher_capture == Wanted(unseen=4)
    assert negatives_of(lists) == Negatives(5, "position")
    fans = fitted("relaxed_ranking(k=2, top=3, drawn=2, sampled=5, by='items', of=2)")
    assert fans.teacher_capture == Wanted(fans=3, fans_of=2)
    assert negatives_of(fans) == Negatives(2, "row")
    hints = fitted("expert_hints(on='items', once=True, negatives=True)")
    assert hints.teacher_capture == Wanted(items=True, negatives=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("relaxed_ranking(top=4, drawn=5)", "drawn=5 places of top=4"),
        ("relaxed_ranking(by='items')", "are for drawn lists"),
        ("relaxed_ranking(top=4, drawn=2, sampled=0)", "need others below them"),
        ("expert_hints(once=True)", "a term each"),
        ("expert_hints(on='queries', negatives=True)", "is for on=items with once=True"),
        ("expert_hints(on='items', rows=2)", "rows above 1 are for once=True"),
    ],
)
def test_mistakes_are_told(text, message):
    with pytest.raises(UserError, match=message):
        fitted(text)


def test_students_without_vectors_of_users_are_refused():
    resolved = fitted("relaxed_ranking(k=3, top=3, drawn=3, sampled=2, by='items', of=2)")
    with pytest.raises(UserError, match="knows users by number"):
        resolved({}, resolved.numbers(0, 9), OUTPUT.replace(users_UD=None), SAID, BATCH)
