import numpy as np
import pytest
import tensorflow_datasets as tfds

from distill_jax.core.errors import UserError
from distill_jax.data import prepared
from distill_jax.data.load import load_dataset


class ToyPairs(tfds.core.GeneratorBasedBuilder):
    """GLUE's layout: labelled train and validation, a test split whose labels are -1."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None
    broken = False

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "sentence": tfds.features.Text(),
                    "second": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(names=["no", "yes"]),
                    "stars": np.int64,
                    "score": np.float32,
                }
            ),
        )

    def _split_generators(self, dl_manager):
        if self.broken:
            raise OSError("no route to host\nsecond line")
        return {
            "train": self._generate_examples(range(200)),
            "validation": self._generate_examples(range(1000, 1020)),
            "test": self._generate_examples(range(2000, 2010), label=-1),
            "extra": self._generate_examples(range(3000, 3002)),
        }

    def _generate_examples(self, numbers, label=None):
        for i in numbers:
            yield (
                i,
                {
                    "sentence": f"säntence {i}",
                    "second": f"second {i}",
                    "label": i % 2 if label is None else label,
                    "stars": 1 + 2 * (i % 3),
                    "score": 0.5,
                },
            )


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "own"))
    return lambda name="toy_pairs", **columns: load_dataset(
        f"tfds:{name}", home=tmp_path / "home", **columns
    )


def test_any_tfds_name(load, tmp_path):
    dataset = load(text_b="second")
    assert dataset.label_names == ("no", "yes")
    sizes = {split: len(table) for split, table in dataset.splits.items()}
    assert sizes["test"] == 20 and sizes["train"] + sizes["validation"] == 200
    for table in dataset.splits.values():
        for text, text_b, label in zip(table.texts, table.texts_b, table.labels_N, strict=True):
            number = int(text.removeprefix("säntence "))
            assert text_b == f"second {number}" and label == number % 2
    assert "splits not used: extra" in dataset.notes
    assert "the test split has no labels and is not used" in dataset.notes
    assert (tmp_path / "home" / "tfds" / "toy_pairs" / "1.0.0").is_dir()
    assert load(text_b="second").digest == dataset.digest


def test_whole_numbers_as_labels(load):
    dataset = load(label="stars")
    assert dataset.label_names == ("1", "3", "5")
    table = dataset.splits["train"]
    for text, label in zip(table.texts, table.labels_N, strict=True):
        assert label == int(text.removeprefix("säntence ")) % 3


def test_unknown_names(load):
    with pytest.raises(UserError, match=r"no TFDS data set 'toy_pair'. Did you mean 'toy_pairs'"):
        load("toy_pair")
    with pytest.raises(UserError, match=r"unknown configuration 'sst3' of tfds:glue.*'sst2'"):
        load("glue/sst3")


def test_unknown_or_unfit_columns(load):
    with pytest.raises(UserError, match=r"unknown column 'sentences' in tfds:toy_pairs.*sentence"):
        load(text="sentences")
    with pytest.raises(UserError, match="column 'stars' is no text"):
        load(text="stars")
    with pytest.raises(
        UserError, match=r"column 'score' holds numbers from 0\.5 to 0\.5, not classes"
    ):
        load(label="score")


def test_data_that_cannot_be_prepared(load, monkeypatch, tmp_path):
    monkeypatch.setattr(ToyPairs, "broken", True)
    with pytest.raises(UserError, match=r"cannot be prepared here \(OSError: .*no route") as caught:
        load()
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(ToyPairs, "broken", False)
    assert len(load().splits["test"]) == 20


def test_damaged_files_are_reported(load, tmp_path):
    load()
    folder = tmp_path / "home" / "tfds" / "toy_pairs" / "1.0.0"
    record = next(folder.glob("*train*"))
    record.write_bytes(record.read_bytes()[:100])
    with pytest.raises(UserError, match=f"prepared data in {folder} cannot be read"):
        load()
    record.unlink()
    with pytest.raises(UserError, match=f"prepared data in {folder} cannot be read"):
        load()


def test_split_shares():
    assert [prepared.split_of(u) for u in (0.0, 0.79, 0.8, 0.89, 0.9, 0.99)] == [
        "train", "train", "validation", "validation", "test", "test",
    ]  # fmt: skip
