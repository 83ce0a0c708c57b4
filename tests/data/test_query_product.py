import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.core.errors import UserError
from distill_jax.data import icon_search
from distill_jax.data.load_search import load_search
from distill_jax.data.query_product import (
    TRANSFER,
    Judgement,
    build_search_data,
)


def rows(*pairs):
    """``(query, item, gain, split)`` as judgements."""
    return [Judgement(q, i, f"the {i}", g, s) for q, i, g, s in pairs]


BASE = rows(
    ("red shoe", "a", 1.0, "train"),
    ("red shoe", "b", 0.0, "train"),
    ("Red  Shoe", "c", 0.1, "train"),
    ("hat", "c", 1.0, "validation"),
    ("cap", "a", 1.0, "test"),
    ("glove", "b", None, TRANSFER),
)


def test_a_querys_judgements_come_by_falling_gain():
    data = build_search_data("toy", BASE)
    assert data.queries == ("red shoe", "hat", "cap", "glove") and data.item_ids == ("a", "b", "c")
    items, gains = data.judged(0)
    assert items.tolist() == [0, 2, 1] and gains == pytest.approx([1, 0.1, 0])
    assert data.judged(3)[0].tolist() == [] and data.unjudged(3).tolist() == [1]
    assert {k: v.tolist() for k, v in data.splits.items()} == {
        "train": [0],
        "validation": [1],
        "test": [2],
        TRANSFER: [3],
    }


def test_of_several_judgements_the_highest_counts_whatever_their_order():
    twice = rows(("red shoe", "b", 1.0, "train"), ("red shoe", "a", None, "train"))
    for judgements in ([*BASE, *twice], [*twice, *BASE]):
        data = build_search_data("toy", judgements)
        query = data.queries.index("red shoe")
        found = dict(zip(*(x.tolist() for x in data.judged(query)), strict=True))
        assert {data.item_ids[i]: g for i, g in found.items()} == pytest.approx(
            {"a": 1, "b": 1, "c": 0.1}
        )


def test_a_query_of_the_test_split_is_never_learnt_from():
    leaking = rows(("CAP", "c", 1.0, "train"), ("hat", "a", 1.0, "train"))
    data = build_search_data("toy", [*leaking, *BASE])
    assert [data.queries[q] for q in data.splits["train"]] == ["red shoe"]
    assert [data.queries[q].lower() for q in data.splits["test"]] == ["cap"]
    assert "2 queries stood in several splits" in data.notes[0]


def test_without_validation_a_fixed_share_of_training_becomes_it():
    judgements = rows(*[(f"q{n}", "a", 1.0, "train") for n in range(200)], ("t", "a", 1.0, "test"))
    first, second = (
        build_search_data("toy", each) for each in (judgements, [*reversed(judgements)])
    )
    chosen = [{data.queries[q] for q in data.splits["validation"]} for data in (first, second)]
    assert chosen[0] == chosen[1] and 8 < len(chosen[0]) < 35
    assert not set(first.splits["train"]) & set(first.splits["validation"])


def test_a_split_without_queries_is_an_error():
    with pytest.raises(UserError, match="no query in the test split"):
        build_search_data("toy", [row for row in BASE if row.split != "test"])


@given(st.floats(0.05, 1), st.floats(0.05, 1))
def test_fewer_labels_are_a_part_of_more_and_no_query_is_lost(one, other):
    judgements = rows(
        *[(f"q{n}", "a", 1.0, "train") for n in range(40)],
        ("v", "a", 1.0, "validation"),
        ("t", "a", 1.0, "test"),
    )
    whole = build_search_data("toy", judgements)
    less, more = (whole.hide_labels(f) for f in sorted((one, other)))
    assert set(less.splits["train"]) <= set(more.splits["train"])
    assert len(less.splits["train"]) == max(round(min(one, other) * 40), 1)
    for data in (less, more):
        both = np.concatenate([data.splits["train"], data.splits[TRANSFER]])
        assert sorted(both) == sorted(whole.splits["train"])


def test_content_decides_the_digest_and_the_name_does_not():
    data = build_search_data("toy", BASE)
    assert build_search_data("other", BASE).digest == data.digest
    assert build_search_data("toy", BASE[:1] + BASE[2:]).digest != data.digest
    assert data.hide_labels(1.0).digest == data.digest


def test_unknown_data_is_named():
    with pytest.raises(UserError, match="Did you mean 'icon_search'"):
        load_search("icon_serch")
    with pytest.raises(UserError, match="options of esci"):
        load_search("icon_search", locale="us")


def test_icons_are_read_with_their_categories_and_without_brands(tmp_path):
    (tmp_path / "icons.json").write_text(
        """{"mug": {"label": "Mug", "styles": ["solid"],
                    "search": {"terms": ["Tea", "tea", "hot"]}},
        "pot": {"label": "Pot", "styles": ["solid"], "search": {"terms": ["hot", "v1", "t1"]}},
        "acme": {"label": "Acme", "styles": ["brands"], "search": {"terms": ["hot"]}}}"""
    )
    (tmp_path / "categories.yml").write_text(
        "drinks:\n  icons:\n    - mug\n    - 'pot'\n  label: Food + Drinks\n"
        "x:\n  icons:\n    - pot\n  label: 'Kitchen'\n"
    )
    splits = {"tea": "train", "hot": "train", "v1": "validation", "t1": "test"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(icon_search, "split_of", splits.__getitem__)
        data = icon_search.read(tmp_path)
    assert data.items == ("Mug | Food + Drinks", "Pot | Food + Drinks, Kitchen")
    assert data.queries == ("tea", "hot", "v1", "t1")
    assert data.judged(1)[0].tolist() == [0, 1]


def test_the_real_icons(fetch_asset, shared_home):
    fetch_asset("icon-search")
    data = load_search("icon_search")
    sizes = {split: len(rows) for split, rows in data.splits.items()}
    assert (len(data.queries), len(data.items), len(data.items_J)) == (3345, 1393, 9270)
    assert sizes == {"train": 2332, "validation": 345, "test": 668, TRANSFER: 0}
    assert data.digest == "fd0673bee8c62b91"
    found = {data.items[item] for item in data.judged(data.queries.index("caliente"))[0]}
    assert any(text.startswith("Mug Hot | Food + Beverage") for text in found)
