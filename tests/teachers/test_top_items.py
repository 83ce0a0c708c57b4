"""What a recommender said at every position: right, the same live and cached, refused otherwise."""

import dataclasses
import json
from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recsys import small_split
from scipy.special import logsumexp

from distill_jax.core.errors import UserError
from distill_jax.core.ranking_types import RankingOutput, all_logits
from distill_jax.core.top_items import Wanted
from distill_jax.data.histories import Draws, Hiding, HistoryTable
from distill_jax.models.recommenders.bert4rec import Bert4RecConfig
from distill_jax.models.recommenders.build import Recommender
from distill_jax.models.recommenders.sasrec import SasRecConfig
from distill_jax.models.recommenders.text_items import ItemConfig
from distill_jax.teachers import recommender_speaker
from distill_jax.teachers.recommender_speaker import RecommenderSpeaker, table_for
from distill_jax.teachers.top_items import (
    TopItemsProvenance,
    build_top_items,
    open_top_items,
    popularity_strata,
)

TOP, LENGTH = 5, 6
EVERYTHING = Wanted(top=TOP, strata=3, queries=True, items=True)


@pytest.fixture(scope="module")
def split():
    return small_split(num_users=20, num_items=15)


@pytest.fixture(scope="module")
def teacher(split):
    items = ItemConfig(split.data.num_items, 8, initializer_range=0.5)
    recommender = Recommender(SasRecConfig(items, num_layers=1, max_length=LENGTH))
    return recommender, recommender.init(jax.random.key(4))


@pytest.fixture(scope="module")
def speaker(teacher):
    return RecommenderSpeaker(*teacher, top=TOP)


@pytest.fixture(scope="module")
def table(split):
    return HistoryTable(split, "next", LENGTH)


@pytest.fixture(scope="module")
def built(tmp_path_factory, table, speaker):
    folder = tmp_path_factory.mktemp("cache") / "top"
    provenance = TopItemsProvenance("a teacher", table.digest, TOP)
    build_top_items(folder, provenance, table, speaker)
    return folder, provenance


@pytest.fixture
def cache(built):
    return open_top_items(*built)


def batch_of(table, rows=8, length=LENGTH):
    return table.batch(np.arange(min(len(table), rows - 1)), length, rows)


def test_the_speaker_names_the_likeliest_and_sums_the_rest(table, teacher, speaker):
    recommender, params = teacher
    batch = batch_of(table)
    output = recommender.apply({"params": params}, batch)
    logits_BTI = np.asarray(all_logits(output, output.queries_BTD))
    said = speaker(batch)
    order = np.argsort(-logits_BTI, axis=-1, kind="stable")
    where = np.asarray(said.where_BT)
    np.testing.assert_array_equal(where, batch.where_BT)
    np.testing.assert_array_equal(np.asarray(said.ids_BTK)[where], order[..., :TOP][where])
    rest = np.take_along_axis(logits_BTI, order[..., TOP:], axis=-1)
    np.testing.assert_allclose(
        np.asarray(said.rest_BT)[where], logsumexp(rest, axis=-1)[where], rtol=1e-5
    )
    target = np.take_along_axis(logits_BTI, batch.targets_BT[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(np.asarray(said.target_BT)[where], target[where], rtol=1e-4)
    items = np.asarray(output.items_ID)[batch.targets_BT[:, -1]]
    np.testing.assert_allclose(said.items_BD, items, rtol=1e-6)


@given(st.integers(0, 2**16), st.integers(2, 12), st.integers(1, 12))
@settings(max_examples=12)
def test_by_blocks_it_names_the_same(quickly, seed, num_items, block):
    """Logits are whole numbers: many are equal, and none is rounded."""
    rng = np.random.default_rng(seed)
    queries, items, bias = (
        np.float32(rng.integers(-2, 3, size)) for size in ((2, 3, 4), (num_items, 4), (num_items,))
    )
    top = int(rng.integers(1, num_items))
    output = RankingOutput(queries, items, bias)
    whole = jax.jit(partial(recommender_speaker.likeliest, top=top), **quickly)(output)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recommender_speaker, "MOST_LOGITS", 0)
        patch.setattr(recommender_speaker, "BLOCK", block)
        parts = jax.jit(partial(recommender_speaker.likeliest, top=top), **quickly)(output)
    for got, expected in zip(parts, whole, strict=True):
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_of_a_million_items_it_holds_the_logits_of_some_thousand():
    """16 histories of 200 items: all logits would be 13 GB."""
    real = partial(jax.ShapeDtypeStruct, dtype=np.float32)
    output = RankingOutput(real((16, 200, 64)), real((1_000_000, 64)))
    compiled = jax.jit(partial(recommender_speaker.likeliest, top=100)).lower(output).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2**29


def compare(cached, live, where):
    np.testing.assert_array_equal(cached.ids_BTK[where], np.asarray(live.ids_BTK)[where])
    for name in ("logits_BTK", "rest_BT", "target_BT", "queries_BTD"):
        ours, theirs = getattr(cached, name)[where], np.asarray(getattr(live, name))[where]
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=4e-3, err_msg=name)


@pytest.mark.parametrize("length", [LENGTH, 4])
def test_live_and_cached_are_the_same(table, speaker, cache, split, length):
    """Whatever length a batch is padded or cut to: entries are counted from the newest."""
    batch = batch_of(table, length=length)
    strata_I = popularity_strata(split.train_counts_I, 3)
    said = cache.listen(EVERYTHING, strata_I=strata_I)(batch)
    live = speaker(batch_of(table))
    where = np.asarray(said.where_BT)
    np.testing.assert_array_equal(where, batch.where_BT)
    own = jax.tree.map(np.asarray, live)
    cut = own.replace(
        **{
            name: getattr(own, name)[:, LENGTH - length :]
            for name in ("ids_BTK", "logits_BTK", "rest_BT", "target_BT", "queries_BTD")
        }
    )
    compare(said, cut, where)
    rows = where[:, -1]
    np.testing.assert_allclose(said.items_BD[rows], own.items_BD[rows], rtol=1e-6)
    np.testing.assert_array_equal(said.strata_BTK, strata_I[said.ids_BTK])


def test_fewer_items_leave_more_to_the_rest(table, cache):
    batch = batch_of(table)
    whole = cache.listen(Wanted(top=TOP))(batch)
    few = cache.listen(Wanted(top=2))(batch)
    where = whole.where_BT
    assert few.ids_BTK.shape[-1] == 2 and few.queries_BTD is None and few.items_BD is None
    both = np.logaddexp(whole.rest_BT, logsumexp(whole.logits_BTK[..., 2:], axis=-1))
    np.testing.assert_allclose(few.rest_BT[where], both[where], rtol=1e-4)


def test_other_ways_of_reading_a_history_find_their_entries(split, cache):
    """Hidden items and whole users: an entry belongs to the target, not to a column."""
    for task in ("any", "hidden"):
        table = HistoryTable(split, task, LENGTH)
        batch = batch_of(table)
        if task == "hidden":
            batch = Draws(table, Hiding())(batch, 0, 3)
        said = cache.listen(Wanted(top=TOP))(batch)
        entries, where = cache.entries(batch)
        there = where & np.asarray(batch.target_where_BT)
        assert there.any()
        np.testing.assert_array_equal(
            cache.targets_M[entries[there]], np.asarray(batch.targets_BT)[there]
        )
        # A user's first item has nothing before it, so the teacher was not asked about it.
        first = np.asarray(batch.where_BT) & ~where
        assert 0 < first.sum() <= len(batch.where_BT)
        assert (said.logits_BTK[~where] == 0).all()


def test_a_batch_of_other_targets_is_a_bug_that_is_found(table, cache):
    batch = batch_of(table)
    wrong = batch.replace(targets_BT=(np.asarray(batch.targets_BT) + 1) % 15)
    with pytest.raises(ValueError, match="disagree about the targets"):
        cache.listen(Wanted(top=1))(wrong)


def test_the_placebo_deals_whole_words_to_other_positions(table, cache):
    batch = batch_of(table)
    plain = cache.listen(EVERYTHING, strata_I=np.zeros(15, np.int32))
    shuffled = cache.listen(EVERYTHING, strata_I=np.zeros(15, np.int32), shuffle=1)
    own, other, again = plain(batch), shuffled(batch), shuffled(batch)
    jax.tree.map(np.testing.assert_array_equal, other, again)
    where = own.where_BT
    np.testing.assert_array_equal(other.where_BT, where)
    changed = (own.ids_BTK[where] != other.ids_BTK[where]).any(axis=1)
    assert changed.mean() > 0.7
    words = {tuple(row) for row in np.asarray(cache.ids_MK).tolist()}
    assert {tuple(row) for row in other.ids_BTK[where].tolist()} <= words
    # Logits, rest and query of an entry stay together.
    order = np.random.default_rng(1).permutation(len(cache))
    entries, _ = cache.entries(batch)
    dealt = order[entries[where]]
    np.testing.assert_array_equal(other.rest_BT[where], cache.rest_M[dealt])
    np.testing.assert_array_equal(
        other.queries_BTD[where], np.asarray(cache.queries_MD[dealt], np.float32)
    )


def test_more_than_was_kept_cannot_be_read(cache):
    with pytest.raises(UserError, match="likeliest 6 items; its cache keeps 5"):
        cache.listen(Wanted(top=6))


@pytest.mark.parametrize("change", [{"teacher": "another"}, {"data": "other"}, {"top": 4}])
def test_a_cache_is_refused_for_what_it_was_not_made_of(built, change):
    folder, provenance = built
    [key] = change
    with pytest.raises(UserError, match=f"made of something else: {key} differ"):
        open_top_items(folder, dataclasses.replace(provenance, **change))


def test_damage_is_found(tmp_path, table, speaker):
    provenance = TopItemsProvenance("a teacher", table.digest, TOP)

    def fresh(name):
        build_top_items(tmp_path / name, provenance, table, speaker)
        return tmp_path / name

    one = fresh("changed")
    data = bytearray((one / "best_M.npy").read_bytes())
    data[-1] ^= 1
    (one / "best_M.npy").write_bytes(data)
    two = fresh("missing")
    (two / "ids_MK.npy").unlink()
    three = fresh("edited")
    body = json.loads((three / "cache.json").read_text())
    body["provenance"]["teacher"] = "forged"
    (three / "cache.json").write_text(json.dumps(body))
    for folder in (one, two, three, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="is damaged"):
            open_top_items(folder, provenance)


def test_a_build_that_is_stopped_leaves_nothing(tmp_path, table, speaker):
    provenance = TopItemsProvenance("a teacher", table.digest, TOP)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_top_items(tmp_path / "top", provenance, table, speaker, on_batch=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_that_diverged_is_told(tmp_path, table, teacher):
    recommender, params = teacher
    broken = jax.tree.map(lambda x: x * np.nan, params)
    speaker = RecommenderSpeaker(recommender, broken, top=TOP)
    with pytest.raises(UserError, match="is not finite"):
        build_top_items(tmp_path / "top", TopItemsProvenance("t", "d", TOP), table, speaker)


def test_only_models_that_read_forwards_teach(split, table):
    hidden = Recommender(Bert4RecConfig(ItemConfig(15, 8), num_layers=1, max_length=LENGTH))
    with pytest.raises(UserError, match="cannot teach position by position"):
        table_for(hidden, table)
    shorter = Recommender(SasRecConfig(ItemConfig(15, 8), num_layers=1, max_length=3))
    assert table_for(shorter, HistoryTable(split, "any", LENGTH)).max_length == 3
    with pytest.raises(UserError, match="of 15 items a teacher names 1 to 14"):
        RecommenderSpeaker(shorter, shorter.init(jax.random.key(0)), top=15)


def test_strata_are_by_falling_popularity_and_of_equal_weight():
    counts = np.array([1, 50, 0, 30, 10, 9])
    assert popularity_strata(counts, 2).tolist() == [1, 0, 1, 1, 1, 1]
    assert popularity_strata(counts, 3).tolist() == [2, 0, 2, 1, 2, 2]
    assert popularity_strata(counts, 1).tolist() == [0] * 6
    assert popularity_strata(np.zeros(3, int), 2).tolist() == [0, 0, 0]


def test_windows_are_heard_as_they_were_said(split, speaker, tmp_path):
    """Every target of long histories, in the windows of the table and in shorter ones."""
    table = HistoryTable(split, "next", LENGTH, windows=True)
    assert len(table) > len(set(table.users_R.tolist()))
    provenance = TopItemsProvenance("a teacher", table.digest, TOP)
    assert provenance.data != HistoryTable(split, "next", LENGTH).digest
    build_top_items(tmp_path / "top", provenance, table, speaker)
    cache = open_top_items(tmp_path / "top", provenance)
    assert len(cache) == table.lengths_N.sum()
    batch = table.batch(np.arange(len(table)), LENGTH, len(table))
    said, heard = speaker(batch), cache.listen(Wanted(top=TOP, queries=True, items=True))(batch)
    where = np.asarray(said.where_BT)
    for name in ("ids_BTK", "target_BT", "rest_BT", "queries_BTD"):
        ours, theirs = np.asarray(getattr(heard, name)), np.asarray(getattr(said, name))
        np.testing.assert_allclose(ours[where], theirs[where], rtol=1e-3, atol=1e-3, err_msg=name)
    np.testing.assert_allclose(heard.items_BD, said.items_BD, rtol=1e-6)
    elsewhere = dataclasses.replace(batch, later_B=batch.later_B + 1)
    with pytest.raises(ValueError, match="disagree about the targets"):
        cache.listen(Wanted(top=TOP))(elsewhere)
    shorter = HistoryTable(split, "next", 4, windows=True)
    heard = cache.listen(Wanted(top=TOP))(shorter.batch(np.arange(len(shorter)), 4, len(shorter)))
    assert heard.where_BT.sum() == table.lengths_N.sum()


def test_of_some_users_it_says_what_it_says_of_all(table, speaker, cache, tmp_path):
    provenance = TopItemsProvenance("a teacher", table.digest, TOP, users=6)
    assert provenance.digest != cache.provenance.digest
    build_top_items(tmp_path / "some", provenance, table, speaker)
    some = open_top_items(tmp_path / "some", provenance)
    batch = table.batch(np.arange(len(table)), LENGTH, len(table) + 1)
    wanted = Wanted(top=TOP)
    heard, all_heard = some.listen(wanted)(batch), cache.listen(wanted)(batch)
    spoken_B = heard.where_BT.any(axis=1)
    assert spoken_B.sum() == 6 and len(some) < len(cache)
    np.testing.assert_array_equal(heard.where_BT[spoken_B], all_heard.where_BT[spoken_B])
    np.testing.assert_array_equal(heard.ids_BTK[spoken_B], all_heard.ids_BTK[spoken_B])
    with pytest.raises(UserError, match="users"):
        open_top_items(tmp_path / "some", cache.provenance)
