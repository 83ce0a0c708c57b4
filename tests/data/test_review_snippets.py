import collections
import shutil
import subprocess
import sys

import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.data import prepared
from distill_jax.data.load import load_dataset
from distill_jax.data.review_snippets import DOMAINS, ReviewSnippets, read_snippets, split_of
from distill_jax.data.table import fold

# Lines of the files less the repeated texts, and those with a mean rating other than 0.
COUNTS = {"movie": 10605 - 2, "product": 3708 - 11, "news": 5190 - 71, "tweet": 4200 - 60}
# Whoever changes what the data is changes these, and the builder's VERSION with them.
DIGESTS = {
    "movie": "a10fe6aab80bacf1",
    "product": "2b088d1ee48e2388",
    "news": "58c6470f17d42701",
    "tweet": "8bcfe01126831e7b",
}


def write_domain(folder, texts, ratings):
    stem = DOMAINS["product"]
    truth = "".join(f"{i}\t{r}\t{t}\r\n" for (i, t), r in zip(texts, ratings, strict=True))
    rated = "".join(
        f"{i}\t{r}\t0.5\t[{int(r)}, -1]\r\n" for (i, _), r in zip(texts, ratings, strict=True)
    )
    (folder / f"{stem}_GroundTruth.txt").write_bytes(truth.encode())
    (folder / f"{stem}_anonDataRatings.txt").write_bytes(("\ufeff" + rated).encode())


def test_files_with_byte_order_mark_entities_and_repetitions(tmp_path):
    write_domain(
        tmp_path,
        [("1_1", "Rock &amp; roll, AT&T &lt3"), ("1_2", "great  PLAYER"), ("2_1", "Great player")],
        [1.5, -2.0, 3.0],
    )
    snippets = read_snippets(tmp_path, "product")
    assert [s.id for s in snippets] == ["1_1", "1_2"]
    assert snippets[0].text == "Rock & roll, AT&T &lt3"
    assert snippets[0].rating == 1.5 and snippets[1].ratings == (-2, -1)


def test_sentences_of_a_review_share_a_split():
    splits = {split_of("product", f"17_{sentence}") for sentence in range(50)}
    assert len(splits) == 1
    shares = collections.Counter(split_of("product", f"{review}_1") for review in range(10000))
    assert shares["train"] / 10000 == pytest.approx(0.8, abs=0.02)
    assert shares["test"] / 10000 == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_domain(domain, review_dataset):
    dataset = review_dataset(domain)
    assert dataset.digest == DIGESTS[domain]
    assert dataset.label_names == ("negative", "positive")
    sizes = {split: len(table) for split, table in dataset.splits.items()}
    texts, reviews = [], []
    for split, table in dataset.splits.items():
        assert not (table.scores_N == 0).any() and (abs(table.scores_N) <= 4).all()
        np.testing.assert_array_equal(table.labels_N, table.scores_N > 0)
        assert len(table) / sum(sizes.values()) == pytest.approx(
            0.8 if split == "train" else 0.1, abs=0.06
        )
        texts.append({fold(text) for text in table.texts})
        reviews.append({example.split("_")[0] for example in table.ids})
    assert sum(map(len, texts)) == sum(sizes.values()) == len(set.union(*texts))
    assert sum(map(len, reviews)) == len(set.union(*reviews))


@pytest.mark.parametrize("domain", DOMAINS)
def test_all_examples_are_in_the_builder(domain, review_dataset, shared_home):
    review_dataset(domain)
    builder = ReviewSnippets(config=domain, data_dir=prepared.data_dir(shared_home))
    examples = [e for split in builder.info.splits for e in prepared.read(builder, split)]
    assert len(examples) == COUNTS[domain]
    first = next(e for e in examples if e["id"] in ("1", "1_1"))
    assert set(first) == {"id", "text", "rating", "ratings"} and first["text"]
    if domain != "tweet":  # the tweets' two files do not agree
        for example in examples[::50]:
            assert example["rating"] == pytest.approx(np.mean(example["ratings"]), abs=1e-3)


def test_loading_twice_gives_the_same(review_dataset):
    assert review_dataset("product").digest == review_dataset("product").digest


def test_another_home_is_used_for_everything(review_dataset, shared_home, tmp_path):
    review_dataset("product")
    (tmp_path / "assets").symlink_to(shared_home / "assets")
    load_dataset("review_snippets/product", home=tmp_path)
    assert (tmp_path / "tfds" / "review_snippets" / "product").is_dir()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_damaged_metadata_is_reported(review_dataset, shared_home, tmp_path, content):
    review_dataset("news")
    made = tmp_path / "tfds" / "review_snippets" / "news"
    shutil.copytree(shared_home / "tfds" / "review_snippets" / "news", made)
    (made / "1.0.0" / "dataset_info.json").write_bytes(content)
    with pytest.raises(UserError, match=f"prepared data in {made} cannot be read.*Delete that"):
        load_dataset("review_snippets/news", home=tmp_path)


def test_building_needs_no_tensorflow(review_dataset, shared_home, tmp_path):
    review_dataset("product")
    (tmp_path / "assets").symlink_to(shared_home / "assets")
    code = f"""
import sys
from pathlib import Path
class NoTensorFlow:
    def find_spec(self, name, path=None, target=None):
        caller = sys._getframe(1)
        while caller and "importlib" in caller.f_code.co_filename:
            if caller.f_code.co_name == "find_spec" and "util" in caller.f_code.co_filename:
                return None  # asking whether it is installed is no import
            caller = caller.f_back
        if name.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError("blocked: " + name)
sys.meta_path.insert(0, NoTensorFlow())
from distill_jax.data.load import load_dataset
dataset = load_dataset("review_snippets/product", home=Path({str(tmp_path)!r}))
assert len(dataset.splits["train"]) > 2000
assert "tensorflow" not in sys.modules and "jax" not in sys.modules
"""
    result = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
