"""A cache's teacher and data are found again, or what is wrong is said."""

import dataclasses
import shutil

import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.core.types import Capture
from distill_jax.tasks.classification.cache_origin import load_origin, origin_of
from distill_jax.tasks.classification.cells import DataConfig
from distill_jax.tasks.classification.models import load_checkpoint
from distill_jax.tasks.classification.splits import load_texts, prepare_images, prepare_texts
from distill_jax.teachers.manifest import Provenance

CAPTURE = Capture(hidden_states=(1,))


@pytest.fixture
def texts(toy_teacher, toy_reviews, tmp_path, monkeypatch):
    """Origin and provenance of a teacher that was fine-tuned here."""
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path))
    folder = tmp_path / "teachers" / "0123abcd"
    shutil.copytree(toy_teacher, folder)
    data = DataConfig(name=f"files:{toy_reviews}", label_fraction=0.5)
    checkpoint = load_checkpoint(str(toy_teacher), num_labels=2, fresh=False)
    task = prepare_texts(data, load_texts(data), checkpoint.tokenizer_file)
    return origin_of("toy", folder, task), provenance_of(checkpoint, task), folder


def provenance_of(checkpoint, task):
    everything = task.everything
    data = everything.without_labels(np.arange(len(everything))).digest
    return Provenance(checkpoint.digest, data, CAPTURE)


def test_a_fine_tuned_teacher_is_found(texts):
    origin, provenance, _ = texts
    teacher, table = load_origin(origin, provenance)
    batch = table.batch(np.arange(4), int(table.lengths_N[:4].max()), 4)
    assert teacher(batch).hidden_states.keys() == {1}
    assert len(table) == 60


def test_the_precision_of_the_teacher_is_kept(texts):
    origin, provenance, _ = texts
    batch = load_origin(origin, provenance)[1].batch(np.arange(4), 12, 4)
    fine, coarse = (
        load_origin(origin, dataclasses.replace(provenance, precision=precision))[0](batch)
        for precision in ("f32", "bf16")
    )
    assert 0 < np.abs(fine.logits_BC - coarse.logits_BC).max() < 0.05


def test_a_network_for_images_as_it_came_is_found():
    checkpoint = load_checkpoint("cnn-2-4-8", num_labels=10, fresh=False)
    task = prepare_images(DataConfig(name="digits", transfer="none"))
    provenance = dataclasses.replace(provenance_of(checkpoint, task), capture=Capture())
    teacher, table = load_origin(origin_of("cnn-2-4-8", None, task), provenance)
    assert teacher(table.batch(np.arange(4), 1, 4)).logits_BC.shape == (4, 10)
    assert table.ids == task.everything.ids


@pytest.mark.parametrize("field", ["teacher", "data"])
def test_what_has_changed_is_refused(texts, field):
    origin, provenance, _ = texts
    with pytest.raises(UserError, match=r"changed since the cache was made"):
        load_origin(origin, dataclasses.replace(provenance, **{field: "another"}))


def test_what_is_gone_is_named(texts, tmp_path):
    origin, provenance, folder = texts
    gone = {**origin, "data": {**origin["data"], "name": f"files:{tmp_path / 'nowhere'}"}}
    with pytest.raises(UserError, match="nowhere"):
        load_origin(gone, provenance)
    folder.rename(tmp_path / "away")
    with pytest.raises(UserError, match="fine-tuned teacher is not at"):
        load_origin(origin, provenance)
    with pytest.raises(UserError, match="fine-tuned teacher is not at"):
        load_origin({**origin, "fine_tuned": "../away"}, provenance)


@pytest.mark.parametrize(
    "change", [{"data": None}, {"data": {}}, {"data": {"more_texts": 3}}, {"classes": "many"}]
)
def test_an_origin_that_says_nothing_is_refused(texts, change):
    origin, provenance, _ = texts
    for broken in ({}, {**origin, **change}):
        with pytest.raises(UserError, match="does not say where"):
            load_origin(broken, provenance)
