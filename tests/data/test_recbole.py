import pytest
from damages import damaged, told
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_jax.core.errors import UserError
from distill_jax.data.load_interactions import load_interactions, load_ranking_split
from distill_jax.data.recbole import read_atomic

INTER = (
    "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    "u1\ti2\t4\t20\nu1\ti1\t5\t10\nu2\ti1\t3\t5.5\nu1\ti3\t1\t30\n"
)
ITEM = (
    "item_id:token\tname:token_seq\tyear:token\tgenre:token_seq\tvector:float_seq\n"
    "i1\tToy Story\t1995\tAnimation Comedy\t0.1 0.2\ni2\tHeat\t\tCrime\t\ni9\tM\t1931\t\t1\n"
)
USER = "user_id:token\tage:float\nu1\t33\nu2\t\n"


def write(folder, name="shop", **files):
    for ending, text in files.items():
        (folder / f"{name}.{ending.replace('__', '.')}").write_text(text)
    return folder


def test_atomic_files(tmp_path):
    data = load_interactions(f"files:{write(tmp_path, inter=INTER, item=ITEM, user=USER)}")
    assert data.user_names == ("u1", "u2") and data.item_names == ("i1", "i2", "i3")
    assert data.items_N.tolist() == [0, 1, 2, 0] and data.times_N.tolist() == [10, 20, 30, 5.5]
    assert data.ratings_N.tolist() == [5, 4, 1, 3]
    assert data.item_texts == ("Toy Story | Animation Comedy", "Heat | Crime", "")
    assert "features of users are not used" in data.notes


def test_types_of_cells(tmp_path):
    table = read_atomic(write(tmp_path, item=ITEM) / "shop.item")
    assert table.types["vector"] == "float_seq" and table.lines == [2, 3, 4]
    assert table.columns["vector"] == [(0.1, 0.2), (), (1.0,)]
    assert table.columns["name"][0] == ("Toy", "Story") and table.columns["year"][1] == ""


def test_only_interactions_with_users_and_items(tmp_path):
    text = "item_id:token\tuser_id:token\nx\ta\ny\ta\n"
    data = load_interactions(f"files:{write(tmp_path, inter=text)}")
    assert data.times_N is None and data.ratings_N is None and data.item_texts is None


def test_a_split_of_ones_own(tmp_path):
    head = "user_id:token\titem_id:token\n"
    write(
        tmp_path,
        train__inter=f"{head}u\ta\nv\tb\n",
        valid__inter=f"{head}u\tb\n",
        test__inter=f"{head}u\tc\n",
    )
    split = load_ranking_split(f"files:{tmp_path}")
    assert split.train_counts_I.tolist() == [1, 1, 0]
    assert split.test.targets_E(split.data).tolist() == [2]
    (tmp_path / "shop.valid.inter").unlink()
    with pytest.raises(UserError, match=r"no shop\.valid\.inter .* needs all three"):
        load_ranking_split(f"files:{tmp_path}")


def test_times_under_other_names(tmp_path):
    text = "user_id:token\titem_id:token\ttime:float\nu\tb\t964982800000\nu\ta\t964982703000\n"
    data = load_interactions(f"files:{write(tmp_path, inter=text)}")
    assert [data.item_names[item] for item in data.items_N] == ["a", "b"]
    assert data.notes == (
        "times from 2000-07-30 to 2000-07-30 (column 'time' in milliseconds, UTC)",
    )
    text = "user_id:token\titem_id:token\nu\tb\nu\ta\n"
    data = load_interactions(f"files:{write(tmp_path, inter=text)}")
    assert [data.item_names[item] for item in data.items_N] == ["b", "a"]
    assert data.notes == ("no time column: the file's order decides",)


LISTS = "user_id:token\titem_id_list:token_seq\titem_id:token\n"


@pytest.mark.parametrize(
    "rows",
    [
        "u\ta b c\td\nv\tb\tc\n",
        "u\ta\tb\nu\ta b\tc\nv\tb\tc\nu\tb c\td\n",  # every prefix, cut to the newest two
    ],
)
def test_lists_of_items_are_unrolled(tmp_path, rows):
    data = load_interactions(f"files:{write(tmp_path, inter=LISTS + rows)}")
    assert [data.item_names[item] for item in data.items_N] == list("abcdbc")
    assert data.lengths_U.tolist() == [4, 2]
    assert data.notes == ("item_id_list: the order of the lists is that of time",)


def test_lists_of_items_with_a_split(tmp_path):
    write(
        tmp_path,
        train__inter=f"{LISTS}u\ta\tb\nu\ta b\tc\n",
        valid__inter=f"{LISTS}u\ta b c\td\nw\ta b\tc\n",
        test__inter=f"{LISTS}u\ta b c d\te\n",
    )
    split = load_ranking_split(f"files:{tmp_path}")
    names = split.data.item_names
    assert [names[item] for item in split.data.items_N] == list("abcdeabc")
    assert [names[item] for item in split.validation.targets_E(split.data)] == ["d", "c"]
    assert [names[item] for item in split.test.targets_E(split.data)] == ["e"]
    assert split.train_counts_I.tolist() == [2, 2, 1, 0, 0]


@pytest.mark.parametrize("second", ["u\ta c\td", "u\t\td", "u\tb c\td"])
def test_lists_that_do_not_go_on_are_told(tmp_path, second):
    write(tmp_path, inter=f"{LISTS}u\ta\tb\n{second}\n")
    with pytest.raises(UserError, match=r"line 3: item_id_list of user 'u' does not go on"):
        load_interactions(f"files:{tmp_path}")


HEAD = INTER.split("\n")[0] + "\n"


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({"inter": HEAD}, "no rows"),
        ({"inter": "user_id\titem_id:token\na\tb\n"}, "line 1: column 'user_id' has no type"),
        ({"inter": "user_id:tokn\titem_id:token\na\tb\n"}, "'tokn' of .*Did you mean 'token'"),
        (
            {"inter": "user_id:float\titem_id:token\n1\tb\n"},
            "has type 'float'; expected 'user_id:t",
        ),
        (
            {"inter": "person:token\titem_id:token\na\tb\n"},
            "unknown column 'user_id' in .*line 1.*--columns user=",
        ),
        ({"inter": "a:token\ta:float\nx\t1\n"}, "line 1: a column occurs twice"),
        ({"inter": f"{HEAD}u\ti\t4\n"}, "line 2: 3 cells; expected 4"),
        ({"inter": f"{HEAD}u\ti\tgood\t1\n"}, "line 2: column 'rating' holds 'good'"),
        ({"inter": f"{HEAD}u\ti\t4\t\n"}, "line 2: column 'timestamp' is empty"),
        ({"inter": f"{HEAD}u\ti\t4\tinf\n"}, "line 2: column 'timestamp' holds 'inf'"),
        ({"inter": f"{HEAD}u\t\t4\t1\n"}, "line 2: column 'item_id' is empty"),
        ({"inter": INTER, "other__inter": INTER}, r"expected one NAME\.inter"),
        ({"inter": INTER, "item": ITEM + ITEM.split("\n")[1] + "\n"}, "line 5: item 'i1' occurs a"),
        ({"inter": INTER, "user": "id:token\nx\n"}, "unknown column 'user_id'"),
    ],
)
def test_damaged_files(tmp_path, files, match):
    with pytest.raises(UserError, match=match) as caught:
        load_interactions(f"files:{write(tmp_path, **files)}")
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("atomic")


@settings(max_examples=60)
@given(st.sampled_from(["inter", "item", "user"]), st.data())
def test_damage_is_read_or_told(folder, ending, data):
    whole = {"inter": INTER, "item": ITEM, "user": USER}
    write(folder, **whole)
    (folder / f"shop.{ending}").write_bytes(data.draw(damaged(whole[ending].encode())))
    told(lambda: load_interactions(f"files:{folder}").digest)
