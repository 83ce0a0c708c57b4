"""Lists for everybody are those of one at a time, whatever they rest on."""

import json
import time

import numpy as np
import pytest
from recsys import save_model, small_split

from distill_jax.core.errors import UserError
from distill_jax.data.people import Person
from distill_jax.evaluation import recommend_users as module
from distill_jax.evaluation.audience import FILE, load_audience
from distill_jax.evaluation.open_recommender import open_recommender
from distill_jax.evaluation.recommend import recommend
from distill_jax.evaluation.recommend_users import UserLists, shown_items, taken_from

SPLIT = small_split()
DATA = SPLIT.data
UNTRAINED = 4
"""A user of whom the training sees nothing."""
SPLIT.train_ends_U[UNTRAINED] = DATA.offsets_U1[UNTRAINED]


def asked(opened, people, k=4, **options):
    """Label -> (what the list rests on, items, scores), and what was told."""
    lists = UserLists(opened, k, **options)
    found = {}
    for window in lists.windows(people):
        rows = zip(window.users, window.by, window.top_EK, window.scores_EK, strict=True)
        found |= {user: (by, top.tolist(), scores) for user, by, top, scores in rows}
    return found, lists.told


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    save_model(folder, split=SPLIT)
    return open_recommender(folder)


def test_many_get_what_each_gets_alone(opened, monkeypatch):
    monkeypatch.setattr(module, "WINDOW", 5)
    rng = np.random.default_rng(0)
    histories = [rng.integers(17, size=n).tolist() for n in rng.integers(1, 15, 23)]
    people = [
        Person(row, f"u{row}", tuple(DATA.item_names[item] for item in items))
        for row, items in enumerate(histories)
    ]
    found, told = asked(opened, iter(people))
    assert list(found) == [person.user for person in people]  # the order of the file
    for person in people:
        by, items, scores = found[person.user]
        alone = opened.recommend(person.history, 4)
        assert by == "history" and items[: len(alone)] == [each.item for each in alone]
        np.testing.assert_allclose(scores[: len(alone)], [e.score for e in alone], rtol=1e-4)
    assert told.by == {"user": 0, "history": 23, "popularity": 0}


def test_what_is_held_does_not_grow_with_the_users(opened, monkeypatch):
    monkeypatch.setattr(module, "WINDOW", 5)
    read = 0

    def people():
        nonlocal read
        for read in range(1, 1001):
            yield Person(read, "", ("item 3",))

    windows = UserLists(opened, 2).windows(people())
    for done in range(1, 50):
        next(windows)
        time.sleep(0.001)  # the threads that read ahead may go as far as they go
        assert read <= 5 * (done + 5)
    windows.close()


def test_whom_nobody_knows_gets_what_is_popular(opened):
    people = [
        Person(1, "nobody"),
        Person(2, "", ("no such item",)),
        Person(3, "user 5"),
        Person(4, "", ("no such item", "item 3")),
    ]
    found, told = asked(opened, people, taken=taken_from(DATA, opened.catalogue))
    counts = SPLIT.train_counts_I
    popular = np.argsort(-counts, kind="stable")[:4].tolist()
    for label in ("nobody", "2"):
        by, items, scores = found[label]
        assert by == "popularity" and items == popular and scores.tolist() == [*counts[popular]]
    start, end = DATA.offsets_U1[5:7]
    alone = opened.recommend([DATA.item_names[i] for i in DATA.items_N[start:end]], 4)
    assert found["user 5"][:2] == ("history", [each.item for each in alone])
    assert found["4"][1] == [each.item for each in opened.recommend("item 3", 4)]
    assert told.by == {"user": 0, "history": 2, "popularity": 2}
    assert (told.unknown, told.example) == (2, "no such item")


def test_a_row_without_a_name_is_nobody_else(opened, tmp_path):
    """The number of a row is no user's name."""
    data = small_split().data
    object.__setattr__(data, "user_names", tuple(map(str, range(data.num_users))))
    found, _ = asked(opened, [Person(3)], taken=taken_from(data, opened.catalogue))
    assert found["3"][0] == "popularity"


def test_what_may_be_shown(opened):
    person = Person(1, "u", ("item 3", "item 4"))
    shown_I = shown_items(opened.catalogue, [2, 3, 9, 11], [9])
    found, told = asked(opened, [person, Person(2, "x")], shown_I=shown_I)
    assert sorted(found["u"][1]) == [-1, -1, 2, 11] and sorted(found["x"][1]) == [-1, 2, 3, 11]
    seen, _ = asked(opened, [person], shown_I=shown_I, with_seen=True)
    assert sorted(seen["u"][1]) == [-1, 2, 3, 11] and told.empty == 0
    none, told = asked(opened, [person], shown_I=shown_items(opened.catalogue, [3]))
    assert none["u"][1] == [-1] * 4 and told.empty == 1
    with pytest.raises(UserError, match="no item of the catalogue is left"):
        shown_items(opened.catalogue, [3], [3])


def test_a_user_with_a_vector_is_asked_by_it(tmp_path):
    save_model(tmp_path, "bpr_mf-8", split=SPLIT)
    opened, user = open_recommender(tmp_path), DATA.num_users - 1
    taken = taken_from(DATA, opened.catalogue)
    people = [
        Person(1, f"user {user}"),
        Person(2, "x", ("item 3",)),
        Person(3, f"user {UNTRAINED}"),
    ]
    found, told = asked(opened, people, taken=taken)
    cases = SPLIT.test.histories(DATA).take(np.flatnonzero(SPLIT.test.users_E == user))
    items = [item for item, _ in taken.of(f"user {user}")]
    whole = module.histories_of([items], DATA.num_items, [user])
    expected, _ = recommend(opened.model.scorer, whole, 4)
    assert found[f"user {user}"][:2] == ("user", expected[0].tolist())
    # The table's own question, of the same user with a shorter history: the same scores.
    np.testing.assert_allclose(opened.model.scorer(cases), opened.model.scorer(whole), rtol=1e-5)
    assert told.by == {"user": 1, "history": 2, "popularity": 0}


def test_a_run_that_does_not_say_what_is_popular(tmp_path):
    save_model(tmp_path, split=SPLIT, audience=False)
    opened = open_recommender(tmp_path)
    with pytest.raises(UserError, match="does not say what is popular"):
        UserLists(opened, 3)
    found, _ = asked(opened, [Person(1, "x")], taken=taken_from(DATA, opened.catalogue))
    counts = np.bincount(DATA.items_N, minlength=DATA.num_items)
    assert found["x"][1] == np.argsort(-counts, kind="stable")[:4].tolist()
    other = small_split()
    object.__setattr__(other.data, "item_names", tuple(f"x{n}" for n in range(17)))
    with pytest.raises(UserError, match="no item of the interactions 'walks'"):
        taken_from(other.data, opened.catalogue)


def test_what_a_run_keeps_of_its_users(tmp_path):
    save_model(tmp_path, "bpr_mf-8", split=SPLIT)
    folder = tmp_path / "model"
    found = load_audience(folder, 17)
    assert found.counts_I.tolist() == SPLIT.train_counts_I.tolist()
    assert [n for n, user in enumerate(found.users) if user is None] == [UNTRAINED]
    assert found.users[12] == "user 12"
    body = json.loads((folder / FILE).read_text())
    for damage in ({}, [1], {**body, "counts": [1]}, {**body, "users": 3}, {**body, "counts": "x"}):
        (folder / FILE).write_text(json.dumps(damage))
        with pytest.raises(UserError, match="damaged"):
            load_audience(folder, 17)
