"""Closed forms on disk: read again they give the same scores; damage is told."""

import json

import numpy as np
import pytest
from recsys import small_split
from safetensors.numpy import load_file, save_file

from distill_jax.core.digests import digest, digest_arrays
from distill_jax.core.errors import UserError
from distill_jax.models.recommenders.closed_forms import (
    CLOSED_FORMS,
    is_closed_form,
    load_closed_form,
    save_closed_form,
    size_of,
)

SPLIT = small_split()
NAMES = SPLIT.data.item_names


@pytest.mark.parametrize("kind", CLOSED_FORMS)
def test_read_again_it_gives_the_same_scores(kind, tmp_path):
    model = CLOSED_FORMS[kind].fit(SPLIT)
    save_closed_form(tmp_path / "model", kind, model, NAMES)
    assert is_closed_form(tmp_path / "model") and not is_closed_form(tmp_path)
    found = load_closed_form(tmp_path / "model")
    assert (found.kind, found.item_names) == (kind, NAMES)
    histories = SPLIT.test.histories(SPLIT.data)
    np.testing.assert_array_equal(found.model.scores(histories), model.scores(histories))
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert size_of(kind, model) == sum(array.nbytes for array in stored.values())
    with pytest.raises(UserError, match="not empty"):
        save_closed_form(tmp_path / "model", kind, model, NAMES)


@pytest.mark.parametrize(
    ("kind", "name", "change"),
    [
        ("ease", "weights", lambda x: x[:-1]),
        ("ease", "weights", lambda x: x * np.float32("nan")),
        ("popularity", "counts", lambda x: x[None]),
        ("item_knn", "rows", lambda x: x + 99),
        ("item_knn", "starts", lambda x: x[::-1].copy()),
        ("item_knn", "values", lambda x: x[1:]),
    ],
)
def test_damage_is_told(kind, name, change, tmp_path):
    """Of the bytes; and of arrays that cannot be, however well they are signed."""
    folder = tmp_path / "model"
    save_closed_form(folder, kind, CLOSED_FORMS[kind].fit(SPLIT), NAMES)
    arrays = load_file(folder / "model.safetensors")
    arrays[name] = change(arrays[name])
    save_file(arrays, folder / "model.safetensors")
    with pytest.raises(UserError, match="its content has changed"):
        load_closed_form(folder)
    raw = json.loads((folder / "config.json").read_text())
    raw["digest"] = digest([kind, digest_arrays(arrays)])
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(UserError, match=r"config.json is damaged: (an array has|its sparse)"):
        load_closed_form(folder)


def test_a_folder_of_another_kind(tmp_path):
    folder = tmp_path / "model"
    save_closed_form(folder, "popularity", CLOSED_FORMS["popularity"].fit(SPLIT), NAMES)
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, "kind": "magic"}))
    with pytest.raises(UserError, match="damaged"):
        load_closed_form(folder)
