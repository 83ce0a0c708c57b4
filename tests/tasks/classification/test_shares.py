"""Shares of the gradient, against those of whole objectives; negligible terms are named."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planned import check, plan, toy_splits, toy_teacher

from distill_jax.models.build import build_model
from distill_jax.tasks.classification.models import params_of_student
from distill_jax.tasks.classification.probe import take_probe
from distill_jax.tasks.classification.shares import NEGLIGIBLE, describe, shares_of


@pytest.fixture(scope="module")
def task(toy_table):
    return toy_splits(toy_table)


@pytest.fixture(scope="module")
def toy(teacher):
    """Whose logits are as far apart as those of a teacher that has learnt."""
    model, params = teacher
    sure = {**params, "classifier": jax.tree.map(lambda x: 200 * x, params["classifier"])}
    return toy_teacher((model, sure))


def lines(said):
    return [line for line in said.splitlines() if "of the gradient before step 1: " in line]


def shares_in(line):
    """Of a line that was said, in percent."""
    told = line.partition("step 1: ")[2].partition(". WARNING")[0]
    return {term: float(share.rstrip("%")) for term, share in map(str.split, told.split(", "))}


def norm_of_step(planned, text_term):
    """The norm of a term's gradient, by differentiating the model and the objective at once."""
    whole = planned.fitted[-1]
    (term,) = [term for term in whole.terms if term.label == text_term]
    batch = take_probe(planned.splits.everything, 12).little
    params = params_of_student(planned.cell, planned.teacher.pretrained)
    teacher = build_model(planned.teacher.config).apply({"params": planned.teacher.params}, batch)
    own = whole.init_params(jax.random.key(planned.cell.seed))
    numbers = {
        label: {**of, "weight": of["weight"] if label == term.label else np.float32(0)}
        for label, of in whole.numbers(0, 10).items()
    }

    def value(params):
        said = build_model(planned.model).apply({"params": params}, batch)
        return whole(own, numbers, said, teacher, batch)[0]

    grads = jax.jit(jax.grad(value))(params)
    return np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(grads)))


def test_shares_are_those_of_the_objectives_terms(task, toy):
    planned = plan(task, toy, "0.8*ce + 0.1*kl(T=20) + 2*hidden_mse", seed=3)
    (line,) = lines(check(planned))
    norms = {label: norm_of_step(planned, label) for label in ("ce", "kl", "hidden_mse")}
    expected = {label: 100 * share for label, share in shares_of(norms).items()}
    assert shares_in(line) == pytest.approx(expected, rel=0.06)  # two digits are printed


def test_a_temperature_and_a_start_count_and_seeds_do_not_repeat_the_line(task, toy):
    objectives = ("kl + ce", "kl(T=20) + ce", "0.5*kl + 0.5*ce", "kl", "ce")
    said = lines(check(*(plan(task, toy, text, seed=s) for text in objectives for s in (0, 1))))
    assert [line.split(", ")[1].split(":")[0] for line in said] == list(map(str, objectives[:3]))
    one, warm, scaled = map(shares_in, said)
    assert one == scaled and one != warm


def test_a_term_that_gives_next_to_nothing_is_named(task, toy):
    loud, quiet = lines(check(plan(task, toy, "ce + 1e-6*kl"), plan(task, toy, "ce + 0.5*kl")))
    assert "WARNING: kl below 1% may as well not be there" in loud
    assert "WARNING" not in quiet


def test_a_stage_before_the_last_is_told_of_too(task, toy):
    (line,) = lines(check(plan(task, toy, "kl", before="3*attention_mse + 4*hidden_mse")))
    assert set(shares_in(line)) == {"attention_mse", "hidden_mse"}


@given(st.dictionaries(st.sampled_from("abcd"), st.floats(0, 1e6), min_size=2))
def test_shares_add_up_and_the_small_ones_are_named(norms):
    shares = shares_of(norms)
    assert sum(shares.values()) == pytest.approx(1 if any(norms.values()) else 0)
    named = describe(shares).partition("WARNING: ")[2].partition(" below")[0].split(" and ")
    assert [name for name in named if name] == [n for n, s in shares.items() if s < NEGLIGIBLE]
