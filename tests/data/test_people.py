"""People and items out of files of every form; which column is meant."""

import gzip
import json

import pytest

from distill_jax.core.errors import UserError
from distill_jax.data.column_names import column_of, parse_columns
from distill_jax.data.people import Person, read_items, read_people


def written(folder, name, text):
    path = folder / name
    path.write_text(text)
    return path


def test_people_by_name_by_history_and_by_both(tmp_path):
    both = written(
        tmp_path, "a.csv", 'user,history,age\nu1,"Alien; Toy Story;",3\n u2 ,,4\n,"7",\n'
    )
    assert list(read_people(both)) == [
        Person(1, "u1", "Alien; Toy Story;"),
        Person(2, "u2"),
        Person(3, "", "7"),
    ]
    assert [person.label for person in read_people(both)] == ["u1", "u2", "3"]
    names = written(tmp_path, "b.tsv", "userId\n1\n2\n")
    assert list(read_people(names)) == [Person(1, "1"), Person(2, "2")]
    histories = written(tmp_path, "c.csv", "item_id_list:token_seq\n5;6\n7 8\n")
    assert list(read_people(histories)) == [Person(1, "", "5;6"), Person(2, "", ("7", "8"))]
    lines = tmp_path / "d.txt.gz"
    lines.write_bytes(gzip.compress(b"u1\n\n u2\n"))
    assert list(read_people(lines)) == [Person(1, "u1"), Person(2, "u2")]


def test_who_has_an_empty_history_in_a_file_of_histories_is_somebody(tmp_path):
    """So pandas writes them; a line without anything is none."""
    file = written(tmp_path, "a.csv", 'history\n7;8\n""\n\n9\n')
    assert list(read_people(file)) == [Person(1, "", "7;8"), Person(2), Person(3, "", "9")]


def test_whole_numbers_that_a_missing_one_made_fractions(tmp_path):
    rows = '{"user": 3.0, "history": [7.0, NaN, 8.5]}\n{"user": NaN, "history": "2.0"}\n'
    file = written(tmp_path, "a.jsonl", rows)
    assert list(read_people(file)) == [Person(1, "3", ("7", "8.5")), Person(2, "", "2.0")]


def test_columns_that_are_named(tmp_path):
    file = written(tmp_path, "a.csv", "who,took,user\nu1,7;8,x\n")
    assert list(read_people(file)) == [Person(1, "x")]
    said = {"user": "who", "history": "took", "item": "elsewhere"}
    assert list(read_people(file, said)) == [Person(1, "u1", "7;8")]


def test_people_in_json_and_parquet(tmp_path):
    rows = [{"user_id": 7, "history": [1, "b; c"]}, {"user_id": None, "history": None}]
    file = written(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    expected = [Person(1, "7", ("1", "b; c")), Person(2)]
    assert list(read_people(file)) == expected
    later = written(tmp_path, "b.jsonl", '{"history": "1"}\n{"user": "u"}\n{"history": 3}\n')
    assert list(read_people(later)) == [
        Person(1, "", "1"),
        Person(2, "u"),
        Person(3, "", ("3",)),
    ]
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"user_id": ["7", None], "history": [["1", "b; c"], None]})
    parquet.write_table(table, tmp_path / "c.parquet")
    assert list(read_people(tmp_path / "c.parquet")) == expected


def test_items_of_a_file(tmp_path):
    assert list(read_items(written(tmp_path, "a.txt", "1\n\n Alien \n"))) == ["1", "Alien"]
    table = written(tmp_path, "b.csv", "movieId,price\n1,3\n,4\n2,5\n")
    assert list(read_items(table)) == ["1", "2"]
    assert list(read_items(written(tmp_path, "c.csv", "in stock\n9\n"))) == ["9"]
    known = {"8", "9", "sku"}
    with pytest.raises(UserError, match="line 1: '8' is an item, not the name of a column"):
        list(read_items(written(tmp_path, "d.csv", "8\n9\n"), known.__contains__))
    assert list(read_items(written(tmp_path, "e.csv", "sku\n9\n"), known.__contains__)) == ["9"]


@pytest.mark.parametrize(
    ("name", "text", "read", "told"),
    [
        ("a.csv", "name,age\nx,3\n", read_people, "expected user, history, or both"),
        ("a.csv", "user_id,customer\nx,y\n", read_people, "'user_id' and 'customer' may both"),
        ("a.csv", "userId,movieId\nu,3\n", read_people, "interactions, not people"),
        ("a.csv", "name,age\nx,3\n", read_items, "expected a column item"),
        ("a.jsonl", "{}\n", read_items, "expected a column item"),
        ("a.xls", "x", read_people, "unknown ending of a file"),
        ("a.jsonl", "[", read_people, "a.jsonl"),
    ],
)
def test_mistakes_are_told(tmp_path, name, text, read, told):
    with pytest.raises(UserError, match=told):
        list(read(written(tmp_path, name, text)))


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="no file"):
        list(read_people(tmp_path / "a.csv"))


def test_a_column_by_its_usual_names_or_as_it_was_said():
    columns = ["userId", "movieId", "timestamp:float", "rating", "age"]
    found = [column_of(role, columns, "f") for role in ("user", "item", "time", "rating")]
    assert found == columns[:4]
    assert column_of("history", columns, "f") is None
    with pytest.raises(UserError, match="f: columns 'date' and 'time' may both be the time"):
        column_of("time", ["date", "time"], "f")  # though one has the very name
    with pytest.raises(UserError, match="f: columns 'date' and 'ts' may both be the time"):
        column_of("time", ["date", "ts"], "f")
    assert parse_columns(None) == {} == parse_columns(" ")
    assert parse_columns("user=a, time = b b") == {"user": "a", "time": "b b"}
    for text, told in (
        ("usr=a", "Did you mean 'user'"),
        ("user", "expected ROLE=COLUMN"),
        ("user=a,user=b", "each role once"),
        ("user=a,item=a", "column 'a' is named for two roles"),
    ):
        with pytest.raises(UserError, match=told):
            parse_columns(text)
    said = {"time": "date"}
    assert column_of("time", ["date", "ts", "time"], "f", said) == "date"
    with pytest.raises(UserError, match="unknown column 'date' in f, for time"):
        column_of("time", ["data"], "f", said)
