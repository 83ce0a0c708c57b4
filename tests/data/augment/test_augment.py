"""Augmentation: pure functions of example, seed and copy; each kind does what it says."""

import collections
import json

import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.data.augment.augmentation import (
    augmented,
    is_copy,
    parse_augmentation,
    source_of,
)
from distill_jax.data.augment.base import Draw, Tools, words_of
from distill_jax.data.augment.kinds import kinds
from distill_jax.data.table import TextDataset, TextTable

TEXT = "a gripping and clever film with a plot that never lets you go"
TOOLS = Tools(
    "toy",
    mask="[MASK]",
    near=lambda words, k: {w: ("n1", "n2")[:k] for w in words if w in ("film", "plot")},
    fill=lambda texts, places, k: [[["f1", "f2"][:k] for _ in own] for own in places],
)


def table(count=60, **changes):
    texts = tuple(f"{TEXT} {number}" for number in range(count))
    labels = np.zeros(count, np.int32)
    fields = {"ids": tuple(f"e{n}" for n in range(count)), "texts": texts, "labels_N": labels}
    return TextTable(**{**fields, **changes})


def copies(text, count=60, copy=1, tools=TOOLS):
    own = table(count)
    return parse_augmentation(text).copy_of(own, own.texts, copy, tools)


def shared_words(changed):
    counts = collections.Counter(changed.split())
    return sum((counts & collections.Counter(words_of(TEXT))).values())


ALL = "delete(0.2) + swap(0.2) + mask(0.1) + ngram(0.3) + neighbours(0.5) + mlm(0.2)"


@pytest.mark.parametrize("text", [*ALL.split(" + "), ALL])
def test_a_copy_is_a_function_of_example_seed_and_copy(text):
    first = copies(text)
    assert copies(text) == first
    assert copies(text, count=7) == first[:7]  # whoever else is there
    assert copies(text, copy=2) != first
    named = text.split(" + ")
    reseeded = " + ".join(f"{each[:-1]}, seed=1)" for each in named)
    assert copies(reseeded) != first


def test_deletion_leaves_out_about_the_rate_and_never_everything():
    left = [shared_words(each) for each in copies("delete(0.3)", 400)]
    assert 1 - np.mean(left) / len(words_of(TEXT)) == pytest.approx(0.3, abs=0.03)
    own = TextTable(("a",), ("one two",))
    found = [parse_augmentation("delete(1)").copy_of(own, own.texts, c, TOOLS)[0] for c in (1, 2)]
    assert all(each in ("one", "two") for each in found)


def test_swaps_keep_the_words():
    changed = copies("swap(0.2)")
    assert all(
        sorted(c.split()) == sorted(o.split()) for c, o in zip(changed, table().texts, strict=True)
    )
    assert sum(c != o for c, o in zip(changed, table().texts, strict=True)) > 50


def test_masks_stand_at_the_rate():
    words = [word for each in copies("mask(0.1)", 400) for word in each.split()]
    assert words.count("[MASK]") / len(words) == pytest.approx(0.1, abs=0.02)


def test_ngrams_are_pieces_of_the_text():
    changed = copies("ngram(0.5, longest=3)", 400)
    pieces = [each for each, own in zip(changed, table(400).texts, strict=True) if each != own]
    assert len(pieces) / 400 == pytest.approx(0.5, abs=0.08)
    assert {len(each.split()) for each in pieces} == {1, 2, 3}
    assert all(any(each in own for own in table(400).texts) for each in pieces)


def test_neighbours_and_fillings_come_from_the_teacher():
    words = {word for each in copies("neighbours(1)") for word in each.split()}
    assert {"n1", "n2"} <= words and not {"film", "plot"} & words
    assert {"n2"}.isdisjoint({w for each in copies("neighbours(1, k=1)") for w in each.split()})
    filled = copies("mask(0.2) + mlm(0.0001)")
    assert any("f1" in each or "f2" in each for each in filled)  # what was masked is filled
    assert not any("[MASK]" in each for each in filled)


def test_synonyms_keep_capitals_and_punctuation(tmp_path):
    (tmp_path / "words.txt").write_text("# groups\nfilm, movie, picture\nclever,smart\n")
    own = TextTable(("a", "b"), ("The Film, really.", "smart!"))
    augmentation = parse_augmentation(f"synonyms(file='{tmp_path}/words.txt', rate=1)")
    found = {augmentation.copy_of(own, own.texts, copy, TOOLS)[0] for copy in range(1, 9)}
    assert found == {"The Movie, really.", "The Picture, really."}
    assert augmentation.copy_of(own, own.texts, 1, TOOLS)[1] == "clever!"


def test_synonyms_of_several_words_are_found_in_a_row(tmp_path):
    """Chinese characters are a word each, so that nearly all Chinese words are several. The file
    is one that Windows wrote, with a mark before its first word."""
    lines = "New York, Boston\nnew, novel\n电影, 影片\n"
    (tmp_path / "words.txt").write_text(lines, encoding="utf-8-sig")
    texts = ("We flew to New York, new then.", "这部电影很好看", "New or York")
    own = TextTable(("a", "b", "c"), texts)
    augmentation = parse_augmentation(f"synonyms(file='{tmp_path}/words.txt', rate=1)")
    assert augmentation.copy_of(own, own.texts, 1, TOOLS) == [
        "We flew to Boston, novel then.",
        "这 部 影 片 很 好 看",
        "Novel or York",
    ]


def test_words_with_a_mask_in_them_are_filled_as_masks_are():
    """As the tokeniser reads them: else there would be more masks than places to fill."""
    own = TextTable(("a",), ("a fine[MASK]ly made film",))
    assert parse_augmentation("mlm(0.000001)").copy_of(own, own.texts, 1, TOOLS)[0] in (
        "a f1 made film",
        "a f2 made film",
    )


def test_an_augmentation_that_makes_nothing_new_is_refused(tmp_path):
    """A row of the table would be called by what was not done."""
    (tmp_path / "words.txt").write_text("nothing, nought\n")
    text = f"synonyms(file='{tmp_path}/words.txt')"
    with pytest.raises(UserError, match="makes no new text of 20 training examples"):
        augmented(dataset(table(20)), parse_augmentation(text), TOOLS)


def test_examples_that_have_no_copy_left_are_asked_of_no_other_kind(tmp_path):
    (tmp_path / "back.csv").write_text("id,text\ne1,uno due\n")
    paraphrases = f"paraphrases(file='{tmp_path}/back.csv', copies=2)"
    text = f"{paraphrases} + {paraphrases.replace(', copies=2', '')}"
    assert copies(text, 3, copy=2) == [None, None, None]


def test_paraphrases_are_looked_up_by_id(tmp_path):
    rows = [{"id": "e1", "text": "uno"}, {"id": "e1", "text": "due"}, {"id": "e3", "text": "tre"}]
    path = tmp_path / "back.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    text = f"paraphrases(file='{path}', copies=2)"
    assert copies(text, 5) == [None, "uno", None, "tre", None]
    assert copies(text, 5, copy=2) == [None, "due", None, None, None]
    with pytest.raises(UserError, match=r"no id in .* one of a training example.*'e1'.*'x'"):
        own = table(1, ids=("x",))
        parse_augmentation(text).copy_of(own, own.texts, 1, TOOLS)


def dataset(train):
    other = TextTable(("v0",), ("one",), labels_N=np.zeros(1, np.int32))
    return TextDataset("toy", ("a", "b"), {"train": train, "validation": other, "test": other})


def test_copies_join_the_training_texts_without_labels_once_each():
    found = augmented(dataset(table(20)), parse_augmentation("delete(0.2, copies=3)"), TOOLS)
    train = found.splits["train"]
    assert train.ids[:20] == table(20).ids and len(set(train.texts)) == len(train)
    assert 60 < len(train) <= 80 and all(map(is_copy, train.ids[20:]))
    assert set(map(source_of, train.ids)) == set(table(20).ids)
    assert (train.labels_N[:20] == 0).all() and (train.labels_N[20:] == -1).all()
    assert f"{len(train) - 20} copies by delete(0.2, copies=3) joined" in found.notes[-1]
    again = augmented(dataset(table(20)), parse_augmentation("delete(0.2, copies=3)"), TOOLS)
    assert again.digest == found.digest


def test_examples_stay_as_they_are_beside_their_copies():
    """Their ratings too: a table with copies and one without ask one teacher about the same."""
    rated = table(20, scores_N=np.linspace(0, 1, 20, dtype=np.float32))
    train = augmented(dataset(rated), parse_augmentation("swap(0.2)"), TOOLS).splits["train"]
    assert len(train) > 30 and train.take(np.arange(20)).digest == rated.digest
    assert np.isnan(train.scores_N[20:]).all()


def test_copies_of_two_augmentations_have_ids_of_their_own():
    texts = {}
    for text in ("delete(0.2)", "swap(0.2)", "swap(0.2, seed=1)"):
        train = augmented(dataset(table(20)), parse_augmentation(text), TOOLS).splits["train"]
        for example, own in zip(train.ids, train.texts, strict=True):
            assert texts.setdefault(example, own) == own
    assert len(texts) > 20 + 3 * 15


def test_a_copy_that_is_a_text_already_is_left_out():
    """A test text too: no teacher ever speaks of one."""
    train = TextTable(("t0", "t1"), ("one two", "three"), labels_N=np.zeros(2, np.int32))
    text = "delete(0.9, copies=20)"
    found = augmented(dataset(train), parse_augmentation(text), TOOLS)
    assert set(found.splits["train"].texts) == {"one two", "three", "two"}  # "one" is tested on
    assert "39 were texts that are there already" in found.notes[-1]


def test_pairs_are_changed_text_by_text():
    train = table(30)
    pairs = table(30, texts_b=train.texts)
    found = augmented(dataset_of_pairs(pairs), parse_augmentation("swap(0.2)"), TOOLS)
    train = found.splits["train"]
    changed = [row for row, example in enumerate(train.ids) if is_copy(example)]
    assert len(changed) > 20
    assert any(train.texts[row] != train.texts_b[row] for row in changed)
    with pytest.raises(UserError, match="paraphrases is of single texts"):
        augmented(dataset_of_pairs(pairs), parse_augmentation("paraphrases(file='x')"), EASY)


EASY = Tools("toy", mask="[MASK]")


def dataset_of_pairs(train):
    other = TextTable(("v0",), ("one",), ("two",), labels_N=np.zeros(1, np.int32))
    return TextDataset("toy", ("a", "b"), {"train": train, "validation": other, "test": other})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("delte(0.1)", "unknown augmentation 'delte' .*'delete'"),
        ("delete(0)", r"rate of delete must be in \(0, 1\]"),
        ("mask(0.1, copies=-1)", "copies of mask must be from 1"),
        ("mask(copies=2) + swap(copies=3)", "there is one number of copies"),
        ("ngram(longest=0)", "longest of ngram"),
        ("neighbours(k=0)", "k of neighbours"),
        ("mlm(k=0)", "k of mlm"),
        ("synonyms", "synonyms needs a file"),
        ("paraphrases", "paraphrases needs a file"),
        ("swap(seed=-1)", "the seed of swap"),
    ],
)
def test_mistakes_in_texts_are_named(text, message):
    with pytest.raises(UserError, match=message) as told:
        parse_augmentation(text)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mask", "the tokeniser of nobody reads no text as its mask"),
        ("neighbours", "nobody does not say where it has embeddings"),
        ("mlm", "nobody has no head of a masked language model"),
        ("synonyms(file='/no/such/file')", "cannot read the synonyms"),
        ("paraphrases(file='/no/such/file')", "no paraphrases at"),
    ],
)
def test_what_is_not_there_is_refused_by_name(text, message):
    with pytest.raises(UserError, match=message):
        augmented(dataset(table(3)), parse_augmentation(text), Tools("nobody"))


@pytest.mark.parametrize(
    ("content", "message"),
    [("film\n", "line 1: expected words"), ("a,,b\n", "line 1"), ("# none\n", "has no synonyms")],
)
def test_lists_of_synonyms_are_checked(tmp_path, content, message):
    path = tmp_path / "words.txt"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        parse_augmentation(f"synonyms(file='{path}')").check(TOOLS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,txt\na,b\n", "need a column 'text'"),
        ("id,text\na, \n", "no text"),
        ("id,text\n", "no example|has no paraphrases|empty"),
    ],
)
def test_files_of_paraphrases_are_checked(tmp_path, content, message):
    path = tmp_path / "back.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        parse_augmentation(f"paraphrases(file='{path}')").check(TOOLS)


def test_canonical_texts():
    assert (
        str(parse_augmentation(" ngram( copies=5 )+mask ")) == "ngram(0.25, copies=5) + mask(0.1)"
    )
    assert parse_augmentation("") is None
    assert parse_augmentation("ngram(copies=5) + mask").copies == 5
    assert parse_augmentation("mask").copies == 1
    for text in ("delete(0.1) + swap(0.1, copies=2)", "synonyms(file='a b.txt', seed=3)"):
        assert str(parse_augmentation(str(parse_augmentation(text)))) == str(
            parse_augmentation(text)
        )
    assert set(kinds()) == {
        *("delete", "swap", "mask", "ngram", "synonyms", "paraphrases", "neighbours", "mlm")
    }


def test_chinese_is_read_character_by_character():
    assert words_of("很好看 的 film!") == ["很", "好", "看", "的", "film!"]


def test_draws_belong_to_their_names():
    assert Draw.of("a", 0, 1).unit(3).tolist() == Draw.of("a", 0, 1).unit(5)[:3].tolist()
    draws = {Draw.of(*names).below(10**9) for names in (("a", 0), ("b", 0), ("a", 1))}
    assert len(draws) == 3
