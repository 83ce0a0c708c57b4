"""Each self-check has a broken toy that trips it and a whole one that passes."""

import contextlib
import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from planned import LABELS, check, plan, toy_splits, toy_teacher
from rich.console import Console

from distill_jax.cli.compare import CompareLosses, sweep_of
from distill_jax.core.errors import UserError
from distill_jax.core.types import Capture
from distill_jax.data.plan import PlannedBatch, make_batch
from distill_jax.data.splits import content_ids
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.losses import hidden_mse, kl
from distill_jax.models.bert import Bert
from distill_jax.models.build import build_model
from distill_jax.models.cnn import CnnConfig, init_cnn
from distill_jax.objectives.plugin_api import HiddenFeed, LogitFeed, register
from distill_jax.objectives.registry import names
from distill_jax.tasks.classification import probe as probe_module
from distill_jax.tasks.classification import self_checks as checks_module
from distill_jax.tasks.classification.cells import DataConfig
from distill_jax.tasks.classification.models import Checkpoint
from distill_jax.tasks.classification.probe import EXAMPLES, nudged, take_probe, terms_that_count
from distill_jax.tasks.classification.self_checks import (
    check_deterministic,
    check_padding,
    check_same_tokens,
    check_splits,
    unreached_in,
)
from distill_jax.tasks.classification.splits import prepare_images
from distill_jax.tasks.classification.table import Classification
from distill_jax.tasks.classification.teacher import Teacher, check_label_order
from distill_jax.teachers.live import LiveTeacher


@pytest.fixture
def models(monkeypatch):
    """(config -> module) replaces the models of the self-checks, for one test."""

    def replace(build):
        own = probe_module.programs.__wrapped__()  # what was compiled of whole models stays
        monkeypatch.setattr(checks_module, "programs", lambda: own)
        monkeypatch.setattr(probe_module, "build_model", build)

    return replace


@pytest.fixture(scope="module")
def task(toy_table):
    return toy_splits(toy_table)


@pytest.fixture(scope="module")
def toy(teacher):
    return toy_teacher(teacher)


def test_a_whole_table_passes_and_says_so(task, toy):
    said = check(
        plan(task, toy, "ce"),
        plan(task, toy, "0.9*kl(T=4) + 0.1*ce"),
        plan(task, toy, "0.9*kl(T=4) + 0.1*ce", seed=1),
        plan(task, toy, "0.5*kl(T=2) + 0.5*ce"),  # the same structure: checked once
        plan(task, toy, "linear(1, 0)*hint + step({0: 0, 0.5: 1})*kl"),
    )
    line = next(line for line in said.splitlines() if line.startswith("self-checks: teacher det"))
    for words in ("label orders agree", "padding", "gradients", "same tokens", "no test id"):
        assert words in line
    assert "passed (3 objectives" in line


def test_nothing_is_said_of_a_finished_table():
    assert check() == ""


@pytest.mark.long
def test_every_loss_passes(task, toy):
    """46 compilations of gradients, each with its own small program."""
    said = check(
        *(plan(task, toy, name if name == "ce" else f"{name} + ce") for name in names("classes"))
    )
    assert f"passed ({len(names('classes'))} objectives" in said


def test_images_pass_too():
    task = prepare_images(DataConfig("digits"))
    config = CnnConfig((4, 8), 16, 10)
    params = init_cnn(config, jax.random.key(0))
    checkpoint = Checkpoint(config, params, None, "pretrained", None)
    teacher = Teacher(checkpoint, config, params, "teacher", None, {}, task.label_names)
    assert "passed" in check(plan(task, teacher, "kl + ce", student="cnn-2-4-4"))
    with pytest.raises(UserError, match=r"hidden_mse cannot be computed \(\w+Error: .*\)$"):
        check(plan(task, teacher, "hidden_mse + ce", student="cnn-2-4-4"))


# The teacher says the same twice.


def test_a_teacher_that_draws(teacher, toy_table):
    model, params = teacher
    batch = make_batch(toy_table, PlannedBatch(np.arange(4, dtype=np.int32), 12), batch_size=4)
    live = LiveTeacher(model, params, Capture(hidden_states=(1,)))
    output = check_deterministic(live, batch)
    assert set(output.hidden_states) == {1}
    keys = iter(jax.random.split(jax.random.key(0), 2))

    def with_dropout(batch):
        return model.apply({"params": params}, batch, train=True, rngs={"dropout": next(keys)})

    with pytest.raises(UserError, match=r"not deterministic.*different \w+.*train=False"):
        check_deterministic(with_dropout, batch)


# Label orders agree.


def test_label_orders(task, toy):
    check_label_order(toy, LABELS)
    swapped = dataclasses.replace(toy, label_names=LABELS[::-1])
    with pytest.raises(UserError, match="order their labels differently"):
        check(plan(task, swapped, "kl"))
    three = dataclasses.replace(task, label_names=("bad", "good", "fair"))
    with pytest.raises(UserError, match="the teacher has 2 classes, the data 3"):
        check(plan(three, toy, "kl"))


# A padding change changes nothing.


class Unmasked:
    """A model that takes padding for tokens."""

    def __init__(self, config):
        self.model = Bert(config)

    def apply(self, variables, batch, *, train):
        everywhere = jnp.ones_like(batch.where_BT)
        return self.model.apply(variables, batch.replace(where_BT=everywhere), train=train)


@pytest.mark.parametrize("whose", ["teacher", "student"])
def test_a_model_that_reads_padding(task, toy, models, whose):
    broken = toy.config if whose == "teacher" else plan(task, toy, "kl").model
    models(lambda config: Unmasked(config) if config == broken else build_model(config))
    with pytest.raises(UserError, match=rf"{whose}.*: padding changes the logits.*`where`"):
        check(plan(task, toy, "kl"))


def test_a_loss_that_reads_padding(task, toy, own_registry):
    @register(feed=HiddenFeed(projection="never", layers="first"))
    def over_all_positions(student, teacher, *, where=None):
        gap = jnp.mean(student, axis=-1) - jnp.mean(teacher, axis=-1)
        return jnp.mean(jnp.square(gap), axis=-1)

    @register(feed=HiddenFeed(layers="first"))
    def per_position(student, teacher, *, where=None):
        return hidden_mse(student, teacher, where=where) / student.shape[1]

    check(plan(task, toy, "hidden_mse + kl"))
    for name in ("over_all_positions", "per_position"):
        with pytest.raises(UserError, match=f"{name}.*: padding changes the value of {name}"):
            check(plan(task, toy, f"{name} + kl"))


def test_a_loss_that_counts_empty_rows(task, toy, own_registry):
    """Example ids of -1 fill a batch up; a relation between examples must leave them out."""

    @register(feed=LogitFeed())
    def against_the_mean(student, teacher, *, where=None):
        centred = student - jnp.mean(student, axis=0, keepdims=True)
        return jnp.mean(jnp.square(centred - teacher), axis=-1)

    with pytest.raises(UserError, match="padding changes the value of against_the_mean"):
        check(plan(task, toy, "against_the_mean"))


def test_a_loss_that_is_not_finite(task, toy, own_registry):
    @register(feed=LogitFeed())
    def logarithm(student, teacher, *, where=None):
        return jnp.sum(jnp.log(student - student), axis=-1)

    with pytest.raises(UserError, match="the value of logarithm is not finite"):
        check(plan(task, toy, "logarithm"))


def test_a_loss_that_cannot_be_computed(task, toy, own_registry):
    @register(feed=HiddenFeed(projection="never", layers="first"))
    def of_one_width(student, teacher, *, where=None):
        return jnp.mean(jnp.square(student - teacher), axis=(1, 2))

    with pytest.raises(UserError, match=r"of_one_width cannot be computed \(TypeError") as told:
        check(plan(task, toy, "of_one_width + ce"))
    assert "\n" not in str(told.value)


def test_rounding_is_no_padding():
    one = {"x": np.float32([1.0, 1000.0])}
    check_padding("it", one, {"x": np.float32([1.0, 1000.1, 7.0])})
    with pytest.raises(UserError, match=r"it: padding changes x \(by 2, of 1e\+03\)"):
        check_padding("it", one, {"x": np.float32([1.0, 1002.0, 7.0])})


# All trained parameters get gradients.


@pytest.mark.parametrize("objective", ["hidden_mse", "attention_kl", "rkd_distance", "0*ce"])
def test_a_classifier_that_nobody_trains(task, toy, objective):
    with pytest.raises(UserError, match=r"no gradient reaches .*(classifier/kernel|the student)"):
        check(plan(task, toy, objective))
    said = check(plan(task, toy, f"{objective} + ce"))
    assert "passed" in said


def test_a_stage_before_the_last_may_leave_parts_to_the_next(task, toy):
    said = check(plan(task, toy, "kl", before="hidden_mse(layers={1: 1})"))
    assert "hidden_mse(layers={1: 1}): classifier/bias, classifier/kernel, layer_2/" in said
    assert "get no gradient before the last stage" in said
    with pytest.raises(UserError, match=r"no gradient reaches the student"):
        check(plan(task, toy, "kl", before="0*hidden_mse"))


def test_a_student_that_is_a_copy_is_not_taken_for_one_without_gradients(task, toy):
    """At its start every hidden state is the teacher's: distance 0, gradient 0."""
    params = jax.tree.map(jnp.array, toy.params)
    original = dataclasses.replace(toy, pretrained=dataclasses.replace(toy.pretrained))
    assert toy.config.num_layers == 2
    said = check(plan(task, original, "ce", before="hidden_mse + embedding_mse", student="l2"))
    assert "passed" in said
    assert jax.tree.all(jax.tree.map(jnp.array_equal, params, toy.params))


def test_a_loss_that_stops_the_students_gradient(task, toy, own_registry):
    @register(feed=LogitFeed())
    def backwards(student, teacher, *, where=None):
        return kl(jax.lax.stop_gradient(student), teacher, where=where)

    with pytest.raises(UserError, match="backwards gives the student no gradient"):
        check(plan(task, toy, "backwards + ce"))
    check(plan(task, toy, "0*backwards + ce"))  # an ablation: it is not there


def test_parameters_of_a_loss_that_it_does_not_use(task, toy, own_registry):
    class Spare(HiddenFeed):
        def init_params(self, bound, rng):
            return super().init_params(bound, rng) | {"spare": jnp.zeros(2)}

    register(lambda *args, where=None: hidden_mse(*args, where=where), feed=Spare(), name="spare")
    message = r"no gradient reaches spare/teacher_0/spare, parameters of the loss itself"
    with pytest.raises(UserError, match=message):
        check(plan(task, toy, "spare + ce"))
    with pytest.raises(UserError, match=message):
        check(plan(task, toy, "ce", before="spare"))


def test_a_layer_that_the_model_does_not_use(task, toy, models):
    class Cut:
        """Its second layer is used and never trained."""

        def __init__(self, config):
            self.config = config

        def apply(self, variables, batch, *, train):
            params = dict(variables["params"])
            params["layer_2"] = jax.tree.map(jax.lax.stop_gradient, params["layer_2"])
            return Bert(self.config).apply({"params": params}, batch, train=train)

    models(lambda config: build_model(config) if config == toy.config else Cut(config))
    with pytest.raises(UserError, match=r"no gradient reaches layer_2/attention, layer_2/att"):
        check(plan(task, toy, "kl"))


def test_what_a_softmax_cancels_is_not_asked_for():
    gradients = {"layer_1": {"attention": {"key": {"bias": np.zeros(3), "kernel": np.ones(3)}}}}
    assert unreached_in(gradients) == []
    gradients["layer_1"]["attention"]["key"]["kernel"] = np.zeros(3)
    assert unreached_in(gradients) == ["layer_1/attention/key/kernel"]


def test_terms_that_count(task, toy):
    objective = plan(task, toy, "0*kl + step({0: 0, 0.9: 2})*kl(T=linear(2, 4)) + ce").fitted[-1]
    late, ce = terms_that_count(objective, 1000)
    assert (late.label, late.weight, ce.label, ce.weight) == ("kl_2", 2, "ce", 1)
    assert [term.objective.terms[0].label for term in (late, ce)] == ["kl", "ce"]
    assert late.numbers["kl"]["weight"] == 1 and 3.7 < late.numbers["kl"]["T"] <= 4


# Student and teacher see the same tokens.


def test_the_same_tokens(task, toy, student_config):
    table = task.everything
    check_same_tokens(task, toy.config, student_config, table)
    check_same_tokens(task, toy.config, student_config, table.take(np.arange(len(table))[::-1]))
    with pytest.raises(UserError, match="not asked about 1 of the student's"):
        check_same_tokens(task, toy.config, student_config, table.take(np.arange(1, len(table))))
    other = dataclasses.replace(table, tokens_S=np.where(table.tokens_S == 5, 6, table.tokens_S))
    with pytest.raises(UserError, match="do not see the same tokens"):
        check_same_tokens(task, toy.config, student_config, other)
    small = dataclasses.replace(toy.config, vocab_size=8)
    with pytest.raises(UserError, match=r"token id 19 occurs, and the teacher has .* below 8"):
        check_same_tokens(task, small, student_config, table)


# No test id among the training ids.


@pytest.mark.parametrize("split", ["test", "validation"])
def test_an_example_that_is_trained_and_tested_on(task, split):
    check_splits(task)
    table = getattr(task, split)
    ids = (task.everything.ids[-1], *table.ids[1:])
    leaking = dataclasses.replace(task, **{split: dataclasses.replace(table, ids=ids)})
    with pytest.raises(UserError, match=rf"1 of \d+ {split} examples are training examples too"):
        check_splits(leaking)


@pytest.mark.parametrize(("repeated", "told"), [(1, False), (2, True)])
def test_few_texts_that_a_benchmark_repeats(task, repeated, told):
    ids = content_ids(tuple(f"text {n}" for n in range(100)))
    test = task.test.take(np.resize(np.arange(len(task.test)), len(ids)))
    train_ids = (*ids[:repeated], *task.everything.ids[repeated:])
    table = dataclasses.replace(task.everything, ids=train_ids)
    leaking = dataclasses.replace(
        task, test=dataclasses.replace(test, ids=ids), everything=table, labelled=table
    )
    with pytest.raises(UserError, match="2 of 100") if told else contextlib.nullcontext():
        check_splits(leaking)


def test_a_leak_is_told_before_the_teacher_is_trained(
    toy_teacher, toy_reviews, tmp_path, monkeypatch
):
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    folder = tmp_path / "reviews"
    folder.mkdir()
    for file in toy_reviews.iterdir():
        (folder / file.name).write_text(file.read_text())
    with open(folder / "test.csv", "a") as file:
        file.write((folder / "train.csv").read_text().splitlines()[1] + "\n")
    args = CompareLosses(data=f"files:{folder}", teacher=str(toy_teacher), max_length=16)
    with pytest.raises(UserError, match="'train-0' for one"):
        run_table(
            Classification(sweep_of(args)), tmp_path / "out", Reporter(Console(file=io.StringIO()))
        )
    assert not list(tmp_path.rglob("*.safetensors"))


# The probe.


def test_the_probe_has_labels_and_fits_the_models(toy_table):
    probe = take_probe(toy_table, 16)
    assert probe.little.input_ids_BT.shape == (2 * EXAMPLES, 8)
    assert probe.much.input_ids_BT.shape == (2 * EXAMPLES + 3, 16)
    assert probe.little.label_where_B.sum() >= 4 and probe.little.where_B.sum() >= EXAMPLES
    np.testing.assert_array_equal(probe.little.example_ids_B, probe.much.example_ids_B[:-3])
    assert take_probe(toy_table, 10).much.input_ids_BT.shape[1] == 10
    one = take_probe(toy_table.take(np.asarray([1])), 16)
    assert one.little.where_B.sum() == 1
    unlabelled = toy_table.without_labels(np.arange(len(toy_table)))
    assert take_probe(unlabelled, 16).little.label_where_B.sum() == 0


def test_nudged_is_near_and_always_the_same():
    params = {"a": jnp.zeros((3, 2)), "b": {"c": jnp.ones(4)}}
    first, second = nudged(params), nudged(params)
    assert jax.tree.all(jax.tree.map(np.array_equal, first, second))
    assert all(0 < np.abs(leaf).max() < 0.026 for leaf in jax.tree.leaves(first["a"]))
    np.testing.assert_allclose(first["b"]["c"], 1, atol=0.026)
