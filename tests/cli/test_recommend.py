"""``distill-jax recommend`` for a base of users: a file in, a file out, whole or not there."""

import csv
import dataclasses
import json

import pytest
from recsys import save_model, small_split

from distill_jax.cli.main import dispatch
from distill_jax.core.errors import UserError
from distill_jax.data.people import Person
from distill_jax.evaluation import recommend_users
from distill_jax.evaluation.audience import load_audience, save_audience
from distill_jax.evaluation.item_catalogue import Catalogue, save_catalogue
from distill_jax.evaluation.open_recommender import open_recommender

SPLIT = small_split()
DATA = SPLIT.data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    save_model(folder, split=SPLIT)
    return folder


@pytest.fixture
def ask(run, tmp_path, capsys):
    """(arguments) -> rows of the output, and what was told."""

    def asked(*arguments, output="out.csv"):
        path = tmp_path / output
        dispatch(["recommend", "--model", str(run), "--output", str(path), *map(str, arguments)])
        told = capsys.readouterr()
        assert told.out == ""
        text = path.read_text()
        if output.endswith(".jsonl"):
            return [json.loads(line) for line in text.splitlines()], told.err
        return list(csv.DictReader(text.splitlines())), told.err

    return asked


@pytest.fixture
def users(tmp_path):
    path = tmp_path / "users.csv"
    path.write_text('user,history\na,"item 3; the film 7"\nuser 5,\nnobody,\n')
    return path


@pytest.fixture
def interactions(tmp_path):
    path = tmp_path / "interactions.csv"
    names = zip(DATA.users_N, DATA.items_N, strict=True)
    rows = [f"{DATA.user_names[u]},{DATA.item_names[i]}\n" for u, i in names]
    path.write_text("user,item\n" + "".join(rows) + "user 5,other\n")
    return path


def test_a_file_of_users(run, ask, users, interactions):
    rows, told = ask("--users", users, "--interactions", interactions, "-k", 3)
    assert list(rows[0]) == ["user", "rank", "item", "title", "score", "by"]
    assert [(row["user"], row["rank"]) for row in rows] == [
        (user, str(rank)) for user in ("a", "user 5", "nobody") for rank in (1, 2, 3)
    ]
    alone = open_recommender(run).recommend("item 3; item 7", 3)
    assert [row["item"] for row in rows[:3]] == [each.name for each in alone]
    assert [row["title"] for row in rows[:3]] == [each.title for each in alone]
    scores = [float(row["score"]) for row in rows[:3]]
    assert scores == pytest.approx([each.score for each in alone], rel=1e-4)
    assert [row["by"] for row in rows[::3]] == ["history", "history", "popularity"]
    assert "3 users: 2 by history, 1 by popularity" in told
    assert "1 of 18 items are not in the model's catalogue" in told
    same, _ = ask("--users", users, "--interactions", f"files:{interactions}", output="o.jsonl")
    assert [row["item"] for row in same if row["rank"] <= 3] == [row["item"] for row in rows]
    assert same[0] == {**rows[0], "rank": 1, "score": scores[0]}


def test_all_users_of_the_interactions(ask, interactions):
    rows, told = ask("--interactions", interactions, "-k", 1)
    assert {row["user"] for row in rows} <= set(DATA.user_names)
    assert f"{DATA.num_users} users: {DATA.num_users} by history" in told
    pairs = zip(DATA.users_N, DATA.items_N, strict=True)
    taken = {(DATA.user_names[u], DATA.item_names[i]) for u, i in pairs}
    assert not taken & {(row["user"], row["item"]) for row in rows}
    rows, _ = ask("--interactions", interactions, "--with-seen", "-k", 17)
    assert len(rows) == 17 * DATA.num_users


def test_filters_by_list_and_by_file(ask, users, tmp_path):
    stock = tmp_path / "stock.csv"
    stock.write_text("item,price\nitem 1,3\nitem 2,4\nitem 3,2\nsold out,9\n")
    rows, told = ask("--users", users, "--only", stock, "--without", "the film 2")
    shown = {user: {r["item"] for r in rows if r["user"] == user} for user in ("a", "nobody")}
    assert shown == {"a": {"item 1"}, "nobody": {"item 1", "item 3"}}
    assert "--only: 1 of 4 are not in the catalogue" in told
    with pytest.raises(UserError, match=r"--without: no such file, and no item is called 'itm 2'"):
        ask("--users", users, "--without", "itm 2")
    rows, _ = ask("--users", users, "--without", "; ".join(DATA.item_names[1:]))
    assert {row["item"] for row in rows} == {"item 0"}


def test_the_rest_of_what_is_told(ask, tmp_path):
    path = tmp_path / "users.jsonl"
    everything = json.dumps({"user": "all", "history": [*DATA.item_names, "nothing"]})
    path.write_text(everything + "\n")
    rows, told = ask("--users", path)
    assert rows == [] and "1 users have no item left" in told
    assert "1 words of histories ('nothing', ...) name no item" in told


def test_filters_for_one(run, capsys):
    command = ["recommend", "--model", str(run), "--history", "item 3"]
    dispatch([*command, "--only", "item 3; item 4"])
    assert [line.split("\t")[2] for line in capsys.readouterr().out.splitlines()] == ["item 4"]
    dispatch([*command, "--only", "item 3", "--with-seen"])
    assert [line.split("\t")[2] for line in capsys.readouterr().out.splitlines()] == ["item 3"]
    with pytest.raises(UserError, match="no item is left to recommend: of 17 items"):
        dispatch([*command, "--only", "item 3"])
    assert capsys.readouterr().out == ""
    dispatch([*command, "-k", "99"])
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 16 and "only 16 of the 99 items are left" in told.err


def test_an_empty_history_gets_what_is_popular(run, capsys):
    dispatch(["recommend", "--model", str(run), "--history", "", "-k", "3"])
    told = capsys.readouterr()
    counts = SPLIT.train_counts_I
    popular = (-counts).argsort(kind="stable")[:3]
    rows = [line.split("\t") for line in told.out.splitlines()]
    assert [row[2] for row in rows] == [DATA.item_names[item] for item in popular]
    assert [float(row[3]) for row in rows] == counts[popular].tolist()
    assert "the history is empty" in told.err


def test_an_id_that_is_another_items_title_is_told(tmp_path, capsys):
    save_model(tmp_path, split=SPLIT)
    titles = ["the film 0", "item 7 (1997)", *DATA.item_texts[2:]]
    save_catalogue(tmp_path / "model", Catalogue(DATA.item_names, tuple(titles)))
    line = "'item 7' is read as the id of the film 7 [item 7]; item 7 (1997) [item 1] is called so"
    dispatch(["recommend", "--model", str(tmp_path), "--history", "item 7; item 2"])
    assert line in capsys.readouterr().err
    people = tmp_path / "u.csv"
    people.write_text("history\nitem 7;item 2\nitem 7\n")
    output = ["--output", str(tmp_path / "o.csv")]
    dispatch(["recommend", "--model", str(tmp_path), "--users", str(people), *output])
    assert f"2 words of histories: {line}" in capsys.readouterr().err


def test_runs_with_repeats_show_what_was_taken(tmp_path, interactions, capsys):
    save_model(tmp_path, split=SPLIT)
    audience = dataclasses.replace(load_audience(tmp_path / "model", 17), repeats=True)
    save_audience(tmp_path / "model", audience)
    opened = open_recommender(tmp_path)
    assert "item 3" in [each.name for each in opened.recommend("item 3", 17)]
    assert "item 3" not in [each.name for each in opened.recommend("item 3", 17, with_seen=False)]
    output = tmp_path / "o.csv"
    arguments = ["--interactions", str(interactions), "-k", "17", "--output", str(output)]
    dispatch(["recommend", "--model", str(tmp_path), *arguments])
    assert len(output.read_text().splitlines()) == 1 + 17 * DATA.num_users


def test_a_file_is_whole_or_not_there(run, ask, tmp_path, monkeypatch):
    monkeypatch.setattr(recommend_users, "WINDOW", 2)

    def broken(path, columns):
        yield from (Person(row, "", ("item 3",)) for row in range(1, 6))
        if broken.counted:
            raise UserError("the disk is gone")
        broken.counted = True

    broken.counted = False
    monkeypatch.setattr("distill_jax.data.people.read_people", broken)
    with pytest.raises(UserError, match="the disk is gone"):
        ask("--users", tmp_path / "users.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "either --history, or --users"),
        (["--history", "item 3", "--users", "u.csv"], "either --history, or --users"),
        (["--users", "u.csv"], "need --output"),
        (["--history", "item 3", "--output", "o.csv"], "go with --users or --interactions"),
        (["--users", "u.csv", "--output", "out.xls"], "unknown ending of --output"),
        (["--users", "u.csv", "--output", "u.csv"], "is a folder or the input"),
        (["--users", "u.csv", "--output", "o.csv", "--new-items", "a"], "goes with --history"),
        (["--users", "nowhere.csv", "--output", "o.csv"], "no file nowhere.csv"),
        (["--users", "u.csv", "--output", "o.csv", "-k", "0"], "expected at least 1"),
    ],
)
def test_mistakes_are_told(run, arguments, told):
    with pytest.raises(UserError, match=told):
        dispatch(["recommend", "--model", str(run), *arguments])
