"""Predictions come in the order of the table, whatever the batches."""

import jax
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.core.mesh import make_mesh
from distill_jax.data.plan import PlannedBatch, make_batch
from distill_jax.evaluation.predict import (
    classify_texts,
    logits_of,
    one_by_one,
    predict_logits,
)


@pytest.mark.parametrize(("batch_size", "devices"), [(16, 8), (7, 1)])
def test_logits_are_those_of_each_example_alone(teacher, toy_table, batch_size, devices):
    model, params = teacher
    predicted = predict_logits(
        logits_of(model),
        params,
        toy_table,
        shape_lengths=(8, 12),
        batch_size=batch_size,
        mesh=make_mesh(jax.devices()[:devices]),
    )
    assert predicted.shape == (len(toy_table), 2)
    for row in (0, 17, 43):
        alone = make_batch(toy_table, PlannedBatch(np.asarray([row], np.int32), 12), batch_size=1)
        expected = model.apply({"params": params}, alone, train=False).logits_BC[0]
        np.testing.assert_allclose(predicted[row], expected, rtol=1e-4, atol=1e-5)


def test_single_examples_are_spread_over_the_table(toy_table):
    batches = one_by_one(toy_table, 5, shape_lengths=(8, 12))
    assert len(batches) == 5
    assert all(batch.input_ids_BT.shape[0] == 1 for batch in batches)


def test_texts_are_classified_in_order(toy_teacher):
    texts = ["the film is good", "bad", "the plot and the cast and the music", "bad"]
    answers = classify_texts(toy_teacher, texts, batch_size=2)
    assert [text for text, _, _ in answers] == texts
    assert answers[1] == answers[3]
    assert all(name in ("a", "b") and 0.5 <= probability <= 1 for _, name, probability in answers)


def test_a_model_without_a_head_cannot_classify(minilm_folder):
    with pytest.raises(UserError, match="no trained classifier head"):
        classify_texts(minilm_folder, ["text"])
