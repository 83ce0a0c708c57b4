"""One loss, read off the outputs of every task that it can be read off."""

import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.core.ranking_types import HistoryBatch, Negatives, RankingOutput
from distill_jax.core.search_types import ListBatch, SearchOutput
from distill_jax.core.top_items import TopItems
from distill_jax.core.types import ModelShape
from distill_jax.losses.numeric import constant_pair
from distill_jax.objectives.catalogue import describe, listing
from distill_jax.objectives.items import Items, negatives_of, resolve_ranking
from distill_jax.objectives.lists import resolve_lists
from distill_jax.objectives.plugin_api import (
    HiddenFeed,
    LogitFeed,
    RankingFeed,
    SampledFeed,
    register,
)
from distill_jax.objectives.registry import OUTPUTS, lookup, names
from distill_jax.objectives.resolve import resolve

pytestmark = pytest.mark.usefixtures("own_registry")
RNG = np.random.default_rng(0)
STUDENT, TEACHER = np.float32(RNG.normal(size=(2, 3, 4)))
IDS, TRUE = jnp.arange(3), jnp.ones(3, bool)


@pytest.fixture
def gap(own_registry):
    """A loss of the user's own that can be read everywhere."""

    def gap(student, teacher, *, where=None):
        """The largest difference."""
        student, teacher, mask = constant_pair(student, teacher, where, inner=1)
        return jnp.where(mask, jnp.max(jnp.abs(student - teacher), axis=-1), 0)

    register(gap, feed=LogitFeed(min_classes=1, gaps=True, items="top"))
    return np.abs(STUDENT - TEACHER)


def total(objective, student, teacher, batch):
    return float(objective({}, objective.numbers(0, 1), student, teacher, batch)[0])


def test_classes(gap, world):
    resolved = resolve("gap", world.student_shape, world.teacher_shape)
    far = np.abs(world.student.logits_BC - world.teacher.logits_BC)[:5].max(axis=1)
    assert total(resolved, world.student, world.teacher, world.batch) == pytest.approx(far.mean())


def test_lists(gap):
    batch = ListBatch(IDS, jnp.zeros((3, 4), jnp.int32), jnp.ones((3, 4), bool), IDS, TRUE, TRUE)
    objective = resolve_lists("gap", list_size=4, teacher=True)
    said = total(objective, SearchOutput(STUDENT), SearchOutput(TEACHER), batch)
    assert said == pytest.approx(gap.max(axis=1).mean())


def test_items(gap):
    """Four of five are the likeliest, one position a user."""
    shape, targets = ModelShape(1, 4, 1, 5), jnp.zeros((3, 1), jnp.int32)
    where = jnp.ones((3, 1), bool)
    student = RankingOutput(jnp.array(STUDENT)[:, None], jnp.eye(5, 4))
    ids = np.broadcast_to(np.arange(4, dtype=np.int32), (3, 1, 4))
    teacher = TopItems(ids, TEACHER[:, None], np.zeros((3, 1)), np.zeros((3, 1)), where)
    batch = HistoryBatch(IDS, targets, where, targets, where)
    objective = resolve_ranking("gap(top=4)", shape, shape, positions=3)
    assert total(objective, student, teacher, batch) == pytest.approx(gap.max(axis=1).mean())


def test_a_users_loss_on_the_item_taken_draws_what_it_asks_for():
    def hinge(target, negatives, *, where=None, margin: float = 1.0):
        """How far the target stands above each sampled item, up to a margin."""
        below = jnp.maximum(margin - target[..., None] + negatives, 0)
        return jnp.where(where, jnp.mean(below, axis=-1), 0)

    register(hinge, feed=SampledFeed(sampled=3))
    shape = ModelShape(1, 4, 1, 5)
    objective = resolve_ranking("hinge(n=2, margin=0.5)", shape, positions=3)
    assert negatives_of(objective) == Negatives(2, "position") and not objective.needs_teacher
    assert objective.outputs.options("hinge")["n"].default == 3
    student = RankingOutput(jnp.array(STUDENT)[:, None], jnp.eye(5, 4))
    where, drawn = jnp.ones((3, 1), bool), jnp.full((3, 1, 2), 4, jnp.int32)
    batch = HistoryBatch(IDS, IDS[:, None], where, IDS[:, None], where, drawn)
    expected = np.maximum(0.5 - STUDENT[range(3), range(3)], 0).mean()  # item 4 has logit 0
    assert total(objective, student, None, batch) == pytest.approx(expected)


def test_feeds_say_where_a_loss_is_found():
    def nearer(student, teacher, *, where=None):
        """A loss."""

    for feed, outputs in (
        (LogitFeed(), ("classes", "items")),
        (LogitFeed(labelled=True), ("classes",)),
        (RankingFeed(), ("classes", "items", "lists")),
        (HiddenFeed(), ("classes", "items")),
        (HiddenFeed(items=()), ("classes",)),
    ):
        assert feed.outputs == outputs
    register(nearer, feed=HiddenFeed(items=("items",)))
    assert "nearer" in Items().names() and "nearer" not in names("lists")
    assert Items().options("nearer")["on"].choices == ("items",)


def test_every_loss_says_where_it_can_be_used():
    for name in names():
        places = lookup(name).feed.outputs
        assert places and set(places) <= set(OUTPUTS)
        assert [each in describe(name) for each in OUTPUTS.values()].count(True) >= len(places)
        assert any(name in line and ", ".join(places) in line for line in listing().splitlines())
    assert {"kl", "topk_kl", "bce", "crd", "cka", "full_softmax"} <= set(names("items"))
    assert not {"pkd", "fsp", "vid", "minilm", "dist", "labels"} & set(names("items"))


def test_a_loss_is_refused_where_it_cannot_be_read():
    shape = ModelShape(2, 4, 2, 4)
    with pytest.raises(UserError, match="unknown loss 'full_softmax'"):
        resolve("full_softmax", shape, shape)
    with pytest.raises(UserError, match="cannot be read off classes, only off items"):
        resolve(resolve_ranking("bpr", shape, positions=3).objective, shape, shape)
