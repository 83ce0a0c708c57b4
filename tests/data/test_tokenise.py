import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from distill_jax.core.errors import UserError
from distill_jax.data import tokenise
from distill_jax.data.coverage import Coverage
from distill_jax.data.table import TextDataset, TextTable
from distill_jax.data.tokenise import Tokeniser, TokenTable, tokenise_dataset

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d"]


@pytest.fixture
def tokenizer_file(tmp_path):
    """A word tokeniser that truncates to 4 and pads to 16, as MiniLM's file pads to 128."""
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=16)
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def dataset_of(texts, texts_b=None, labels=None):
    table = TextTable(
        ids=tuple(f"e{i}" for i in range(len(texts))),
        texts=tuple(texts),
        texts_b=texts_b,
        labels_N=None if labels is None else np.array(labels, np.int32),
    )
    return TextDataset("toy", ("n", "p"), {"train": table})


def rows_of(table):
    return [
        table.tokens_S[a:b].tolist()
        for a, b in zip(table.offsets_N1, table.offsets_N1[1:], strict=False)
    ]


def test_rows_are_cut_to_max_length_and_never_padded(tokenizer_file):
    dataset = dataset_of(["a b c d a b c d", "a"], labels=[1, 0])
    table = tokenise_dataset(dataset, tokenizer_file, max_length=6).splits["train"]
    assert rows_of(table) == [[2, 4, 5, 6, 7, 3], [2, 4, 3]]
    assert table.lengths_N.tolist() == [6, 3] and len(table) == 2
    assert [str(a.dtype) for a in (table.tokens_S, table.token_types_S, table.offsets_N1)] == [
        "int32",
        "int8",
        "int64",
    ]
    assert table.labels_N.tolist() == [1, 0]


def test_pairs_have_two_segments_and_lose_from_the_longer(tokenizer_file):
    dataset = dataset_of(["a b c d"], texts_b=("d",))
    table = tokenise_dataset(dataset, tokenizer_file, max_length=6).splits["train"]
    assert rows_of(table) == [[2, 4, 5, 3, 7, 3]]
    assert table.token_types_S.tolist() == [0, 0, 0, 0, 1, 1]
    assert table.labels_N.tolist() == [-1]


def test_tokenised_once_and_read_back(tokenizer_file, tmp_path, monkeypatch):
    dataset = dataset_of(["a b", "c", "d d d"], labels=[0, 1, -1])
    cache = tmp_path / "cache"
    first = tokenise_dataset(dataset, tokenizer_file, cache=cache)
    monkeypatch.setattr(tokenise, "_save", None)
    again = tokenise_dataset(dataset, tokenizer_file, cache=cache)
    assert again.digest == first.digest
    assert again.splits["train"].digest == first.splits["train"].digest
    assert again.coverage == first.coverage
    assert isinstance(again.splits["train"].tokens_S, np.memmap)
    assert [p.name for p in cache.iterdir()] == [f"{first.digest}-3"]


@pytest.mark.parametrize("texts_b", [None, ("d", "c", "b", "a", "x")])
def test_pieces_on_disk_are_the_arrays_in_memory(tokenizer_file, tmp_path, monkeypatch, texts_b):
    dataset = dataset_of(["a b", "c", "d d d", "x", "a b c d a b c d"], texts_b)
    monkeypatch.setattr(tokenise, "_AT_ONCE", 2)
    kept = tokenise_dataset(dataset, tokenizer_file, max_length=6, cache=tmp_path)
    held = tokenise_dataset(dataset, tokenizer_file, max_length=6)
    assert kept.coverage == held.coverage and kept.digest == held.digest
    assert kept.splits["train"].digest == held.splits["train"].digest
    for name in ("tokens_S", "token_types_S", "offsets_N1"):
        assert isinstance(getattr(kept.splits["train"], name), np.memmap)


def test_few_bytes_an_example_are_held(tokenizer_file, tmp_path):
    """Of texts that are there already: twice as many take little more, tokenised or opened."""

    def most(count, name):
        dataset = dataset_of(["a b c d a b c d x y"] * count)
        for _ in range(2):
            tracemalloc.start()
            table = tokenise_dataset(dataset, tokenizer_file, cache=tmp_path / name).splits["train"]
            rows = np.arange(0, count, 10)
            assert len(table.take(rows)) == len(rows)
            yield tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()

    few, many = (list(most(count, str(count))) for count in (4_000, 12_000))
    for small, large in zip(few, many, strict=True):
        assert (large - small) / 8_000 < 40


def test_the_name_of_the_arrays_holds_everything_they_depend_on(tokenizer_file, tmp_path):
    dataset = dataset_of(["a b"])
    digests = {tokenise_dataset(dataset, tokenizer_file).digest}
    digests.add(tokenise_dataset(dataset, tokenizer_file, max_length=64).digest)
    digests.add(tokenise_dataset(dataset_of(["a c"]), tokenizer_file).digest)
    changed = json.loads(tokenizer_file.read_text())
    changed["model"]["vocab"] = {"[UNK]": 0, "[CLS]": 2, "[SEP]": 3, "a": 9}
    tokenizer_file.write_text(json.dumps(changed))
    digests.add(tokenise_dataset(dataset, tokenizer_file).digest)
    assert len(digests) == 4


def test_damaged_arrays_are_refused(tokenizer_file, tmp_path):
    dataset = dataset_of(["a b"])
    digest = tokenise_dataset(dataset, tokenizer_file, cache=tmp_path / "cache").digest
    folder = tmp_path / "cache" / f"{digest}-3"
    file = folder / "train.tokens_S.npy"
    whole = file.read_bytes()
    for content in (whole[:-1] + b"\7", whole[:-4], b"", None):
        file.unlink() if content is None else file.write_bytes(content)
        with pytest.raises(UserError, match=f"{folder} is damaged .*delete that folder"):
            tokenise_dataset(dataset, tokenizer_file, cache=tmp_path / "cache")


def test_mistakes_are_reported(tokenizer_file, tmp_path):
    dataset = dataset_of(["a b"])
    with pytest.raises(UserError, match="no tokeniser at"):
        tokenise_dataset(dataset, tmp_path / "none.json")
    with pytest.raises(UserError, match="max length 3 leaves no room beside 3 special tokens"):
        tokenise_dataset(dataset, tokenizer_file, max_length=3)
    tokenizer_file.write_text("{}")
    with pytest.raises(UserError, match="is not a tokeniser file"):
        tokenise_dataset(dataset, tokenizer_file)


def test_a_text_without_tokens_is_reported(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "t.json"))
    with pytest.raises(UserError, match="no token in example 'e1'"):
        tokenise_dataset(dataset_of(["a", " "]), tmp_path / "t.json")


def token_table(rows):
    lengths = [len(row) for row in rows]
    tokens_S = np.concatenate(rows).astype(np.int32)
    return TokenTable(
        ids=tuple(f"e{i}" for i in range(len(rows))),
        tokens_S=tokens_S,
        token_types_S=(tokens_S % 2).astype(np.int8),
        offsets_N1=np.append(0, np.cumsum(lengths)).astype(np.int64),
        labels_N=np.arange(len(rows), dtype=np.int32),
        scores_N=np.arange(len(rows), dtype=np.float32) / 2,
    )


@given(
    st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=5), min_size=1, max_size=20),
    st.data(),
)
def test_take_is_indexing_by_rows(rows, data):
    picked = data.draw(st.lists(st.integers(0, len(rows) - 1), unique=True, max_size=len(rows)))
    table = token_table(rows).take(np.array(picked, np.int64))
    assert rows_of(table) == [rows[i] for i in picked]
    assert table.ids == tuple(f"e{i}" for i in picked)
    assert table.labels_N.tolist() == picked and (table.scores_N * 2).tolist() == picked
    np.testing.assert_array_equal(table.token_types_S, table.tokens_S % 2)


def test_without_labels_hides_them_in_a_copy():
    table = token_table([[1], [2, 3], [4]])
    hidden = table.without_labels(np.array([0, 2]))
    assert hidden.labels_N.tolist() == [-1, 1, -1] and table.labels_N.tolist() == [0, 1, 2]
    assert hidden.digest != table.digest


def test_minilm_tokens(minilm_folder):
    """Golden ids of bert-base-uncased's vocabulary; the file's own padding to 128 is gone."""
    dataset = dataset_of(["Great product!", "word " * 300])
    table = tokenise_dataset(dataset, minilm_folder / "tokenizer.json").splits["train"]
    assert rows_of(table)[0] == [101, 2307, 4031, 999, 102]
    assert table.lengths_N.tolist() == [5, 128]
    longer = tokenise_dataset(dataset, minilm_folder / "tokenizer.json", max_length=256)
    assert longer.splits["train"].lengths_N.tolist() == [5, 256]


def test_other_labels_leave_the_table_as_it_was():
    table = token_table([[1], [2, 3], [4]])
    other = table.with_labels(np.array([2, -1, 0]))
    assert other.labels_N.tolist() == [2, -1, 0] and other.labels_N.dtype == np.int32
    assert table.labels_N.tolist() == [0, 1, 2] and rows_of(other) == rows_of(table)
    with pytest.raises(ValueError, match="labels of shape"):
        table.with_labels(np.zeros(2, np.int32))


def test_what_is_cut_and_unknown_is_counted(tokenizer_file):
    """By hand: of four texts two are longer than 6 tokens, and of 13 words kept three unknown."""
    dataset = dataset_of(["a b c d a b", "a x", "y b c d a b c", "c x d"])
    tokens = tokenise_dataset(dataset, tokenizer_file, max_length=6)
    assert tokens.coverage["train"] == Coverage(cut=0.5, unknown=3 / 13, fitting=9)


@given(st.lists(st.lists(st.sampled_from("abcdx"), min_size=1, max_size=9), min_size=1, max_size=8))
def test_cutting_only_the_long_is_cutting_all(tmp_path_factory, rows):
    """The tokeniser's own truncation of every text is the oracle, in pieces of any size."""
    vocabulary = {w: i for i, w in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    texts = tuple(" ".join(row) for row in rows)
    file = tmp_path_factory.getbasetemp() / "words.json"
    tokenizer.save(str(file))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenise, "_AT_ONCE", 3)
        arrays, tally = Tokeniser(file, 4).encode(texts, ids=texts)
    coverage = tally.coverage(4)
    tokenizer.enable_truncation(4)
    expected = [each.ids for each in tokenizer.encode_batch(list(texts))]
    assert arrays["tokens_S"].tolist() == [token for row in expected for token in row]
    assert arrays["offsets_N1"].tolist() == np.cumsum([0, *map(len, expected)]).tolist()
    assert coverage.cut == np.mean([len(row) > 4 for row in rows])


def test_tokens_that_occur_are_those_of_batches():
    tokens = np.asarray([5, 2, 9, 2], np.int32)
    table = TokenTable(
        ids=("a", "b"),
        tokens_S=tokens,
        token_types_S=np.zeros(4, np.int8),
        offsets_N1=np.asarray([0, 1, 4]),
        labels_N=np.zeros(2, np.int32),
    )
    batch = table.batch(np.arange(2), 5, 4)
    assert table.occurring_tokens.tolist() == sorted({*batch.input_ids_BT.ravel().tolist()})
