"""Objectives of recommenders: text, sums and counts against plain loops, gradients."""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.core.ranking_types import (
    HistoryBatch,
    Negatives,
    RankingCapture,
    RankingOutput,
    all_logits,
    logits_at,
    scores_last,
)
from distill_jax.core.top_items import TopItems
from distill_jax.core.types import ModelShape
from distill_jax.objectives import items
from distill_jax.objectives.feeds import Feed
from distill_jax.objectives.item_readers import ItemReader
from distill_jax.objectives.items import negatives_of, parse_ranking, resolve_ranking, trained_on
from distill_jax.objectives.registry import register
from distill_jax.objectives.resolve import resolve

B, T, D, ITEMS, N = 3, 4, 5, 6, 2
SHAPE = ModelShape(1, D, 1, ITEMS)
TEXTS = (
    "full_softmax",
    "full_softmax(label_smoothing=0.2)",
    "sampled_softmax(n=2)",
    "sampled_bce(n=2)",
    "bpr(n=2)",
    "0.5*full_softmax(label_smoothing=linear(0.1, 0)) + 2*bpr(n=2)",
)


def make(per="position", bias=True, seed=0):
    rng = np.random.default_rng(seed)

    def floats(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    output = RankingOutput(
        floats(B, T, D), floats(ITEMS, D), floats(ITEMS) if bias else None, {0: floats(B, T, D)}
    )
    where = jnp.array([[0, 1, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]], bool)
    items = jnp.asarray(rng.integers(0, ITEMS, (B, T)), jnp.int32)
    drawn = rng.integers(0, ITEMS, (B, T if per == "position" else 1, N))
    ids = jnp.array([4, 2, -1], jnp.int32)
    return output, HistoryBatch(ids, items + 1, where, items, where, jnp.asarray(drawn, jnp.int32))


def naive(name, output, batch, smoothing=0.0):
    """(sum, count) in plain Python."""
    total, count = 0.0, 0
    for b in range(B):
        for t in range(T):
            if not batch.target_where_BT[b, t]:
                continue
            bias = np.zeros(ITEMS) if output.item_bias_I is None else output.item_bias_I
            logits = [
                float(np.dot(output.queries_BTD[b, t], output.items_ID[i]) + bias[i])
                for i in range(ITEMS)
            ]
            target = logits[int(batch.targets_BT[b, t])]
            drawn = batch.negatives_BTN[b, t if batch.negatives_BTN.shape[1] > 1 else 0]
            others = [logits[int(i)] for i in drawn]
            if name == "full_softmax":
                log_z = math.log(sum(map(math.exp, logits)))
                total += (1 - smoothing) * (log_z - target)
                total += smoothing * sum(log_z - z for z in logits) / ITEMS
            elif name == "sampled_softmax":
                total += math.log(sum(map(math.exp, [target, *others]))) - target
            elif name == "sampled_bce":
                total += math.log1p(math.exp(-target))
                total += sum(math.log1p(math.exp(z)) for z in others)
            else:
                total += sum(math.log1p(math.exp(z - target)) for z in others) / N
            count += 1
    return total, count


@pytest.mark.parametrize(
    "text, name, smoothing, per",
    [
        ("full_softmax", "full_softmax", 0.0, "position"),
        ("full_softmax(label_smoothing=0.2)", "full_softmax", 0.2, "position"),
        ("sampled_softmax(n=2)", "sampled_softmax", 0.0, "row"),
        ("sampled_bce(n=2)", "sampled_bce", 0.0, "position"),
        ("bpr(n=2)", "bpr", 0.0, "position"),
    ],
)
def test_a_label_loss_is_the_plain_loop(text, name, smoothing, per):
    objective = resolve_ranking(text, SHAPE, positions=B * T, rows=5, block=4)
    compiled = jax.jit(lambda numbers, *given: objective({}, numbers, *given))
    for bias in (True, False):
        output, batch = make(per, bias)
        total, parts = compiled(objective.numbers(0, 1), output, None, batch)
        expected, count = naive(name, output, batch, smoothing)
        np.testing.assert_allclose(parts[name][0], expected, rtol=1e-5)
        assert parts[name][1] == count == 4
        np.testing.assert_allclose(total, expected / count, rtol=1e-5)


def test_weights_and_schedules_are_numbers():
    objective = resolve_ranking(TEXTS[-1], SHAPE, positions=B * T)
    first, last = objective.numbers(0, 10), objective.numbers(10, 10)
    assert first["full_softmax"]["label_smoothing"] == np.float32(0.1)
    assert last["full_softmax"]["label_smoothing"] == 0
    assert first["full_softmax"]["weight"] == 0.5 and first["bpr"]["weight"] == 2
    output, batch = make()
    total, parts = objective({}, first, output, None, batch)
    expected = sum(
        first[label]["weight"] * value / count for label, (value, count) in parts.items()
    )
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_equal_structure_means_equal_objects():
    def of(text):
        return resolve_ranking(text, SHAPE, positions=9)

    one, other = (
        of("full_softmax + bpr(n=2)"),
        of("0.3*full_softmax(label_smoothing=0.1) + bpr(n=2)"),
    )
    assert one == other and hash(one) == hash(other) and one.structure == other.structure
    more = of("full_softmax + bpr(n=3)")
    assert more != one and more.structure != one.structure
    assert (
        negatives_of(one) == Negatives(2, "position") and negatives_of(of("full_softmax")) is None
    )
    assert negatives_of(of("sampled_softmax")) == Negatives(256, "row")
    assert not one.needs_teacher and one.init_params(jax.random.key(0)) == {}


@pytest.mark.parametrize("text", TEXTS)
def test_the_text_is_read_and_written(text):
    objective = parse_ranking(text)
    assert parse_ranking(str(objective)) == objective


@pytest.mark.parametrize(
    "text, message",
    [
        ("ful_softmax", "Did you mean 'full_softmax'"),
        ("sampled_bce(k=3)", "argument of sampled_bce 'k'"),
        ("sampled_bce(n=0)", "n of sampled_bce must be"),
        ("full_softmax(label_smoothing=1)", "label_smoothing of full_softmax must be"),
    ],
)
def test_mistakes_are_told(text, message):
    with pytest.raises(UserError, match=message):
        resolve_ranking(text, SHAPE, positions=9)


def test_losses_share_one_set_of_negatives():
    """Who wants fewer looks at the first ones; for one of them they are drawn at each position."""
    output, batch = make()
    both = resolve_ranking("sampled_bce(n=2) + bpr(n=3)", SHAPE, positions=B * T)
    assert negatives_of(both) == Negatives(3, "position")
    mixed = resolve_ranking("sampled_softmax(n=2) + bpr(n=1)", SHAPE, positions=B * T)
    assert negatives_of(mixed) == Negatives(2, "position")
    three = np.random.default_rng(1).integers(0, SHAPE.num_labels, (B, T, 3)).astype(np.int32)

    def value(text, negatives):
        objective = resolve_ranking(text, SHAPE, positions=B * T)
        own = batch.replace(negatives_BTN=negatives)
        return float(objective({}, objective.numbers(0, 1), output, None, own)[0])

    apart = value("sampled_bce(n=2)", three[..., :2]) + value("bpr(n=3)", three)
    assert value("sampled_bce(n=2) + bpr(n=3)", three) == pytest.approx(apart, rel=1e-6)


def test_an_empty_batch_has_the_value_0_and_no_gradient():
    output, batch = make()
    batch = batch.replace(target_where_BT=jnp.zeros((B, T), bool))
    objective = resolve_ranking(TEXTS[-1], SHAPE, positions=B * T)

    def total(output):
        return objective({}, objective.numbers(0, 1), output, None, batch)[0]

    value, grads = jax.jit(jax.value_and_grad(total))(output)
    assert value == 0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads))


@dataclasses.dataclass(frozen=True)
class NearFeed(Feed):
    """Of a loss that no reader of the library's knows."""

    outputs = ("items",)


class Near(ItemReader):
    """It asks for hidden states, owns a parameter, and a teacher's word is an array."""

    student_capture = RankingCapture((0,))

    def where(self, batch, teacher):
        return batch.target_where_BT

    def init_params(self, rng):
        return {"scale": jnp.ones(())}

    def values(self, loss, params, said, teacher, draw):
        return loss(said.output.hidden_states[0] * params["scale"], teacher)


def test_a_new_way_of_reading_is_a_feed_and_a_reader(monkeypatch, own_registry):
    """What they get is what they ask for."""
    monkeypatch.setitem(items.READERS, NearFeed, Near)

    def near(student, teacher, *, where=None):
        return jnp.sum((student - teacher) ** 2, axis=-1)

    register(near, feed=NearFeed())
    with pytest.raises(UserError, match="not a free name"):
        register(near, feed=NearFeed())
    with pytest.raises(UserError, match="needs a teacher, and there is none"):
        resolve_ranking("near", SHAPE, positions=9)
    with pytest.raises(UserError, match="unknown loss 'near'"):
        resolve("near", SHAPE, SHAPE)
    objective = resolve_ranking("full_softmax + near", SHAPE, SHAPE, positions=9)
    output, batch = make()
    assert objective.needs_teacher and objective.student_capture.hidden_states == (0,)
    params = objective.init_params(jax.random.key(0))
    assert set(params) == {"near"}
    said = objective.student_capture.select(output)
    _, parts = objective(params, objective.numbers(0, 1), said, jnp.zeros((B, T, D)), batch)
    where = np.asarray(batch.target_where_BT)
    np.testing.assert_allclose(
        parts["near"][0], np.sum(np.asarray(output.hidden_states[0])[where] ** 2), rtol=1e-5
    )


def test_logits_are_what_scores_say():
    output, _ = make()
    every_BTI = all_logits(output, output.queries_BTD)
    np.testing.assert_allclose(scores_last(output), every_BTI[:, -1], rtol=1e-5, atol=1e-5)
    for per in ("position", "row"):
        drawn = make(per)[1].negatives_BTN
        wanted = jnp.take_along_axis(every_BTI, jnp.broadcast_to(drawn, (B, T, N)), axis=-1)
        np.testing.assert_allclose(logits_at(output, drawn), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [None, 2])
def test_items_that_training_never_names_may_stay_out(bias, rows):
    """The value is that of a catalogue without them; their vectors get no gradient."""
    output, batch = make(bias=bias)
    seen = np.unique(batch.targets_BT[batch.target_where_BT])
    counts_I = np.isin(np.arange(ITEMS), seen).astype(int)
    assert 0 < counts_I.sum() < ITEMS
    text = "full_softmax(items='trained', label_smoothing=0.2)"
    objective = resolve_ranking(text, SHAPE, positions=B * T, rows=rows)
    told = trained_on(objective, counts_I)
    assert told.outputs.unseen == tuple(np.flatnonzero(counts_I == 0))

    def value(output, objective, batch=batch):
        return objective({}, objective.numbers(0, 1), output, None, batch)[0]

    own = output.item_bias_I
    smaller = RankingOutput(
        output.queries_BTD, output.items_ID[seen], own if own is None else own[seen]
    )
    renumbered = jnp.asarray(np.searchsorted(seen, np.clip(batch.targets_BT, seen[0], seen[-1])))
    moved = batch.replace(targets_BT=renumbered.astype(jnp.int32) % len(seen))
    shape = ModelShape(1, D, 1, len(seen))
    plain = resolve_ranking(
        text.replace("items='trained', ", ""), shape, positions=B * T, rows=rows
    )
    np.testing.assert_allclose(value(output, told), value(smaller, plain, moved), rtol=1e-5)

    back = jax.grad(value)(output, told)
    assert not back.items_ID[np.array(told.outputs.unseen)].any() and back.items_ID[seen].any()
    assert value(output, told) < value(output, objective)  # nothing is known of the training yet


def test_only_who_asks_is_told_which_items_training_names():
    objective = resolve_ranking("full_softmax", SHAPE, positions=B * T)
    assert trained_on(objective, np.array([0, 1, 1, 1, 1, 1])) is objective
    assert str(parse_ranking("full_softmax(items='all')")) == "full_softmax"
    with pytest.raises(UserError, match="'trained'"):
        parse_ranking("full_softmax(items='seen')")


MILLION = 1_000_000


@pytest.mark.parametrize(
    "text, tables", [("full_softmax", 0), ("0.5*full_softmax + 0.5*kl(T=2)", 2)]
)
def test_a_million_items_take_no_more_than_a_few_tables(text, tables):
    """256 histories of 50 items, 64 wide: all scores would be 51 GB, the gradient is 256 MB."""
    batch_size, length, width, top = 256, 50, 64, 100
    shape = ModelShape(1, width, 1, MILLION)
    objective = resolve_ranking(text, shape, shape, positions=batch_size * length)

    def whole(*axes, dtype=jnp.int32):
        return jax.ShapeDtypeStruct((batch_size, length, *axes), dtype)

    reals, where = partial(whole, dtype=jnp.float32), whole(dtype=bool)
    ids_B = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    batch = HistoryBatch(ids_B, whole(), where, whole(), where)
    teacher = TopItems(whole(top), reals(top), reals(), reals(), where)
    output = RankingOutput(reals(width), jax.ShapeDtypeStruct((MILLION, width), jnp.float32))

    def loss(output, teacher, batch):
        return objective({}, objective.numbers(0, 1), output, teacher, batch)[0]

    compiled = jax.jit(jax.value_and_grad(loss)).lower(output, teacher, batch).compile()
    table, temporary = 4 * MILLION * width, compiled.memory_analysis().temp_size_in_bytes
    assert temporary < tables * table + 2**26


def test_the_softmax_is_cut_by_size_alone(monkeypatch):
    """On a processor by rows, and by items too where a row part of them would not fit its cache."""
    assert items.tile_of(1, 5) == items.tile_of(10**6, 2**15) == (items.ROWS_ON_CPU, None)
    assert items.tile_of(9, 2**15 + 1) == (9, items.BLOCK_ON_CPU)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert items.tile_of(2**10, 2**19) == (None, None)
    assert items.tile_of(2**10, 2**19 + 1) == (2**10, items.BLOCK)
    assert items.tile_of(2**20, 2**10) == (items.ROWS, 2**10)


@pytest.mark.parametrize("text", ["full_softmax", "2*sampled_softmax(n=3) + full_softmax"])
def test_weights_of_targets(text):
    """Sum of weight times value over the sum of weights; none at all is no division by 0."""
    output, batch = make()
    weights = np.random.default_rng(3).uniform(0, 0.2, (B, T)).astype(np.float32)
    weighed = batch.replace(target_weights_BT=jnp.asarray(weights))
    objective = resolve_ranking(text, ModelShape(1, D, 1, ITEMS), positions=B * T)
    numbers = objective.numbers(0, 1)
    total, parts = objective({}, numbers, output, None, weighed)
    expected = 0.0
    for name, weight in (("full_softmax", 1.0), ("sampled_softmax", 2.0)):
        if name not in parts:
            continue
        top = below = 0.0
        for b, t in zip(*np.nonzero(batch.target_where_BT), strict=True):
            alone = np.zeros((B, T), bool)
            alone[b, t] = True
            value, count = naive(name, output, batch.replace(target_where_BT=alone))
            assert count == 1
            top, below = top + weights[b, t] * value, below + weights[b, t]
        np.testing.assert_allclose(parts[name], (top, below), rtol=1e-5)
        expected += weight * top / below
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    nothing = batch.replace(target_weights_BT=jnp.zeros((B, T)))
    assert objective({}, numbers, output, None, nothing)[0] == 0


def test_weights_of_targets_weigh_the_teachers_words_too():
    output, batch = make()
    rng = np.random.default_rng(5)
    ids = np.argsort(rng.normal(size=(B, T, ITEMS)), axis=-1)[..., :3].astype(np.int32)
    logits = np.sort(rng.normal(size=(B, T, 3)).astype(np.float32))[..., ::-1]
    rest = np.zeros((B, T), np.float32)
    teacher = TopItems(ids, logits.copy(), rest, rest, np.ones((B, T), bool))
    objective = resolve_ranking("kl(top=3)", SHAPE, SHAPE, positions=B * T)
    weights = rng.uniform(0.1, 2, (B, T)).astype(np.float32)
    say = jax.jit(lambda batch: objective({}, objective.numbers(0, 1), output, teacher, batch)[0])
    places = list(zip(*np.nonzero(batch.target_where_BT), strict=True))
    values = []
    for b, t in places:
        alone = np.zeros((B, T), np.float32)
        alone[b, t] = 0.3  # one alone counts whole, whatever its weight
        values.append(float(say(batch.replace(target_weights_BT=jnp.asarray(alone)))))
    assert np.ptp(values) > 0.01
    expected = np.average(values, weights=[weights[place] for place in places])
    weighed = batch.replace(target_weights_BT=jnp.asarray(weights))
    np.testing.assert_allclose(say(weighed), expected, rtol=1e-5)
