"""Losses that listen to a teaching recommender, against plain numpy over the whole catalogue."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from distill_jax import losses
from distill_jax.core.errors import UserError
from distill_jax.core.ranking_types import HistoryBatch, RankingOutput
from distill_jax.core.top_items import TopItems, Wanted
from distill_jax.core.types import ModelShape
from distill_jax.objectives.items import Items, negatives_of, resolve_ranking

B, T, D_S, D_T, N = 4, 5, 3, 6, 4
ITEMS = 12
STUDENT, TEACHER = ModelShape(1, D_S, 1, ITEMS), ModelShape(2, D_T, 1, ITEMS)
KEPT = 8
QUICKLY: dict = {}


@pytest.fixture(autouse=True)
def compile_quickly(quickly):
    """Programs that run once."""
    QUICKLY.update(quickly)


@dataclasses.dataclass(frozen=True)
class World:
    """A student's output, all that a teacher would say, a batch; free arrays."""

    student: RankingOutput
    student_BTI: np.ndarray
    teacher_BTI: np.ndarray
    teacher: TopItems
    batch: HistoryBatch


def word_of(logits_BTI, targets_BT, where_BT, top, queries, items_ID, strata_I):
    order = np.argsort(-logits_BTI, axis=-1, kind="stable")
    ids = order[..., :top].astype(np.int32)
    rest = np.take_along_axis(logits_BTI, order[..., top:], axis=-1)
    target = np.take_along_axis(logits_BTI, targets_BT[..., None], axis=-1)[..., 0]
    return TopItems(
        ids,
        np.take_along_axis(logits_BTI, ids, axis=-1),
        np.float32(logsumexp(rest, axis=-1)),
        target,
        where_BT,
        strata_I[ids],
        queries,
        items_ID[targets_BT[:, -1]],
    )


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(3)

    def normal(*shape):
        return np.float32(rng.normal(size=shape))

    lengths = np.array([5, 3, 2, 0])
    where = np.arange(T)[None] >= T - lengths[:, None]
    targets = rng.integers(0, ITEMS, size=(B, T)).astype(np.int32)
    batch = HistoryBatch(
        np.array([7, 2, 5, -1], np.int32),
        np.where(where, rng.integers(1, ITEMS + 1, size=(B, T)), 0).astype(np.int32),
        where,
        targets,
        where,
        rng.integers(0, ITEMS, size=(B, 1, N)).astype(np.int32),
    )
    student = RankingOutput(normal(B, T, D_S), normal(ITEMS, D_S), normal(ITEMS))
    student_BTI = student.queries_BTD @ student.items_ID.T + student.item_bias_I
    teacher_BTI, said_where = 2 * normal(B, T, ITEMS), where.copy()
    said_where[0, 0] = False  # a position that the teacher was not asked about
    strata = np.arange(ITEMS, dtype=np.int32) % 2
    items_ID = normal(ITEMS, D_T)
    said = word_of(teacher_BTI, targets, said_where, KEPT, normal(B, T, D_T), items_ID, strata)
    return World(student, student_BTI, teacher_BTI, said, batch)


def fitted(text):
    return resolve_ranking(text, STUDENT, TEACHER, positions=B * T, rows=4, block=5)


def evaluate(text, world, step=0, learn=False, **changes):
    """(total, parts, params, gradients for student and params, or None)."""
    resolved = fitted(text)
    params = resolved.init_params(jax.random.key(0))
    numbers = resolved.numbers(step, 10)
    teacher = world.teacher.replace(**changes)

    def value(student, params):
        return resolved(params, numbers, student, teacher, world.batch)

    if learn:
        run = jax.jit(jax.value_and_grad(value, (0, 1), has_aux=True), **QUICKLY)
        (total, parts), grads = run(world.student, params)
    else:
        (total, parts), grads = jax.jit(value, **QUICKLY)(world.student, params), None
    return float(total), parts, params, grads


def spoken(world):
    return np.argwhere(world.teacher.where_BT)


def classes(world, b, t, top, tail):
    """Student's and teacher's logits of the top and the tail class."""
    order = np.argsort(-world.teacher_BTI[b, t], kind="stable")
    sides = []
    for logits in (world.student_BTI[b, t], world.teacher_BTI[b, t]):
        own = list(logits[order[:top]])
        sides.append(np.array(own + ([logsumexp(logits[order[top:]])] if tail else [])))
    return sides


@pytest.mark.parametrize(("top", "kept"), [(3, KEPT), (KEPT, KEPT)])
@pytest.mark.parametrize("tail", [True, False])
def test_kl_over_the_top_and_the_tail(world, top, kept, tail):
    expected = []
    for b, t in spoken(world):
        student, teacher = classes(world, b, t, top, tail)
        log_s, log_t = log_softmax(student / 2), log_softmax(teacher / 2)
        expected.append(4 * np.sum(np.exp(log_t) * (log_t - log_s)))
    total, parts, _, _ = evaluate(f"0.5*kl(T=2, top={top}, tail={tail})", world)
    np.testing.assert_allclose(total, 0.5 * np.mean(expected), rtol=1e-5)
    assert float(parts["kl"][1]) == len(spoken(world)) == 9


def test_with_the_tail_a_student_that_agrees_has_no_loss_and_no_gradient(world):
    """KL over top and tail is 0 exactly where the probabilities of the top are the teacher's."""
    queries = np.zeros((B, T, ITEMS), np.float32)
    queries[:] = world.teacher_BTI
    same = RankingOutput(queries, np.eye(ITEMS, dtype=np.float32))
    total, _, _, grads = evaluate("kl(top=5)", dataclasses.replace(world, student=same), learn=True)
    assert total == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(grads[0].queries_BTD, 0, atol=1e-6)


def test_mse_compares_the_top_alone(world):
    squares = []
    for b, t in spoken(world):
        student, teacher = classes(world, b, t, 5, tail=False)
        squares.append(np.mean((student - teacher) ** 2))
    assert evaluate("mse_logits(top=5)", world)[0] == pytest.approx(np.mean(squares), rel=1e-5)


def test_strata_teach_inside_each_popularity_alone(world):
    """The mean over strata of KL among the top's items of a stratum, no tail."""
    expected = []
    for b, t in spoken(world):
        order = np.argsort(-world.teacher_BTI[b, t], kind="stable")[:6]
        inside = []
        for stratum in (0, 1):
            ids = order[order % 2 == stratum]
            if len(ids) > 1:
                log_s = log_softmax(world.student_BTI[b, t, ids])
                log_t = log_softmax(world.teacher_BTI[b, t, ids])
                inside.append(np.sum(np.exp(log_t) * (log_t - log_s)))
        expected.append(np.mean(inside) if inside else 0.0)
    total, _, _, grads = evaluate("kl(top=6, strata=2)", world, learn=True)
    assert total == pytest.approx(np.mean(expected), rel=1e-5)
    assert np.isfinite(grads[0].queries_BTD).all()
    # Raising all items of one stratum alike changes nothing: their popularity is not taught.
    raised = world.student.replace(
        item_bias_I=world.student.item_bias_I + 3 * (np.arange(ITEMS, dtype=np.float32) % 2)
    )
    again = evaluate("kl(top=6, strata=2)", dataclasses.replace(world, student=raised))[0]
    assert again == pytest.approx(total, rel=1e-4)


def listed(world, b, t, top, sampled, target=False):
    """(student's, teacher's) scores of the list that a ranking loss sees."""
    order = np.argsort(-world.teacher_BTI[b, t], kind="stable")
    ids = [*([world.batch.targets_BT[b, t]] if target else []), *order[:top]]
    outside = [i for i in world.batch.negatives_BTN[b, 0] if i not in order[:top]]
    ids += outside if sampled else []
    level = logsumexp(world.teacher_BTI[b, t, order[top:]]) - np.log(ITEMS - top)
    teacher = [world.teacher_BTI[b, t, i] for i in ids]
    if sampled and outside:
        teacher[-len(outside) :] = [level] * len(outside)
    return np.float32(world.student_BTI[b, t, ids]), np.float32(teacher)


@pytest.mark.parametrize(
    ("text", "loss", "options", "target"),
    [
        ("listmle(top=4)", losses.listmle, {}, False),
        ("listnet(top=4)", losses.listnet, {}, False),
        (
            f"relaxed_ranking(top=5, k=2, sampled={N}, stride=1)",
            losses.relaxed_ranking,
            {"k": 2},
            False,
        ),
        (
            f"ranking_distillation(top=5, k=3, sampled={N}, stride=1)",
            losses.ranking_distillation,
            {"k": 3},
            False,
        ),
        ("margin_mse(top=4)", losses.margin_mse, {}, True),
        ("pairwise_logistic(top=4)", losses.pairwise_logistic, {}, False),
    ],
)
def test_lists(world, text, loss, options, target):
    sampled = "sampled" in text
    top = 5 if sampled else 4
    values = []
    for b, t in spoken(world):
        sides = listed(world, b, t, top, sampled, target)
        values.append(float(loss(*sides, **options)))
    total, _, _, grads = evaluate(text, world, learn=text.startswith("ranking_dist"))
    assert total == pytest.approx(np.mean(values), rel=1e-4)
    assert grads is None or np.any(np.asarray(grads[0].items_ID) != 0)


@pytest.mark.parametrize("stride", [2, 3])
def test_strides_look_at_every_position_in_turn(world, stride):
    """Over as many steps the mean is that of all positions, and so are the gradients."""
    text = "listmle(top=4{})"
    total, _, _, grads = evaluate(text.format(""), world, learn=True)
    some = [
        evaluate(text.format(f", stride={stride}"), world, step, True) for step in range(stride)
    ]
    assert np.mean([one[0] for one in some]) == pytest.approx(total, rel=1e-5)
    mean = np.mean([one[3][0].items_ID for one in some], axis=0)
    np.testing.assert_allclose(mean, grads[0].items_ID, rtol=1e-4, atol=1e-5)
    assert len({round(one[0], 5) for one in some}) > 1


def test_a_sampled_item_is_never_above_the_teachers_last(world):
    for b, t in spoken(world):
        order = np.argsort(-world.teacher_BTI[b, t])
        level = logsumexp(world.teacher_BTI[b, t, order[4:]]) - np.log(ITEMS - 4)
        assert level <= world.teacher_BTI[b, t, order[3]]


def test_hidden_states_are_projected_and_padding_does_not_enter(world):
    total, parts, params, _ = evaluate("hidden_mse", world)
    kernel = np.asarray(params["hidden_mse"]["teacher_0"]["projection"]["kernel"])
    values = []
    for b in range(B):
        there = world.teacher.where_BT[b]
        if there.any():
            difference = world.student.queries_BTD[b] @ kernel - world.teacher.queries_BTD[b]
            values.append(np.mean(difference[there] ** 2))
    assert total == pytest.approx(np.mean(values), rel=1e-5)
    assert float(parts["hidden_mse"][1]) == 3


def newest(world):
    return np.flatnonzero(world.teacher.where_BT[:, -1])


def test_embeddings_are_those_of_the_newest_targets(world):
    total, _, params, _ = evaluate("embedding_mse", world)
    kernel = np.asarray(params["embedding_mse"]["teacher_0"]["projection"]["kernel"])
    rows = newest(world)
    student = world.student.items_ID[world.batch.targets_BT[rows, -1]] @ kernel
    expected = np.mean((student - world.teacher.items_BD[rows]) ** 2)
    assert total == pytest.approx(expected, rel=1e-5)


def sides(world, on):
    rows = newest(world)
    queries = world.student.queries_BTD[rows, -1], world.teacher.queries_BTD[rows, -1]
    items = (
        world.student.items_ID[world.batch.targets_BT[rows, -1]],
        world.teacher.items_BD[rows],
    )
    if on == "both":
        return [np.concatenate(pair) for pair in zip(queries, items, strict=True)]
    return queries if on == "queries" else items


@pytest.mark.parametrize("on", ["both", "queries", "items"])
def test_topology_of_users_and_items(world, on):
    expected = float(np.mean(losses.topology(*sides(world, on))))
    assert evaluate(f"topology(on='{on}')", world)[0] == pytest.approx(expected, rel=1e-5)


def test_contrast_between_items_goes_through_a_projection(world):
    total, _, params, _ = evaluate("crd(on='items')", world)
    student, teacher = sides(world, "items")
    own = params["crd"]["teacher_0"]["projection"]
    expected = losses.crd(student @ np.asarray(own["kernel"]) + np.asarray(own["bias"]), teacher)
    assert total == pytest.approx(float(np.mean(expected)), rel=1e-4)


def test_two_teachers_are_the_weighted_mean_of_both(world):
    """Where both of them spoke."""
    spoke = np.array(world.teacher.where_BT)
    spoke[1, -1] = False
    other = world.teacher.replace(logits_BTK=world.teacher.logits_BTK / 2, where_BT=spoke)

    def value(text, teachers, where_BT):
        shapes = TEACHER if len(teachers) == 1 else (TEACHER,) * len(teachers)
        resolved = resolve_ranking(text, STUDENT, shapes, positions=B * T)
        heard = tuple(each.replace(where_BT=where_BT) for each in teachers)
        return float(resolved({}, resolved.numbers(0, 1), world.student, heard, world.batch)[0])

    one, two = (value("kl(top=4)", (each,), spoke) for each in (world.teacher, other))
    text = "kl(top=4, teacher_weights=[3, 1])"
    assert value(text, (world.teacher, other), spoke) == pytest.approx(0.75 * one + 0.25 * two)
    resolved = resolve_ranking("kl(top=4)", STUDENT, (TEACHER, TEACHER), positions=B * T)
    _, parts = resolved(
        {}, resolved.numbers(0, 1), world.student, (world.teacher, other), world.batch
    )
    assert float(parts["kl"][1]) == spoke.sum() == world.teacher.where_BT.sum() - 1
    assert value("kl(top=4, teacher=1)", (world.teacher, other), spoke) == pytest.approx(two)
    with pytest.raises(UserError, match="mean_logits' is for losses on logits of classes"):
        resolve_ranking("kl(teachers='mean_logits')", STUDENT, (TEACHER, TEACHER), positions=20)


@pytest.mark.parametrize("text", ["expert_hints", "hierarchical_topology"])
def test_experts_belong_to_users_or_to_items_and_all_learn(world, text):
    resolved = fitted(f"{text}(experts=2)")
    params = resolved.init_params(jax.random.key(0))
    assert set(params[text]["teacher_0"]) == {"queries", "items"}
    numbers = [resolved.numbers(*at) for at in ((0, 10), (1, 10), (0, 10, 7))]

    def value(params, student, numbers):
        return resolved(params, numbers, student, world.teacher, world.batch)[0]

    run = jax.jit(jax.value_and_grad(value), **QUICKLY)
    totals, grads = zip(*(run(params, world.student, n) for n in numbers), strict=True)
    assert len({float(total) for total in totals}) == 3  # another step, another seed
    assert totals[0] == run(params, world.student, numbers[0])[0]
    flat = jax.tree_util.tree_leaves_with_path(grads[0])
    assert all(np.isfinite(g).all() for _, g in flat)
    unused = [path for path, g in flat if not np.any(np.asarray(g) != 0)]
    assert not unused, unused


def test_the_list_of_ranking_distillation_has_120_items():
    """Over which its ``mu`` is, as docs/losses.md says."""
    options = Items().options("ranking_distillation")
    assert (options["top"].default, options["sampled"].default) == (20, 100)


def test_experts_by_hand(world):
    """Users' rows are made by users' experts alone, items' rows by items'."""
    from distill_jax.objectives.expert_feeds import ask_experts, select_experts

    text = "expert_hints(experts=2, T=0.5)"
    resolved = fitted(text)
    params = resolved.init_params(jax.random.key(0))
    numbers = resolved.numbers(3, 10, 4)
    total, _ = resolved(params, numbers, world.student, world.teacher, world.batch)
    rows = np.arange(B)
    items_s = world.student.items_ID[world.batch.targets_BT[rows, -1]]
    kinds = {
        "queries": (world.student.queries_BTD[:, -1], world.teacher.queries_BTD[:, -1]),
        "items": (items_s, world.teacher.items_BD),
    }
    key = jax.random.fold_in(jax.random.key(4), np.uint32(3))
    noise = np.asarray(jax.random.gumbel(key, (2 * B, 4), np.float32))
    values = []
    for index, (kind, (student, teacher)) in enumerate(kinds.items()):
        own = params["expert_hints"]["teacher_0"][kind]
        made, chosen = ask_experts(own, student), select_experts(own, teacher)
        own_noise = noise[index * B : (index + 1) * B, 2 * index : 2 * index + 2]
        scores = (log_softmax(np.asarray(chosen), axis=-1) + own_noise) / 0.5
        z = np.exp(log_softmax(scores, axis=-1))
        hint = np.sum(z[..., None] * np.asarray(made), axis=1)
        values += list(np.mean((teacher - hint) ** 2, axis=-1)[newest(world)])
    assert float(total) == pytest.approx(np.mean(values), rel=1e-4)


def test_junk_where_nothing_counts_changes_nothing(world):
    text = f"kl(top=4) + relaxed_ranking(top=5, sampled={N}) + hidden_mse + topology + expert_hints"
    clean = evaluate(text, world)[0]
    junk_BT = ~world.teacher.where_BT

    def spoil(array, junk=np.nan):
        array = np.array(array)
        if array.dtype == np.float32 and array.shape[:2] == (B, T):
            array[junk_BT] = junk
        return array

    queries = spoil(world.student.queries_BTD, 99)
    dirty = dataclasses.replace(world, student=world.student.replace(queries_BTD=queries))
    said = {
        name: spoil(getattr(world.teacher, name))
        for name in ("logits_BTK", "rest_BT", "target_BT", "queries_BTD")
    }
    total, _, _, grads = evaluate(text, dirty, learn=True, **said)
    assert total == pytest.approx(clean, rel=1e-5)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_what_is_read_of_the_teacher():
    texts = {
        "full_softmax": Wanted(),
        "kl(top=3) + listmle(top=7)": Wanted(top=7),
        "kl(strata=4, top=3)": Wanted(top=3, strata=4),
        "hidden_mse": Wanted(queries=True),
        "embedding_mse + topology(on='queries')": Wanted(queries=True, items=True),
    }
    for text, wanted in texts.items():
        resolved = fitted(text)
        assert resolved.teacher_capture == wanted, text
        assert resolved.needs_teacher == (wanted != Wanted())
    assert negatives_of(fitted(f"relaxed_ranking(sampled={N}, top=3)")).count == N
    assert negatives_of(fitted("listmle(top=3)")) is None


def test_one_program_whatever_the_numbers():
    one, other = fitted("0.5*kl(T=2, top=3)"), fitted("linear(1, 0)*kl(T=4, top=3)")
    assert one == other and one.structure == other.structure
    assert one != fitted("0.5*kl(T=2, top=4)")


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match="top=12 is not below the 12 items"):
        fitted("kl(top=12)")
    with pytest.raises(UserError, match="needs a teacher"):
        resolve_ranking("kl(top=3)", STUDENT, None, positions=20)
    with pytest.raises(UserError, match="projection=False needs equal widths"):
        fitted("hidden_mse(projection=False)")
    with pytest.raises(UserError, match="Did you mean 'hidden_mse'"):
        fitted("hiden_mse")
    assert fitted("hidden_mse").notes == ("hidden_mse: on queries, a learned projection 3 -> 6",)
