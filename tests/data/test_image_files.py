"""A file of images: what is read of it, which split an image is of, what is refused."""

import io
import zipfile

import numpy as np
import pytest
from image_files import NAMES, quarters, written

from distill_jax.core.errors import UserError
from distill_jax.data import image_files
from distill_jax.data.image_files import key_of, load, read_images
from distill_jax.data.load_images import is_images, load_images

IMAGES, LABELS = quarters(200)


@pytest.fixture
def file(tmp_path):
    """(arrays) -> a file of the 200 images, with these changed."""
    return lambda **arrays: written(
        tmp_path / "own.npz", **{"images": IMAGES, "labels": LABELS, **arrays}
    )


def test_pixels_labels_and_content_ids_are_those_of_the_file(file):
    dataset = load_images(f"images:{file()}")
    assert dataset.label_names == ("0", "1", "2", "3")
    assert {split: len(table) for split, table in dataset.splits.items()} == {
        "train": 160, "validation": 24, "test": 16,
    }  # fmt: skip
    found = {key: n for n, key in enumerate(image_files.content_keys(IMAGES[..., None]))}
    seen = []
    for table in dataset.splits.values():
        rows = [found[example] for example in table.ids]
        assert table.image == (8, 8, 1) and table.pixels_NHWC.dtype == np.float32
        np.testing.assert_array_equal(np.rint(255 * table.pixels_NHWC[..., 0]), IMAGES[rows])
        np.testing.assert_array_equal(table.labels_N, LABELS[rows])
        seen += rows
    assert sorted(seen) == list(range(200))


def test_the_split_of_an_image_hangs_on_the_image_alone(file):
    """Neither on its place, nor on how many there are."""
    whole = load(file())
    backwards = load(file(images=IMAGES[::-1], labels=LABELS[::-1]))
    fewer = load(file(images=IMAGES[:120], labels=LABELS[:120]))
    for split, table in whole.splits.items():
        assert set(table.ids) == set(backwards.splits[split].ids)
        assert set(fewer.splits[split].ids) <= set(table.ids)


def test_equal_images_stay_in_one_split(file):
    twice = {"images": np.concatenate([IMAGES, IMAGES]), "labels": np.append(LABELS, LABELS)}
    dataset = load(file(**twice))
    keys = [{key_of(each) for each in table.ids} for table in dataset.splits.values()]
    assert sum(map(len, keys)) == len(set.union(*keys)) == 200
    assert sum(map(len, dataset.splits.values())) == 400
    assert any(each.endswith("-2") for each in dataset.splits["test"].ids)


def test_splits_words_and_names_are_those_that_the_file_says(file):
    splits = np.array(["training", "dev", "test", "transfer"])[np.arange(200) // 50]
    words = np.array(NAMES)[LABELS]
    dataset = load(file(splits=splits, labels=words, label_names=np.array(NAMES)))
    assert dataset.label_names == NAMES
    sizes = {split: len(table) for split, table in dataset.splits.items()}
    assert sizes == {"train": 100, "validation": 50, "test": 50}
    assert (dataset.splits["train"].labels_N[50:] == -1).all()  # the transfer set
    numbers = load(file(splits=splits, label_names=np.array(NAMES)))
    assert numbers.digest == dataset.digest


def test_a_split_that_is_missing_is_made_up_for(file):
    splits = np.where(np.arange(200) < 150, "train", "test")
    dataset = load(file(splits=splits))
    held = len(dataset.splits["validation"])
    assert 5 <= held <= 30 and len(dataset.splits["train"]) == 150 - held
    assert any("chosen by a fixed hash" in note for note in dataset.notes)
    lone = load(file(splits=np.where(np.arange(200) < 150, "train", "val")))
    assert lone.splits["test"].digest == dataset.splits["test"].digest
    assert "the validation split serves as test" in lone.notes


def test_images_without_a_label_are_transfer_set(file):
    labels = np.where(np.arange(200) < 100, LABELS, -1)
    dataset = load(file(labels=labels))
    train = dataset.splits["train"]
    assert (train.labels_N < 0).sum() == 100
    assert all((dataset.splits[s].labels_N >= 0).all() for s in ("validation", "test"))


def test_images_that_stand_in_two_splits_are_told(file):
    splits = np.where(np.arange(200) < 150, "train", "test")
    again = np.concatenate([IMAGES[:195], IMAGES[:5]])
    dataset = load(file(images=again, splits=splits))
    train = {key_of(each) for each in dataset.splits["train"].ids}
    shared = sum(key_of(each) in train for each in dataset.splits["test"].ids)
    assert 0 < shared <= 5  # but for those that serve as validation
    assert f"{shared} of 50 test images occur in train too" in dataset.notes


def test_colours_are_channels(file):
    dataset = load(file(images=np.stack([IMAGES, IMAGES, IMAGES], axis=-1)))
    assert dataset.splits["train"].image == (8, 8, 3)


REFUSED = {
    "floats": ({"images": IMAGES.astype(np.float32)}, "images: numbers or words of type float32"),
    "16 bits": ({"images": IMAGES.astype(np.uint16)}, "images must be uint8 .* not uint16"),
    "flat": ({"images": IMAGES.reshape(200, -1)}, r"\[N, H, W\].* not uint8 \[200, 64\]"),
    "none": ({"images": IMAGES[:0], "labels": LABELS[:0]}, "each at least 1"),
    "objects": ({"labels": np.array([{}] * 200)}, "labels: numbers or words of type object"),
    "float labels": ({"labels": LABELS / 2}, "labels: numbers or words of type float64"),
    "fewer labels": ({"labels": LABELS[:7]}, r"labels of shape \[7\] for 200 images"),
    "a low label": ({"labels": LABELS - 3}, "labels run from -3; expected 0 and on"),
    "a high label": ({"label_names": np.array(NAMES[:3])}, "a label is 3, .* has 3 classes"),
    "another word": (
        {"labels": np.array(NAMES)[LABELS], "label_names": np.array(NAMES[:3])},
        "unknown label 'lower right'",
    ),
    "one class": ({"labels": LABELS * 0}, "at least two different labels, found 1"),
    "as many as images": ({"labels": np.arange(200)}, "200 different values in 200 rows"),
    "a split": ({"splits": np.array(["trian"] * 200)}, "unknown split 'trian'.*'train'"),
    "no train": ({"splits": np.array(["test"] * 200)}, "splits has no 'train'"),
    "train alone": ({"splits": np.array(["train"] * 200)}, "no 'validation' and no 'test'"),
    "an array": ({"lables": LABELS}, "unknown array 'lables'.*Did you mean 'labels'"),
    "too few": (
        {"images": IMAGES[:6], "labels": LABELS[:6]}, "6 images are too few to hold out"
    ),
    "names twice": ({"label_names": np.array(["a", "a", "b", "c"])}, "must be different words"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_right_is_refused(file, case):
    arrays, message = REFUSED[case]
    with pytest.raises(UserError, match=message):
        load(file(**arrays))


def header(shape, descr="|u1"):
    """The start of an ``.npy`` that claims this shape."""
    buffer = io.BytesIO()
    fields = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue()


HOSTILE = {
    "a huge claim": (header((10**9, 28, 28)), "at most 268,435,456 are read"),
    "more dimensions than memory": (header((2**40, 2**40, 2**40)), "are read"),
    "less than claimed": (header((10, 8, 8)) + b"x" * 100, "100 bytes or more for 640"),
    "more than claimed": (header((1, 8, 8)) + b"x" * 65, "65 bytes or more for 64"),
    "a negative side": (header((-1, 8, 8)), "are read"),
    "a pickle": (header((1,), "|O") + b"cos\nsystem\n", "of type object"),
    "no array": (b"hello", "is no .npz file that can be read"),
    "code": (b"\x93NUMPY\x01\x00\x20\x00__import__('os').getcwd()       \n", "no .npz file"),
    "half characters": (
        header((1, 1, 1), "<U1") + (0xD800).to_bytes(4, "little"), "of type <U1"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_before_they_are_believed(tmp_path, case):
    content, message = HOSTILE[case]
    path = tmp_path / "bad.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", content)
    with pytest.raises(UserError, match=message):
        read_images(path, labels=False)


def test_words_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "bad.npz"
    written(path, IMAGES[:1])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.npy", header((1,), "<U1") + (0xD800).to_bytes(4, "little"))
    with pytest.raises(UserError, match=r"is no \.npz file that can be read"):
        read_images(path)


def test_files_that_are_none_are_named(tmp_path):
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(UserError, match=r"is no \.npz file"):
        load_images(f"images:{tmp_path / 'text.npz'}")
    with pytest.raises(UserError, match=r"no file .*nowhere"):
        load_images(f"images:{tmp_path / 'nowhere.npz'}")
    with pytest.raises(UserError, match=r"no array 'labels'; it holds images"):
        load(written(tmp_path / "bare.npz", IMAGES))


def test_names_say_whether_a_data_set_is_of_images():
    assert all(map(is_images, ("digits", "images:a.npz", "images:tfds:mnist")))
    assert not any(map(is_images, ("files:images", "tfds:mnist", "review_snippets/movie")))
    for wrong in ("images:", "digit"):
        with pytest.raises(UserError, match=r"unknown data set of images .*images:tfds:NAME"):
            load_images(wrong)


def test_ten_thousand_digits_of_mnist(shared_data):
    """Real data; skipped where it is absent."""
    dataset = load_images(f"images:{shared_data('mnist10k') / 'mnist10k.npz'}")
    sizes = {split: len(table) for split, table in dataset.splits.items()}
    assert sum(sizes.values()) == 10_000 and 7_800 < sizes["train"] < 8_200
    assert dataset.label_names == tuple("0123456789")
    for table in dataset.splits.values():
        assert table.image == (28, 28, 1)
        assert np.bincount(table.labels_N, minlength=10).min() > 60
