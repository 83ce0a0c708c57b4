"""Losses on outputs a token, against sums written out word by word."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from distill_jax.core.errors import UserError
from distill_jax.core.spans import ENDS, STARTS
from distill_jax.core.types import Batch, ModelOutput, ModelShape
from distill_jax.objectives.grammar import parse
from distill_jax.objectives.resolve import resolve
from distill_jax.objectives.token_outputs import IntentAndTags, Positions, TokenTags

B, T, C = 4, 6, 5
LENGTHS = (6, 4, 5, 0)
"""The last row is padding; the third one has no label."""


def a_batch(targets):
    where_BT = np.arange(T)[None] < np.array(LENGTHS)[:, None]
    return Batch(
        example_ids_B=jnp.array([3, 1, 2, -1], jnp.int32),
        input_ids_BT=jnp.ones((B, T), jnp.int32),
        token_type_ids_BT=jnp.zeros((B, T), jnp.int32),
        where_BT=jnp.asarray(where_BT),
        labels_B=jnp.array([1, 0, 0, 0], jnp.int32),
        label_where_B=jnp.array([True, True, False, False]),
        targets=jnp.asarray(np.where(where_BT, targets, -1), jnp.int32),
    )


TAGS = np.array([[-1, 0, 2, -1, 1, -1], [-1, 2, 1, -1, -1, -1], [-1, 0, 0, 0, -1, -1], [-1] * 6])


def said(seed, outputs=C):
    logits = np.random.default_rng(seed).normal(size=(B, T, outputs)).astype(np.float32)
    return ModelOutput(
        logits_BC=jnp.asarray(logits),
        hidden_states={0: jnp.asarray(logits), 1: jnp.asarray(2 * logits)},
    )


def value(text, outputs, batch, student, teacher, count=C):
    shape = ModelShape(1, count, 1, count)
    objective = resolve(text, shape, shape, outputs)
    total, parts = jax.jit(objective)({}, objective.numbers(0, 1), student, teacher, batch)
    return float(total), parts, objective


def test_tags_are_a_class_a_word():
    batch, student, teacher = a_batch(TAGS), said(0), said(1)
    logits = (np.asarray(each.logits_BC, np.float64) for each in (student, teacher))
    s, t = (log_softmax(each, axis=-1) for each in logits)
    labelled = [(b, w) for b in (0, 1) for w in range(T) if TAGS[b, w] >= 0]
    every = [(b, w) for b in (0, 1, 2) for w in range(T) if TAGS[b, w] >= 0]
    ce, parts, _ = value("ce", TokenTags(), batch, student, teacher)
    assert ce == pytest.approx(np.mean([-s[b, w, TAGS[b, w]] for b, w in labelled]), rel=1e-5)
    assert float(parts["ce"][1]) == len(labelled) == 5
    kl, parts, _ = value("kl", TokenTags(), batch, student, teacher)
    expected = [(np.exp(t[b, w]) * (t[b, w] - s[b, w])).sum() for b, w in every]
    assert kl == pytest.approx(np.mean(expected), rel=1e-5)
    assert float(parts["kl"][1]) == len(every) == 8


@pytest.mark.parametrize("outputs", [TokenTags(), Positions(), IntentAndTags(tags=3)])
def test_nothing_outside_of_what_is_asked_enters(outputs):
    spans = np.where(TAGS >= 0, TAGS, -1)
    spans[:, 0] = 0
    batch = a_batch(spans if isinstance(outputs, Positions) else TAGS)
    count = 2 if isinstance(outputs, Positions) else C
    text = "0.5*kl(T=2) + 0.2*mse_logits + 0.3*ce"
    reads_first = not isinstance(outputs, TokenTags) or isinstance(outputs, IntentAndTags)
    free = np.asarray(batch.targets) < 0
    if reads_first:
        free[:3, 0] = False

    def moved(output):
        logits = np.array(output.logits_BC)
        logits[free] = 1e30
        return output.replace(logits_BC=jnp.asarray(logits))

    sides = said(0, count), said(1, count)
    plain, _, objective = value(text, outputs, batch, *sides, count)
    assert value(text, outputs, batch, *map(moved, sides), count)[0] == plain

    def total(student):
        return objective({}, objective.numbers(0, 1), student, moved(sides[1]), batch)[0]

    slope = np.asarray(jax.grad(total)(moved(sides[0])).logits_BC)
    assert np.isfinite(slope).all()
    assert not slope[free].any() and slope[~free].any()


def test_hidden_states_are_compared_at_every_token_as_those_of_classifiers():
    from distill_jax.objectives.outputs import CLASSES

    batch, student, teacher = a_batch(TAGS), said(0), said(1)
    own = value("hidden_mse", TokenTags(), batch, student, teacher)[0]
    assert own == value("hidden_mse", CLASSES, batch, student, teacher)[0] > 0


def test_starts_and_ends_are_classes_over_the_tokens_asked():
    spans = np.full((B, T), -1)
    spans[0, [0, 2, 3, 4]] = [0, STARTS, 0, ENDS]
    spans[1, [0, 2, 3]] = [STARTS | ENDS, 0, 0]
    spans[2, [0, 1, 2, 3]] = 0
    batch, student, teacher = a_batch(spans), said(0, 2), said(1, 2)

    def log_probs(output, row, end):
        asked = spans[row] >= 0
        logits = np.where(asked, np.asarray(output.logits_BC, np.float64)[row, :, end], -np.inf)
        return log_softmax(logits)

    right = {0: (2, 4), 1: (0, 0)}
    ce, parts, _ = value("ce", Positions(), batch, student, teacher, 2)
    expected = [-log_probs(student, row, end)[right[row][end]] for row in right for end in (0, 1)]
    assert ce == pytest.approx(np.mean(expected), rel=1e-5)
    assert float(parts["ce"][1]) == 4
    kl, parts, _ = value("kl", Positions(), batch, student, teacher, 2)
    terms = []
    for row in (0, 1, 2):
        for end in (0, 1):
            t, s = (log_probs(each, row, end)[spans[row] >= 0] for each in (teacher, student))
            terms.append((np.exp(t) * (t - s)).sum())
    assert kl == pytest.approx(np.mean(terms), rel=1e-5)
    assert float(parts["kl"][1]) == 6
    mse, parts, _ = value("mse_logits", Positions(), batch, student, teacher, 2)
    gap_BT2 = np.asarray(student.logits_BC) - np.asarray(teacher.logits_BC)
    means = [(gap_BT2[row, spans[row] >= 0] ** 2).mean(axis=0) for row in (0, 1, 2)]
    assert mse == pytest.approx(np.mean(means), rel=1e-5)


def test_two_heads_on_one_trunk():
    batch, student, teacher = a_batch(TAGS), said(0), said(1)
    z = np.asarray(student.logits_BC, np.float64)
    intents = [-log_softmax(z[b, 0, 3:])[label] for b, label in ((0, 1), (1, 0))]
    slots = [
        np.mean([-log_softmax(z[b, w, :3])[TAGS[b, w]] for w in range(T) if TAGS[b, w] >= 0])
        for b in (0, 1)
    ]
    outputs = IntentAndTags(tags=3)
    given = (outputs, batch, student, teacher)
    assert value("ce(head='intent')", *given)[0] == pytest.approx(np.mean(intents), rel=1e-5)
    assert value("ce(head='slots')", *given)[0] == pytest.approx(np.mean(slots), rel=1e-5)
    both = np.mean(intents) + np.mean(slots)
    assert value("ce", *given)[0] == pytest.approx(both, rel=1e-5)
    weighed = value("ce(head='intent') + 0.5*ce(head='slots')", *given)[0]
    assert weighed == pytest.approx(np.mean(intents) + 0.5 * np.mean(slots), rel=1e-5)
    shape = ModelShape(1, C, 1, C)
    structures = {
        resolve(f"kl(head='{head}')", shape, shape, outputs).structure
        for head in ("both", "intent", "slots")
    }
    assert len(structures) == 3


@pytest.mark.parametrize(
    ("text", "outputs", "told"),
    [
        ("mse_regression", TokenTags(), "has no meaning for a tag a word. Write mse_logits"),
        ("listnet", TokenTags(), "has no meaning for a tag a word"),
        ("dist", Positions(), "has no meaning for start and end of an answer"),
        ("ce(label_smoothing=0.1)", Positions(), "label_smoothing has no meaning"),
        ("ce(class_weights=(1, 2))", TokenTags(), "a number for each of 5 classes"),
        ("ce(class_weights=(1, 2))", IntentAndTags(tags=3), "class_weights are of one head"),
        ("ce(class_weights=(1, 2, 3), head='intent')", IntentAndTags(tags=3), "each of 2 classes"),
        ("rkd_distance(on='logits')", TokenTags(), "one vector an example"),
    ],
)
def test_what_has_no_meaning_is_refused(text, outputs, told):
    shape = ModelShape(1, C, 1, C)
    with pytest.raises(UserError, match=told):
        resolve(text, shape, shape, outputs)


def test_every_loss_that_is_allowed_computes():
    batch = a_batch(TAGS)
    for outputs, count in ((TokenTags(), C), (IntentAndTags(tags=3), C), (Positions(), 2)):
        for name in outputs.losses:
            own, _, objective = value(name, outputs, batch, said(0, count), said(1, count), count)
            assert np.isfinite(own), name
            assert str(objective.objective) == str(parse(name, outputs))
