"""An objective fitted to two models: what it computes, what it refuses."""

import jax
import numpy as np
import pytest

from distill_jax import losses
from distill_jax.core.errors import UserError
from distill_jax.core.types import Capture, ModelShape
from distill_jax.objectives import parse
from distill_jax.objectives.resolve import resolve


def fitted(text, world, teacher="same"):
    shape = world.teacher_shape if teacher == "same" else teacher
    return resolve(text, world.student_shape, shape)


def test_the_total_is_the_weighted_sum_of_means_over_what_each_term_counts(world):
    resolved = fitted("0.9*kl(T=4) + 0.1*ce(label_smoothing=0.2)", world)
    total, parts = jax.jit(resolved)(
        {}, resolved.numbers(0, 1), *(world.student, world.teacher), world.batch
    )
    real, labelled = np.arange(6) < 5, np.arange(6) < 4
    z, t, y = world.student.logits_BC, world.teacher.logits_BC, world.batch.labels_B
    kl = np.asarray(losses.kl(z, t, where=real, T=np.float32(4)))
    ce = np.asarray(losses.ce(z, y, where=labelled, label_smoothing=np.float32(0.2)))
    np.testing.assert_allclose(parts["kl"], (kl.sum(), 5), rtol=1e-5)
    np.testing.assert_allclose(parts["ce"], (ce.sum(), 4), rtol=1e-5)
    np.testing.assert_allclose(total, 0.9 * kl.sum() / 5 + 0.1 * ce.sum() / 4, rtol=1e-5)
    assert total.dtype == np.float32


def test_a_batch_without_labels_or_examples_is_no_loss(world):
    resolved = fitted("ce + kl", world)
    for batch in (world.make_batch(labelled=0, rows=0), world.make_batch(labelled=0)):
        total, parts = resolved({}, resolved.numbers(0, 1), world.student, world.teacher, batch)
        assert float(parts["ce"][0]) == 0 and float(parts["ce"][1]) == 0
        assert np.isfinite(total) and (float(total) == 0) == (batch.where_B.sum() == 0)


def test_layer_losses_are_means_over_their_pairs(world):
    resolved = fitted("hidden_mse(layers={2: 1, 1: 4}, embeddings=True)", world)
    params = resolved.init_params(jax.random.key(0))
    own = params["hidden_mse"]["teacher_0"]
    assert sorted(own) == ["projection_0_0", "projection_1_4", "projection_2_1"]
    total, _ = resolved(params, resolved.numbers(0, 1), world.student, world.teacher, world.batch)
    expected = []
    for s, t in ((0, 0), (2, 1), (1, 4)):
        kernel = np.asarray(own[f"projection_{s}_{t}"]["kernel"])
        hidden = world.student.hidden_states[s] @ kernel
        values = losses.hidden_mse(
            hidden, world.teacher.hidden_states[t], where=world.batch.where_BT
        )
        expected.append(np.asarray(values)[:5].mean())
    np.testing.assert_allclose(total, np.mean(expected), rtol=1e-5)
    assert resolved.student_capture == Capture(hidden_states=(0, 1, 2))
    assert resolved.teacher_capture == Capture(hidden_states=(0, 1, 4))
    (note,) = resolved.notes
    assert "student 0 <- teacher 0, student 2 <- teacher 1, student 1 <- teacher 4" in note
    assert "projection 8 -> 12" in note


def test_projections_where_they_are_needed_or_asked_for(world):
    same = world.teacher_shape
    for text, owned in (
        ("hidden_mse", False),
        ("hidden_mse(projection=True)", True),
        ("hidden_mse(projection=False)", False),
        ("hint", True),
        ("vid", True),
        ("crd", False),
        ("cka", False),
    ):
        assert bool(resolve(text, same, same).init_params(jax.random.key(0))) == owned, text


def test_terms_of_one_name_have_labels_and_parameters_of_their_own(world):
    resolved = fitted("hidden_mse(layers={1: 1}) + 2*kl + hidden_mse(layers={1: 1})", world)
    params = resolved.init_params(jax.random.key(0))
    assert list(params) == ["hidden_mse", "hidden_mse_2"]
    kernels = [np.asarray(p["teacher_0"]["projection_1_1"]["kernel"]) for p in params.values()]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.01
    assert list(resolved.numbers(0, 1)) == ["hidden_mse", "kl", "hidden_mse_2"]


def test_numbers_follow_their_schedules_on_the_host(world):
    resolved = fitted("linear(1, 0)*kl(T=step({0: 4, 0.5: 2})) + 0.5*ce", world)
    at = [resolved.numbers(step, 10) for step in (0, 5, 10, 99)]
    assert [n["kl"]["weight"] for n in at] == [1, 0.5, 0, 0]
    assert [n["kl"]["T"] for n in at] == [4, 2, 2, 2]
    assert all(n["ce"] == {"weight": 0.5, "label_smoothing": 0.0} for n in at)
    assert all(type(leaf) is np.float32 for leaf in jax.tree.leaves(at))


def test_objectives_that_differ_in_numbers_share_one_program(world):
    one, other = (
        fitted(text, world) for text in ("0.9*kl(T=4) + 0.1*ce", "0.5*kl + cosine(1, 0)*ce")
    )
    assert one.structure == other.structure == "#*kl(T=#) + #*ce(label_smoothing=#)"
    assert one == other and len({one, other}) == 1 and str(one.objective) != str(other.objective)
    run = jax.jit(
        lambda resolved, numbers: resolved({}, numbers, world.student, world.teacher, world.batch)[
            0
        ],
        static_argnums=0,
    )
    values = [float(run(r, r.numbers(0, 1))) for r in (one, other)]
    assert run._cache_size() == 1 and values[0] != values[1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("kl + ce", "ce + kl"),
        ("kl", "kl(standardize=True)"),
        ("soft_ce", "soft_ce(variant='as_released')"),
        ("hidden_mse", "hidden_mse(layers='last')"),
        ("hidden_mse(layers={1: 2, 2: 4})", "hidden_mse(layers={2: 4, 1: 2})"),
        ("topk_kl(k=2)", "topk_kl(k=3)"),
        ("sp", "sp(on='cls')"),
    ],
)
def test_objectives_that_differ_in_static_parts_do_not(one, other, world):
    assert fitted(one, world).structure != fitted(other, world).structure
    assert fitted(one, world) != fitted(other, world)


def test_standardize_is_a_transform_of_both_sides(world):
    plain, standard = fitted("kl", world), fitted("kl(standardize=True)", world)
    transformed = [
        world.student.replace(logits_BC=losses.standardize_logits(output.logits_BC))
        for output in (world.student, world.teacher)
    ]
    numbers = plain.numbers(0, 1)
    expected, _ = plain({}, numbers, *transformed, world.batch)
    got, _ = standard({}, numbers, world.student, world.teacher, world.batch)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "student", "teacher", "words"),
    [
        ("kl", (2, 8, 2, 4), None, "kl: this loss needs a teacher"),
        ("kl", (2, 8, 2, 4), (4, 8, 2, 3), "student has 4 classes, the teacher 3"),
        ("crd(on='logits')", (2, 8, 2, 4), (4, 8, 2, 3), "4 classes"),
        ("kl", (2, 8, 2, 1), (4, 8, 2, 1), "use mse_regression"),
        ("listnet", (2, 8, 2, 1), (4, 8, 2, 1), "only 1"),
        ("hidden_mse(layers={3: 1})", (2, 8, 2, 4), (4, 8, 2, 4), "student has no layer 3"),
        ("hidden_mse(projection=False)", (2, 8, 2, 4), (4, 12, 2, 4), "equal widths"),
        ("attention_kl(heads='each')", (2, 8, 2, 4), (4, 12, 3, 4), "heads='mean'"),
        ("attention_kl(layers={0: 0})", (2, 8, 2, 4), (4, 12, 3, 4), "no layer 0"),
        ("minilm_v2(relation_heads=3)", (2, 8, 2, 4), (4, 12, 3, 4), "does not divide both"),
        ("fsp(layers={1: 1})", (2, 8, 2, 4), (4, 12, 3, 4), "two pairs"),
        ("kl(teacher=1)", (2, 8, 2, 4), (4, 12, 3, 4), "no teacher 1"),
        ("kl(teacher_weights=[1])", (2, 8, 2, 4), (4, 12, 3, 4), "no meaning with one teacher"),
        ("sp(teachers='mean_logits')", (2, 8, 2, 4), (4, 12, 3, 4), "losses on logits"),
    ],
)
def test_what_cannot_be_computed_is_refused_before_the_first_step(text, student, teacher, words):
    with pytest.raises(UserError, match=words):
        resolve(text, ModelShape(*student), teacher and ModelShape(*teacher))


def test_ce_needs_no_teacher(world):
    resolved = fitted("ce", world, teacher=None)
    assert not resolved.needs_teacher and resolved.teacher_capture == Capture()
    total, _ = resolved({}, resolved.numbers(0, 1), world.student, None, world.batch)
    assert np.isfinite(total)


def test_heads_are_averaged_where_their_numbers_differ_and_the_note_says_so(world):
    resolved = fitted("attention_kl + kl", world)
    assert "mean over heads on both sides (2 and 3 heads)" in resolved.notes[0]
    assert (
        "8 relation heads"
        in resolve("minilm_v2", ModelShape(2, 128, 2, 2), ModelShape(6, 384, 12, 2)).notes[0]
    )


SECOND = ModelShape(3, 8, 2, 4)


def several(text, world):
    teachers = world.teacher, world.make_output(SECOND, 9)
    resolved = resolve(text, world.student_shape, (world.teacher_shape, SECOND))
    params = resolved.init_params(jax.random.key(0))
    total, _ = resolved(params, resolved.numbers(0, 1), world.student, teachers, world.batch)
    return float(total), teachers, resolved


def test_several_teachers_are_combined_as_the_text_says(world):
    z = world.student.logits_BC
    real = np.arange(6) < 5

    def kl(teacher_logits):
        return float(np.sum(losses.kl(z, teacher_logits, where=real, T=np.float32(2)))) / 5

    total, (one, two), _ = several("kl(T=2, teacher_weights=[1, 3])", world)
    both = [kl(t.logits_BC) for t in (one, two)]
    np.testing.assert_allclose(total, 0.25 * both[0] + 0.75 * both[1], rtol=1e-5)
    stacked, weights = np.stack([one.logits_BC, two.logits_BC]), np.float32([1, 1])
    total, _, _ = several("kl(T=2, teachers='mean_probabilities')", world)
    mean = losses.mean_probabilities(stacked, weights=weights, T=np.float32(2))
    np.testing.assert_allclose(total, kl(mean), rtol=1e-5)
    total, _, _ = several("kl(T=2, teachers='mean_logits')", world)
    np.testing.assert_allclose(total, kl(losses.mean_logits(stacked)), rtol=1e-5)
    total, _, resolved = several("kl(T=2, teacher=1) + 0*ce", world)
    np.testing.assert_allclose(total, both[1], rtol=1e-5)
    assert resolved.teacher_captures == (Capture(), Capture())


def test_each_of_several_teachers_has_its_layers_and_projections(world):
    total, _, resolved = several("hidden_mse(layers={-1: -1}) + attention_kl(teacher=0)", world)
    assert np.isfinite(total)
    assert resolved.teacher_captures == (
        Capture(hidden_states=(4,), attention_scores=(2, 4)),
        Capture(hidden_states=(3,)),
    )
    params = resolved.init_params(jax.random.key(0))
    assert list(params) == ["hidden_mse"] and list(params["hidden_mse"]) == ["teacher_0"]
    assert "(teacher 1): student 2 <- teacher 3" in resolved.notes[1]
    with pytest.raises(ValueError, match="several teachers"):
        _ = resolved.teacher_capture
    with pytest.raises(UserError, match="a number for each of 2 teachers"):
        resolve("kl(teacher_weights=[1, 2, 3])", world.student_shape, (world.teacher_shape, SECOND))


def test_text_and_parsed_objectives_resolve_alike(world):
    assert fitted("kl + ce", world) == fitted(parse("kl + ce"), world)


def test_weights_are_wanted_for_every_class(world):
    assert resolve("ce(class_weights=[1, 2, 3, 4])", world.student_shape, None)
    for given in ("[1, 2]", "[0, 0, 0, 0]"):
        with pytest.raises(UserError, match="a number for each of 4 classes"):
            resolve(f"ce(class_weights={given})", world.student_shape, None)
    with pytest.raises(UserError, match="class_weights of ce"):
        resolve("ce(class_weights=[1, -2, 3, 4])", world.student_shape, None)
