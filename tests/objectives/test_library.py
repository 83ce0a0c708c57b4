"""Every loss of the library, through text, on the outputs of two models."""

import dataclasses

import jax
import numpy as np
import pytest

from distill_jax import losses
from distill_jax.core.types import ModelShape
from distill_jax.objectives.registry import lookup, names
from distill_jax.objectives.resolve import resolve

LIBRARY = [name for name in names("classes") if hasattr(losses, name)]
OWNERS = {"hidden_mse", "hidden_cosine", "hint", "embedding_mse", "pkd", "hidden_contrastive"} | {
    "fsp",
    "vid",
    "crd",
    "expert_hints",
    "hierarchical_topology",
}


@pytest.mark.parametrize("name", LIBRARY)
def test_it_learns_in_a_few_steps_and_numbers_do_not_recompile(name, world, quickly):
    """Plain gradient descent on the student's outputs and the loss's own parameters."""
    resolved = resolve(f"0.5*{name}", world.student_shape, world.teacher_shape)
    params = resolved.init_params(jax.random.key(0))
    assert bool(params) == (name in OWNERS)
    student = resolved.student_capture.select(world.student)
    teacher = resolved.teacher_capture.select(world.teacher)
    traces = []

    def value(trained, numbers):
        traces.append(1)
        return resolved(trained[0], numbers, trained[1], teacher, world.batch)[0]

    step = jax.jit(jax.value_and_grad(value), **quickly)
    trained, numbers = (params, student), resolved.numbers(0, 10)
    history = []
    for index in range(4):
        total, grads = step(trained, numbers)
        history.append(float(total))
        if index == 0:  # the start of vid's variances and all else it owns: nothing is left out
            for path, leaf in jax.tree_util.tree_leaves_with_path(grads[0]):
                assert np.any(np.asarray(leaf) != 0), f"{path} gets no gradient"
        norm = np.sqrt(sum(float(np.sum(np.square(g))) for g in jax.tree.leaves(grads)))
        rate = np.float32(0.05 / max(norm, 1e-6))
        trained = jax.tree.map(lambda x, g, rate=rate: x - rate * g, trained, grads)
    assert all(np.isfinite(history)) and history[-1] < history[0], history

    other = resolve(f"linear(3, 1)*{name}", world.student_shape, world.teacher_shape)
    assert other.structure == resolved.structure and other == resolved
    assert hash(other) == hash(resolved)
    step(trained, other.numbers(3, 10))
    assert len(traces) == 1


@pytest.mark.parametrize("name", LIBRARY)
def test_rows_of_padding_and_junk_in_them_change_nothing(name, world, quickly):
    resolved = resolve(name, world.student_shape, world.teacher_shape)
    params, numbers = resolved.init_params(jax.random.key(0)), resolved.numbers(0, 1)
    fed = jax.jit(lambda *outputs: resolved(params, numbers, *outputs, world.batch), **quickly)
    outputs = (
        resolved.student_capture.select(world.student),
        resolved.teacher_capture.select(world.teacher),
    )
    clean, parts = fed(*outputs)

    def with_junk(x):
        x = x.copy()
        x[5] = np.nan  # the row with id -1
        return x

    dirty, dirty_parts = fed(*jax.tree.map(with_junk, outputs))
    np.testing.assert_allclose(dirty, clean, rtol=1e-6)
    ((total, count),) = parts.values()
    labelled = lookup(name).feed.labelled
    assert float(count) == (4 if labelled else 5)
    np.testing.assert_allclose(clean, total / count, rtol=1e-6)
    assert [float(c) for _, c in dirty_parts.values()] == [float(count)]


@pytest.mark.parametrize(
    ("name", "widths", "middle"),
    [
        ("expert_hints", (8, 12), 10),
        ("expert_hints", (8, 8), 4),
        ("expert_hints", (1, 1), 1),
        ("hierarchical_topology", (8, 12), 10),
        ("hierarchical_topology", (8, 8), 8),
    ],
)
def test_experts_are_as_wide_as_the_released_ones(name, widths, middle):
    """SeongKu-Kang/DE-RRD_CIKM20 Models/DE.py: half at equal widths, "for self-distillation".

    SeongKu-Kang/Topology_Distillation_KDD21 model.py: the mean, always.
    """
    student, teacher = (ModelShape(2, width, 1, 2) for width in widths)
    params = resolve(name, student, teacher).init_params(jax.random.key(0))
    shapes = {
        jax.tree_util.keystr(path[-2:], simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    assert shapes["first/kernel"] == (5, widths[0], middle)
    assert shapes["second/kernel"] == (5, middle, widths[1])


def test_what_no_term_needs_is_not_asked_for():
    shapes = {
        "kl + ce": (),
        "hidden_mse": ("hidden_states",),
        "attention_kl": ("attention_scores",),
        "minilm": ("attention_scores", "values"),
        "minilm_v2": ("queries", "keys", "values"),
        "value_kl": ("values",),
        "rkd_angle": ("hidden_states",),
        "rkd_angle(on='logits')": (),
    }
    student, teacher = ModelShape(2, 8, 2, 4), ModelShape(4, 12, 3, 4)
    for text, kinds in shapes.items():
        resolved = resolve(text, student, teacher)
        for capture in (resolved.student_capture, resolved.teacher_capture):
            wanted = {k for k, layers in dataclasses.asdict(capture).items() if layers}
            assert wanted == set(kinds), text


def test_unused_outputs_are_not_part_of_the_compiled_program(world):
    """The cost of an objective on logits does not depend on what else the models could say."""

    def flops(text, make_scores):
        resolved = resolve(text, world.student_shape, world.teacher_shape)

        def program(features, student, teacher):
            scores = {i: make_scores(features) for i in (1, 2)}
            student = student.replace(attention_scores=scores)
            return resolved({}, resolved.numbers(0, 1), student, teacher, world.batch)[0]

        scores = world.student.attention_scores[1]
        compiled = jax.jit(program).lower(scores, world.student, world.teacher).compile()
        return compiled.cost_analysis()["flops"]

    def dear(x):
        return x @ x @ x

    assert flops("kl", dear) == flops("kl", lambda x: x) > 0
    assert flops("attention_kl", dear) > flops("attention_kl", lambda x: x)


def test_pseudo_labels_stand_where_there_is_no_label(world):
    """The transfer set's labels, whatever the batch holds there, are never read."""
    resolved = resolve("pseudo_ce", world.student_shape, world.teacher_shape)
    batch = world.batch
    said = np.argmax(np.asarray(world.teacher.logits_BC), axis=-1)
    where = np.asarray(batch.label_where_B)
    assert where.any() and not where[np.asarray(batch.where_B)].all()
    hard = dataclasses.replace(
        batch,
        labels_B=np.where(where, batch.labels_B, said).astype(np.int32),
        label_where_B=np.asarray(batch.where_B),
    )
    supervised = resolve("ce", world.student_shape, None)
    expected, _ = supervised({}, supervised.numbers(0, 1), world.student, None, hard)
    for junk in (0, 1):
        other = dataclasses.replace(
            batch, labels_B=np.where(where, batch.labels_B, junk).astype(np.int32)
        )
        value, _ = resolved({}, resolved.numbers(0, 1), world.student, world.teacher, other)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
