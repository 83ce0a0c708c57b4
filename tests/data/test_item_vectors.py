"""Vectors of items out of files, keyed by item; what is no such file is told."""

import ml_dtypes
import numpy as np
import pytest
from damages import damaged, told
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from distill_jax.core.errors import UserError
from distill_jax.data.item_vectors import read_item_vectors

VECTORS = np.arange(6, dtype=np.float32).reshape(3, 2)
ITEMS = ("a", "7", "c d")


def npy(folder, ids="item\na\n7\nc d\n", ending=".csv", vectors=VECTORS):
    np.save(folder / "own.npy", vectors)
    if ids is not None:
        (folder / f"own{ending}").write_text(ids)
    return folder / "own.npy"


@pytest.mark.parametrize(
    ("ids", "ending"),
    [
        ("item\na\n7\nc d\n", ".csv"),
        ("row,id,title\n0,a,A\n1,7,B\n2,c d,C\n", ".csv"),  # as vectors are exported
        ("row,id,title\n1,7,B\n2,c d,C\n0,a,A\n", ".csv"),  # sorted by title
        ("row,id\n4,a\n4,7\n9,c d\n", ".csv"),  # rows of something else
        ("product_id\tprice\na\t1\n7\t2\nc d\t3\n", ".tsv"),
        ("a\n7\nc d\n", ".txt"),
    ],
)
def test_npy_with_items_beside_it(tmp_path, ids, ending):
    found = read_item_vectors(npy(tmp_path, ids, ending))
    assert found.items == ITEMS
    np.testing.assert_array_equal(found.vectors_NV, VECTORS)


def test_safetensors(tmp_path):
    save_file(dict(zip(ITEMS, VECTORS, strict=True)), tmp_path / "each.safetensors")
    each = read_item_vectors(tmp_path / "each.safetensors")
    assert sorted(each.items) == sorted(ITEMS)
    np.testing.assert_array_equal(each.of(ITEMS)[0], VECTORS)
    numbered = {"vectors": VECTORS.astype(np.float64), "ids": np.array([4, 7, 9])}
    save_file(numbered, tmp_path / "numbers.safetensors")
    assert read_item_vectors(tmp_path / "numbers.safetensors").items == ("4", "7", "9")
    half = {"vectors": VECTORS.astype(ml_dtypes.bfloat16)}  # as language models are saved
    save_file(half, tmp_path / "own.safetensors")
    (tmp_path / "own.txt").write_text("a\n7\nc d\n")
    own = read_item_vectors(tmp_path / "own.safetensors")
    assert own.items == ITEMS and own.vectors_NV.dtype == np.float32
    np.testing.assert_array_equal(own.vectors_NV, VECTORS)


def test_in_the_order_of_a_catalogue(tmp_path):
    vectors_IV, known_I = read_item_vectors(npy(tmp_path)).of(("7", "new", "a"))
    assert vectors_IV.tolist() == [[2, 3], [0, 0], [0, 1]]
    assert known_I.tolist() == [True, False, True]
    with pytest.raises(UserError, match=r"none of its items \('a', ...\) is in the catalogue"):
        read_item_vectors(npy(tmp_path)).of(("x", "y"))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda f: f / "no.npy", "no file"),
        (lambda f: npy(f).with_suffix(".csv"), "expected item vectors as .npy or .safetensors"),
        (lambda f: npy(f, None), "whose are the vectors"),
        (lambda f: npy(f, "a,b\n1,2\n"), "expected item or id"),
        (lambda f: npy(f, "item\na\n7\n"), "3 vectors and 2 items"),
        (lambda f: npy(f, "item\na\n7\na\n"), "item 'a' occurs twice"),
        (lambda f: npy(f, vectors=VECTORS[0]), "of shape"),
        (lambda f: npy(f, vectors=VECTORS.astype(str)), "expected numbers"),
        (lambda f: npy(f, vectors=np.float32([[1], [np.nan], [2]])), "item '7' holds no finite"),
        (lambda f: npy(f, vectors=np.array([[1], [1e300], [2]])), "item '7' holds no finite"),
        (lambda f: npy(f, vectors=np.array([[1], [1e30], [2]])), "item '7' .* above 1e\\+15"),
        (lambda f: npy(f, vectors=np.array([[{}]])), "no whole .npy file"),
    ],
)
def test_what_is_no_such_file_is_told(tmp_path, make, match):
    with pytest.raises(UserError, match=match) as caught:
        read_item_vectors(make(tmp_path))
    assert "\n" not in str(caught.value)


def test_tensors_that_are_no_vectors(tmp_path):
    for number, tensors in enumerate(
        [
            {"a": VECTORS, "b": VECTORS},
            {"a": VECTORS[0], "b": VECTORS[0, :1]},
            {"vectors": VECTORS, "ids": VECTORS[:, 0]},
        ]
    ):
        path = tmp_path / f"{number}.safetensors"
        save_file(tensors, path)
        with pytest.raises(UserError, match=r"expected a tensor|whole numbers"):
            read_item_vectors(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("vectors")


@settings(max_examples=40)
@given(st.sampled_from(["own.npy", "own.csv", "all.safetensors"]), st.data())
def test_damage_is_read_or_told(folder, name, data):
    npy(folder)
    save_file(dict(zip(ITEMS, VECTORS, strict=True)), folder / "all.safetensors")
    path = folder / name
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    told(lambda: read_item_vectors(folder / ("all.safetensors" if "all" in name else "own.npy")))
