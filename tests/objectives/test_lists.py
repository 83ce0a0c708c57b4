import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax import losses
from distill_jax.core.errors import UserError
from distill_jax.core.search_types import ListBatch, SearchOutput
from distill_jax.objectives.feeds import LogitFeed
from distill_jax.objectives.lists import resolve_lists
from distill_jax.objectives.registry import lookup, names

B, N, D = 4, 5, 3
DISTRIBUTIONS = {n for n in names("lists") if isinstance(lookup(n).feed, LogitFeed)}
THERE = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]], bool)
LABELLED = np.array([True, True, False, False])
OTHER = np.array([[0, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]], bool)


def batch():
    return ListBatch(
        example_ids_B=jnp.array([3, 1, 7, -1]),
        items_BN=jnp.zeros((B, N), jnp.int32),
        there_BN=jnp.array(THERE),
        labels_B=jnp.zeros(B, jnp.int32),
        label_where_B=jnp.array(LABELLED),
        other_where_BB=jnp.array(OTHER),
    )


def vectors(seed):
    rng = np.random.default_rng(seed)
    queries = rng.normal(size=(B, D)).astype(np.float32)
    items = rng.normal(size=(B, N, D)).astype(np.float32)
    own = np.where(THERE, np.einsum("bd,bnd->bn", queries, items), -np.inf)
    return SearchOutput(jnp.array(own, jnp.float32), jnp.array(queries), jnp.array(items))


def value(text, student, teacher=None, **options):
    objective = resolve_lists(text, list_size=N, teacher=teacher is not None, **options)
    said = objective.student_capture.select(student)
    return jax.jit(objective)({}, objective.numbers(0, 1), said, teacher, batch())


def log_softmax(scores):
    scores = np.asarray(scores, np.float64)
    return scores - scores.max() - np.log(np.exp(scores - scores.max()).sum())


@pytest.mark.parametrize("in_batch", [False, True])
def test_ce_is_over_what_is_there_and_the_other_lists(in_batch):
    student = vectors(0)
    total, parts = value("ce", student, in_batch=in_batch)
    expected = []
    for b in np.flatnonzero(LABELLED):
        scores = list(np.asarray(student.scores_BN)[b][THERE[b]])
        if in_batch:
            for c in np.flatnonzero(OTHER[b]):
                scores.append(float(student.queries_BD[b] @ student.items_BND[c, 0]))
        expected.append(-log_softmax(scores)[0])
    assert float(total) == pytest.approx(np.mean(expected), rel=1e-5)
    assert parts["ce"][1] == 2


@pytest.mark.parametrize("silent", [False, True])
def test_kl_and_margins_count_what_both_speak_of(silent):
    student, teacher = vectors(0), vectors(1)
    scores = np.asarray(teacher.scores_BN).copy()
    if silent:
        scores[0, 3] = -np.inf
    teacher = SearchOutput(jnp.array(scores))
    kls, margins = [], []
    for b in range(3):
        there = THERE[b] & np.isfinite(scores[b])
        s, t = np.asarray(student.scores_BN, np.float64)[b][there], scores[b][there].astype(float)
        log_s, log_t = log_softmax(s / 2), log_softmax(t / 2)
        kls.append(4 * np.sum(np.exp(log_t) * (log_t - log_s)))
        margins.append(np.mean(((s[0] - s[1:]) - (t[0] - t[1:])) ** 2))
    total, parts = value("kl(T=2) + 0.5*margin_mse", student, teacher)
    assert float(parts["kl"][0]) == pytest.approx(np.sum(kls), rel=1e-4)
    assert float(parts["margin_mse"][0]) == pytest.approx(np.sum(margins), rel=1e-4)
    assert float(total) == pytest.approx(np.mean(kls) + 0.5 * np.mean(margins), rel=1e-4)


def test_in_the_batch_a_teacher_counts_where_it_is_known_what_it_says():
    student, live = vectors(0), vectors(1)
    others = np.full((B, B), -np.inf, np.float32)
    others[0, 1] = 0.7
    cached = SearchOutput(live.scores_BN, others_BB=jnp.array(others))
    _, parts = value("margin_mse", student, cached, in_batch=True)
    expected = 0.0
    for b in range(3):
        s, t = list(np.asarray(student.scores_BN)[b][THERE[b]]), list(live.scores_BN[b][THERE[b]])
        if b == 0:
            s.append(float(student.queries_BD[0] @ student.items_BND[1, 0]))
            t.append(0.7)
        s, t = np.array(s, float), np.array(t, float)
        expected += np.mean(((s[0] - s[1:]) - (t[0] - t[1:])) ** 2)
    assert float(parts["margin_mse"][0]) == pytest.approx(expected, rel=1e-4)
    _, of_vectors = value("margin_mse", student, live, in_batch=True)
    assert float(of_vectors["margin_mse"][0]) != pytest.approx(expected, rel=1e-3)
    silent = SearchOutput(live.scores_BN)
    _, own_lists = value("margin_mse", student, silent, in_batch=True)
    _, alone = value("margin_mse", student, live)
    assert float(own_lists["margin_mse"][0]) == pytest.approx(float(alone["margin_mse"][0]))


@pytest.mark.parametrize("name", sorted(DISTRIBUTIONS - {"ce", "soft_ce"}))
def test_a_gap_is_as_good_as_a_shorter_list(name):
    student, teacher = vectors(0), SearchOutput(vectors(1).scores_BN)
    _, parts = value(name, student, teacher)
    function = getattr(losses, name)
    s, t = np.asarray(student.scores_BN), np.asarray(teacher.scores_BN)
    short = [float(jax.jit(function)(s[b][THERE[b]], t[b][THERE[b]])) for b in range(3)]
    assert float(parts[name][0]) == pytest.approx(sum(short), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("text", ["ce", "kl", "margin_mse", "listmle", "js", "ce + 0.5*kl(T=2)"])
def test_gradients_are_finite_and_gaps_have_none(text):
    teacher = SearchOutput(vectors(1).scores_BN)
    objective = resolve_lists(text, list_size=N, teacher=True)

    def loss(scores_BN):
        said = SearchOutput(jnp.where(jnp.array(THERE), scores_BN, -jnp.inf))
        return objective({}, objective.numbers(0, 1), said, teacher, batch())[0]

    grads = jax.jit(jax.grad(loss))(jnp.where(jnp.array(THERE), vectors(0).scores_BN, 0))
    assert np.isfinite(grads).all() and (np.asarray(grads)[~THERE] == 0).all()
    assert (np.asarray(grads)[0] != 0).any()


def test_losses_without_meaning_on_lists_are_refused():
    for text, message in (
        ("mse_logits", "does not speak of lists"),
        ("hidden_mse", "does not speak of lists|layers"),
        ("ce(label_smoothing=0.1)", "label_smoothing has no meaning"),
        ("kl(standardize=True)", "standardize has no meaning"),
        ("kl(weigh='confidence')", "weigh has no meaning"),
        ("kll", "Did you mean 'kl'"),
    ):
        with pytest.raises(UserError, match=message):
            resolve_lists(text, list_size=N, teacher=True)
    with pytest.raises(UserError, match="needs a teacher"):
        resolve_lists("kl", list_size=N, teacher=False)
    with pytest.raises(UserError, match="two towers"):
        value("ce", SearchOutput(vectors(0).scores_BN), in_batch=True)


def test_numbers_do_not_change_the_structure():
    one, other = (
        resolve_lists(t, list_size=N, teacher=True) for t in ("kl(T=2)", "0.3*kl(T=linear(1, 4))")
    )
    assert one == other and hash(one) == hash(other) and one.structure == other.structure
    assert resolve_lists("kl", list_size=N, teacher=True, in_batch=True) != one
    assert other.numbers(1, 2)["kl"] == {"T": 2.5, "weight": np.float32(0.3)}
