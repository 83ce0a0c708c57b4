"""Items found by what people call them."""

import pytest

from distill_jax.core.errors import UserError
from distill_jax.evaluation.item_catalogue import Catalogue, load_catalogue, save_catalogue

FILMS = Catalogue(
    ("1", "2", "3", "4", "5", "6"),
    (
        "Toy Story (1995) | Animation, Comedy",
        "Matrix, The (1999) | Action",
        "Alien (1979) | Horror, Sci-Fi",
        "Aliens (1986) | Sci-Fi",
        "Heat (1995) | Crime",
        "Heat (1986) | Action",
    ),
)


@pytest.mark.parametrize(
    ("query", "item"),
    [
        ("3", 2),
        ("Alien", 2),
        (" alien (1979) ", 2),
        ("ALIENS", 3),
        ("The Matrix", 1),
        ("matrix, the", 1),
        ("Matrix, The (1999)", 1),
        ("Heat (1986)", 5),
    ],
)
def test_ids_and_titles(query, item):
    assert FILMS.find(query) == item


def test_an_accent_is_one_character_or_two():
    """As some file systems and editors write them, NFD."""
    films = Catalogue(("1", "2"), ("Amélie (2001)", "Ame\u0301ricain, L' (1969)"))
    for written in ("Am\u00e9lie (2001)", "Ame\u0301lie (2001)", "ame\u0301lie", "AM\u00c9LIE"):
        assert films.find(written) == 0
    assert films.find("Am\u00e9ricain, L' (1969)") == 1


def test_a_word_that_is_nobodys_is_answered_with_the_nearest_titles():
    with pytest.raises(UserError, match=r"no item is called 'Toy Stroy'.*Toy Story \(1995\) \[1\]"):
        FILMS.find("Toy Stroy")
    with pytest.raises(UserError, match="Give ids or titles"):
        FILMS.find("qqqqqqqq")


def test_several_are_listed():
    with pytest.raises(UserError, match=r"several items: Heat \(1995\) \[5\], Heat \(1986\) \[6\]"):
        FILMS.find("heat")


def test_histories_are_divided_by_semicolons():
    assert FILMS.history("Toy Story; 3 ;the matrix;") == [0, 2, 1]
    assert FILMS.history(["Heat (1995)", "2"]) == [4, 1]
    assert FILMS.history(" ; ") == []


def test_titles_and_ids_that_hold_semicolons():
    films = Catalogue(
        ("1", "2", "a;b", "4"),
        ("Jules; Jim (1962) | Drama", "Jules (1990)", "Ab", "Jim (1991)"),
    )
    assert films.history("Jules; Jim; 2") == [0, 1]
    assert films.history("jules;jim (1962);Jim") == [0, 3]
    assert films.history("Jim; a;b ;Jules;Jules; Jim") == [3, 2, 1, 0]
    assert films.history(["Jules", "Jim"]) == [1, 3]  # a list says itself what is one item
    assert films.words("Jules; nothing;") == ["Jules", "nothing"]
    words = films.words("click: jules; Jim; buy:a;b; view:Jules; Jim", ("buy", "click"))
    assert words == ["click:Jules; Jim (1962)", "buy:a;b", "view:Jules", "Jim"]


def test_an_id_that_is_a_title_of_another():
    films = Catalogue(("187", "2"), ("Godfather, The (1972)", "187 (1997)"))
    assert films.find("187") == 0 and films.find("187 (1997)") == 1
    assert films.doubt(" 187") == (
        "'187' is read as the id of Godfather, The (1972) [187]; 187 (1997) [2] is called so too: "
        "its id names it"
    )
    assert films.doubt("2") == films.doubt("187 (1997)") == films.doubt("nothing") == ""
    assert Catalogue(("1",), ("1",)).doubt("1") == ""


def test_without_texts_names_are_titles():
    plain = Catalogue(("apple", "pear"))
    assert plain.find("PEAR") == 1 and plain.title(0) == plain.show(0) == "apple"
    with pytest.raises(UserError, match="Did you mean apple"):
        plain.find("aple")


def test_it_comes_back_from_disk(tmp_path):
    assert load_catalogue(tmp_path) is None
    for catalogue in (FILMS, Catalogue(("a", "ü"))):
        save_catalogue(tmp_path, catalogue)
        assert load_catalogue(tmp_path) == catalogue
    for damage in ("{", '{"names": ["a"]}', '{"names": ["a"], "texts": []}'):
        (tmp_path / "catalogue.json").write_text(damage)
        with pytest.raises(UserError, match="is damaged"):
            load_catalogue(tmp_path)
