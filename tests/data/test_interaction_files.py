import gzip

import numpy as np
import pytest
from damages import damaged, told
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_jax.core.errors import UserError
from distill_jax.data import separated
from distill_jax.data.build_interactions import build_interactions
from distill_jax.data.column_names import parse_columns
from distill_jax.data.interaction_files import read
from distill_jax.data.load_interactions import load_interactions, load_ranking_split

CSV = (
    "user,item,time,rating,shop\n"
    'ann,"cup, big",2024-05-17,5,x\n'
    "bob,tea,2024-05-18T00:00:10,4.5,y\n"
    "ann,tea,2024-05-18,1,x\n"
    "bob,pot,2024-05-18T02:00:20+02:00,3,x\n"
    "ann,pot,2024-05-19,2,\n"
)
ITEMS = 'item,title,genres\n"cup, big",Big  cup,kitchen\ntea,Green tea,\npot,,\n'
LINES = "1 3\n1 1\n2 2\n\n1 2\n2\t3\n"
TITLES = "1\t77\tToy Story (1995)\tAnimation|Comedy\n2\t78\tHeat (1995)\tCrime\n3\t79\tM\t\n"


def write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", ".")
        data = text if isinstance(text, bytes) else text.encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return folder


def load(folder, **options):
    return load_interactions(f"files:{folder}", **options)


def taken(data):
    names = np.array(data.item_names)
    ends = zip(data.user_names, data.offsets_U1, data.offsets_U1[1:], strict=False)
    return {user: names[data.items_N[start:stop]].tolist() for user, start, stop in ends}


def fails(folder, match, **options):
    with pytest.raises(UserError, match=match) as caught:
        load(folder, **options)
    assert "\n" not in str(caught.value)


def test_csv_with_times_ratings_and_texts(tmp_path):
    data = load(write(tmp_path, interactions__csv=CSV, items__csv=ITEMS))
    assert taken(data) == {"ann": ["cup, big", "tea", "pot"], "bob": ["tea", "pot"]}
    assert data.times_N[-2:].tolist() == [1715990410, 1715990420]
    assert data.ratings_N.tolist() == [5, 1, 2, 4.5, 3]
    assert dict(zip(data.item_names, data.item_texts, strict=True)) == {
        "cup, big": "Big cup | kitchen",
        "tea": "Green tea",
        "pot": "",
    }
    assert data.notes == (
        "times from 2024-05-17 to 2024-05-19 (column 'time', UTC)",
        "1 of 3 items have no text",
    )
    assert data.name == f"files:{tmp_path.name}"


NEWEST_FIRST = "userId,movieId,rating,{time}\n1,b,4,{later}\n1,a,5,{early}\n"


@pytest.mark.parametrize(
    ("time", "early", "later"),
    [
        ("timestamp", "964982703", "964982800"),
        ("ts", "964982703000", "964982800000"),
        ("Event-Time", "964982703000000", "964982800000000"),
        ("created_at", "2000-07-30T18:45:03Z", "2000-07-30T20:46:40+02:00"),
        ("date", "2000-07-30 18:45:03 UTC", "2000-07-30 18:46:40"),
        ("timestamp:float", "964982703", "964982800"),
    ],
)
def test_times_under_their_usual_names_decide_the_order(tmp_path, time, early, later):
    text = NEWEST_FIRST.format(time=time, early=early, later=later)
    data = load(write(tmp_path, interactions__csv=text, items__csv="movieId,title\na,A\nb,B\n"))
    assert taken(data) == {"1": ["a", "b"]}
    assert data.times_N.tolist() == [964982703, 964982800]
    assert data.ratings_N.tolist() == [5, 4] and data.item_texts == ("A", "B")
    assert data.notes[0].startswith("times from 2000-07-30 to 2000-07-30 (column")


def test_columns_that_are_named(tmp_path):
    text = "who,what,when,date\nu,b,2,x\nu,a,1,y\n"
    folder = write(tmp_path, interactions__csv=text, items__csv="what,title\na,A\nb,B\n")
    columns = parse_columns("user=who, item=what,time=when")
    data = load(folder, columns=columns)
    assert taken(data) == {"u": ["a", "b"]} and data.item_texts == ("A", "B")
    assert data.notes == ("times from 1 to 2 (column 'when')",)
    fails(folder, "unknown column 'whn'", columns={**columns, "time": "whn"})
    with pytest.raises(UserError, match="movielens-100k has its own"):
        load_interactions("movielens-100k", columns=columns)


def test_without_a_time_column_the_order_is_told(tmp_path):
    data = load(write(tmp_path, interactions__csv="user,item\nu,b\nu,a\n"))
    assert taken(data) == {"u": ["b", "a"]}
    assert data.notes == ("no time column: the file's order decides",)


@pytest.mark.parametrize(
    ("head", "row", "match"),
    [
        ("user,item,timestamp,date", "u,a,1,2", "'timestamp' and 'date' may both be the time"),
        ("userId,customer_id,item", "u,v,a", "'userId' and 'customer_id' may both be the user"),
        ("user,item,ts", "u,a,964982703\nu,b,964982703000", "milliseconds .* beside coarser"),
    ],
)
def test_what_may_be_meant_twice_is_refused(tmp_path, head, row, match):
    fails(write(tmp_path, interactions__csv=f"{head}\n{row}\n"), match)


@pytest.mark.parametrize("row", ["1,31,2.5,126075914", "1,1,2", "ann,tea,5,126075914", "1;31;2.5"])
def test_a_file_without_a_header_is_told(tmp_path, row):
    text = f"{row}\n{row}\n"
    fails(write(tmp_path, interactions__csv=text), "line 1: .* put a header line in front")
    separator = ";" if ";" in row else ","
    head = separator.join(["user", "item", "rating", "time"][: row.count(separator) + 1])
    assert len(load(write(tmp_path, interactions__csv=f"{head}\n{row}\n"))) == 1


def test_columns_called_by_numbers_that_are_named(tmp_path):
    write(tmp_path, interactions__csv="1,2,3\nu,a,x\nu,b,y\n")
    columns = {"user": "1", "item": "2"}
    assert taken(load(tmp_path, columns=columns)) == {"u": ["a", "b"]}


def test_semicolons_between_cells(tmp_path):
    text = "userId;movieId;rating;timestamp\nu;b;4;964982800\nu;a;5;964982703\n"
    data = load(write(tmp_path, interactions__csv=text))
    assert taken(data) == {"u": ["a", "b"]} and data.ratings_N.tolist() == [5, 4]


def test_the_same_rows_in_any_form_are_the_same_data(tmp_path):
    rows = [line.split(",") for line in "user,item,time\na,x,1\na,y,2\nb,y,1\n".splitlines()]
    digests = set()
    for ending, separator in ((".csv", ","), (".tsv", "\t"), (".csv.gz", ","), (".tsv.gz", "\t")):
        folder = tmp_path / ending
        folder.mkdir()
        text = "".join(separator.join(row) + "\n" for row in rows)
        write(folder, **{f"interactions{ending}": text})
        digests.add(load(folder).digest)
        digests.add(load(folder / f"interactions{ending}").digest)
    assert len(digests) == 1


@pytest.mark.parametrize("name", ["interactions.txt", "interactions.txt.gz"])
def test_the_form_of_sasrec(tmp_path, name):
    data = load(write(tmp_path, **{name: LINES}, titles__tsv=TITLES))
    assert taken(data) == {"1": ["3", "1", "2"], "2": ["2", "3"]}
    assert data.times_N is None and data.ratings_N is None
    assert data.item_texts == (
        "Toy Story (1995) | Animation, Comedy",
        "Heat (1995) | Crime",
        "M",
    )


def test_one_file_with_texts_beside_it(tmp_path):
    write(tmp_path, **{"ml.txt": LINES, "other.txt": "1 1\n"}, titles__tsv=TITLES)
    assert load(tmp_path / "ml.txt").num_items == 3
    assert load(tmp_path / "other.txt").item_texts[0].startswith("Toy Story")


def test_titles_with_two_or_three_columns(tmp_path):
    write(tmp_path, interactions__txt="1 1\n1 2\n", titles__tsv="1\tHeat\n2\tM\tCrime|Noir\n")
    assert load(tmp_path).item_texts == ("Heat", "M | Crime, Noir")


def own_split(folder, **changes):
    files = {
        "train__csv": "user,item,time\nann,a,1\nann,b,2\nbob,a,1\n",
        "dev__csv": "user,item,time\nann,c,3\nbob,b,2\n",
        "test__csv": "user,item,time\nann,d,3\nbob,c,4\nbob,d,5\n",
    }
    return write(folder, **{**files, **changes})


def test_own_split(tmp_path):
    split = load_ranking_split(f"files:{own_split(tmp_path)}")
    assert taken(split.data) == {"ann": ["a", "b", "c", "d"], "bob": ["a", "b", "c", "d"]}
    assert split.train_counts_I.tolist() == [2, 1, 0, 0]
    assert split.validation.targets_E(split.data).tolist() == [2, 1]
    assert split.test.targets_E(split.data).tolist() == [3, 2, 3]
    assert "user's own split" in split.protocol
    assert load_ranking_split(f"files:{tmp_path}", split="files").digest == split.digest
    with pytest.raises(UserError, match="brings its own split"):
        load_ranking_split(f"files:{tmp_path}", split="leave-one-out")


def test_own_split_that_runs_backwards(tmp_path):
    own_split(tmp_path, dev__csv="user,item,time\nann,c,0\nbob,b,2\n")
    with pytest.raises(UserError, match=r"user 'ann' has a train .* later .* leave the time"):
        load_ranking_split(f"files:{tmp_path}")


def test_own_split_with_unlike_columns_or_a_part_missing(tmp_path):
    own_split(tmp_path, dev__csv="user,item\nann,c\nbob,b\n")
    fails(tmp_path, "some of the splits in .* have a column 'time'")
    (tmp_path / "dev.csv").unlink()
    fails(tmp_path, "no validation file in .* needs all three")
    write(tmp_path, interactions__csv=CSV)
    fails(tmp_path, r"both interactions\.csv and train\.csv")


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({}, r"no interactions in .*interactions\.csv, \.tsv or \.txt.*files:FOLDER/NAME\.csv"),
        ({"interactions__csv": ""}, r"interactions\.csv: the file is empty"),
        ({"interactions__csv": "user,item\n"}, "no rows"),
        (
            {"interactions__csv": "user,thing\na,b\n"},
            r"unknown column 'item' in .*line 1.*thing.*--columns item=COLUMN",
        ),
        ({"interactions__csv": "user,item\na,b\na\n"}, "line 3: 1 cells; expected 2"),
        ({"interactions__csv": "user,item\na,b\n ,c\n"}, "line 3: column 'user' is empty"),
        ({"interactions__csv": "user,item,time\na,b,soon\n"}, "line 2: .*'time'.*'soon'.*seconds"),
        ({"interactions__csv": "user,item,time\na,b,nan\n"}, "line 2: .*'time' holds 'nan'"),
        ({"interactions__csv": "user,item,rating\na,b,\n"}, "'rating' holds ''; expected a number"),
        ({"interactions__csv": b"user,item\na,\xff\n"}, "line 2: byte 0xff is not UTF-8"),
        ({"interactions__txt": "1 2\n1 2 3\n"}, r"line 2: 3 words \('1 2 3'\); expected two"),
        ({"interactions__txt": "\n"}, "no lines"),
        ({"interactions__csv": CSV, "interactions__txt": LINES}, "both interactions.csv and"),
        ({"interactions__csv": CSV, "items__csv": "name\nx\n"}, "unknown column 'item'"),
        ({"interactions__csv": CSV, "items__csv": "item\nx\n"}, "a column with texts beside"),
        ({"interactions__csv": CSV, "items__csv": "item,t\nx,y\nx,z\n"}, "'x' is that of line 2"),
        ({"interactions__csv": CSV, "items__csv": "item,t\n"}, "expected at least one item"),
        ({"interactions__csv": CSV, "titles__tsv": "x\n"}, "line 1: 1 cells; expected an item"),
        ({"interactions__csv": CSV, "titles__tsv": TITLES, "items__csv": ITEMS}, "both items.csv"),
    ],
)
def test_damaged_files(tmp_path, files, match):
    fails(write(tmp_path, **files), match)


def test_no_such_place_and_no_such_kind(tmp_path):
    fails(tmp_path / "none", "no folder and no file")
    (tmp_path / "data.parquet").write_bytes(b"PAR1")
    fails(tmp_path / "data.parquet", "not known what kind of file")
    (tmp_path / "interactions.csv.gz").write_bytes(b"user,item\na,b\n")
    fails(tmp_path, r"interactions\.csv\.gz cannot be read: Not a gzipped file")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("interactions")


@settings(max_examples=80)
@given(st.sampled_from(["interactions.csv", "interactions.txt", "items.csv"]), st.data())
def test_damage_is_read_or_told(folder, name, data):
    for old in folder.iterdir():
        old.unlink()
    whole = {"interactions.csv": CSV, "items.csv": ITEMS}
    if name.endswith(".txt"):
        whole = {name: LINES, "titles.tsv": TITLES}
    for path, text in whole.items():
        (folder / path).write_text(text)
    (folder / name).write_bytes(data.draw(damaged(whole[name].encode())))

    def load_all():
        raw = read(folder)
        return build_interactions("toy", raw.rows, texts=raw.texts).digest

    told(load_all)


def test_a_name_that_comes_again_is_kept_once(tmp_path):
    (tmp_path / "interactions.csv").write_text("user,item,time\nann,x,1\nann,yy,2\nbob,x,3\n")
    users, items = read(tmp_path).rows[:2]
    assert users[0] is users[1] and items[0] is items[2]


def test_lines_are_told_behind_blank_ones_cells_of_several_lines_and_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(separated, "ROWS", 2)
    lines = ["user,item,time", 'ann,"x\ny",1', "", "bob,z,2", "cy,z,3", "dan,z,soon"]
    (tmp_path / "interactions.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"line 7: column 'time' holds 'soon'"):
        read(tmp_path)
    (tmp_path / "interactions.csv").write_text("\n".join([*lines[:-1], "dan,z", ""]))
    with pytest.raises(UserError, match=r"line 7: 2 cells; expected 3"):
        read(tmp_path)
