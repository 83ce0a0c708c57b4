"""Runs: the same to the bit after an interruption, the best step kept, divergence named."""

import dataclasses
import math
from functools import lru_cache

import jax
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.core.mesh import make_mesh
from distill_jax.data.plan import choose_lengths
from distill_jax.objectives.grammar import parse
from distill_jax.objectives.resolve import resolve
from distill_jax.teachers.live import LiveTeacher
from distill_jax.training import loop as loop_module
from distill_jax.training.checkpoint import Checkpoints, steps_in
from distill_jax.training.diagnose import make_diagnostics
from distill_jax.training.feed import Feed
from distill_jax.training.interrupt import Interrupted, StopRequest
from distill_jax.training.layout import Layout
from distill_jax.training.loop import LoopConfig, Progress, train
from distill_jax.training.optimizer import OptimizerConfig, make_optimizer
from distill_jax.training.state import init_state
from distill_jax.training.step import CompiledStep, make_step

STEPS = 9


class Poisoned:
    """A teacher whose logits for one example are NaN."""

    def __init__(self, teacher, example):
        self.teacher, self.example = teacher, example

    def __call__(self, batch):
        said = self.teacher(batch)
        wrong_B1 = (batch.example_ids_B == self.example)[:, None]
        return said.replace(logits_BC=np.where(wrong_B1, np.float32(np.nan), said.logits_BC))


@pytest.fixture(scope="module")
def run(toy_table, student, teacher, student_config, teacher_config):
    """A run of ``hidden_mse + kl`` over nine steps, three to an epoch."""
    objective = resolve(parse("hidden_mse + kl"), student_config.shape, teacher_config.shape)
    statics = make_optimizer(OptimizerConfig())
    speaker = LiveTeacher(*teacher, objective.teacher_capture)
    diagnostics = make_diagnostics(student[0], objective)

    @lru_cache
    def step(on_nan, devices):
        skip = on_nan == "skip"
        return CompiledStep(make_step(student[0], objective, statics, skip_nonfinite=skip))

    def go(
        stop=None,
        checkpoints=None,
        on_log=None,
        evaluate=None,
        learning_rate=1e-2,
        poisoned=None,
        on_nan="stop",
        devices=1,
        say=lambda line: None,
        on_resume=lambda step: None,
        log_every=1,
        patience=0,
    ):
        optimizer = OptimizerConfig(learning_rate=learning_rate)
        feed = Feed(
            toy_table,
            choose_lengths(toy_table.lengths_N, max_shapes=2),
            16,
            seed=5,
            teacher=speaker if poisoned is None else Poisoned(speaker, poisoned),
        )
        loss_params = objective.init_params(jax.random.key(3))
        return train(
            init_state(student[1], loss_params, statics),
            step(on_nan, devices),
            feed,
            objective=objective,
            optimizer=optimizer,
            loop=LoopConfig(
                STEPS,
                eval_every=2,
                log_every=log_every,
                checkpoint_seconds=0,
                on_nan=on_nan,
                patience=patience,
            ),
            layout=Layout(make_mesh(jax.devices()[:devices])),
            evaluate=evaluate
            or (lambda params: {"accuracy": float(params["classifier"]["bias"][0])}),
            on_log=on_log or (lambda step, values: None),
            stop=stop or StopRequest(),
            checkpoints=checkpoints,
            diagnostics=diagnostics,
            say=say,
            on_resume=on_resume,
        )

    go.feed = lambda: Feed(toy_table, choose_lengths(toy_table.lengths_N, max_shapes=2), 16, seed=5)
    return go


@pytest.mark.parametrize("stop_at", [1, 2, 5, 8])
def test_an_interrupted_run_is_the_same_run(run, tmp_path, stop_at):
    whole, seen = [], []
    expected = run(on_log=lambda step, values: whole.append((step, values)))

    stop = StopRequest()

    def log(step, values):
        seen.append((step, values))
        stop.requested = step == stop_at

    with Checkpoints(tmp_path) as checkpoints, pytest.raises(Interrupted):
        run(stop, checkpoints, log)
    with Checkpoints(tmp_path) as checkpoints:
        resumed = run(StopRequest(), checkpoints, log)

    assert seen == whole
    assert resumed.progress.history == expected.progress.history
    assert resumed.progress.best_step == expected.progress.best_step
    jax.tree.map(np.testing.assert_array_equal, resumed.params, expected.params)


def test_every_step_is_reported_once_over_a_stop(run, tmp_path):
    """What a stop leaves of a window is reported before it; resuming is told before step 1."""
    told, losses = [], {}

    def log(step, values):
        told.append(step)
        if "train/loss" in values:
            losses[step] = values["train/loss"]

    stop = StopRequest()

    def evaluate(params):
        stop.requested = True  # after step 2, amid a window of four
        return {"accuracy": 0.5}

    with Checkpoints(tmp_path) as checkpoints, pytest.raises(Interrupted):
        run(stop, checkpoints, log, evaluate, log_every=4, on_resume=pytest.fail)
    assert sorted(losses) == [2]
    with Checkpoints(tmp_path) as checkpoints:
        run(None, checkpoints, log, log_every=4, on_resume=lambda step: told.append(f"from {step}"))
    assert told.index("from 2") < told.index(4)
    assert sorted(losses) == [2, 4, 8, 9]

    each = {}
    run(on_log=lambda step, values: each.update({step: values.get("train/loss", each.get(step))}))
    np.testing.assert_allclose(losses[2], np.mean([each[1], each[2]]), rtol=1e-5)
    np.testing.assert_allclose(losses[4], np.mean([each[3], each[4]]), rtol=1e-5)


def test_a_run_killed_between_checkpoints_is_the_same_run(run, tmp_path):
    """What the last checkpoint does not hold is done again, in the same way."""

    class Killed(Exception):
        pass

    def die(step, values):
        if step == 7:
            raise Killed

    with Checkpoints(tmp_path) as checkpoints, pytest.raises(Killed):
        run(None, checkpoints, die)
    steps = []
    with Checkpoints(tmp_path) as checkpoints:
        resumed = run(
            None,
            checkpoints,
            lambda step, values: steps.append(step) if "train/loss" in values else None,
        )
    assert steps == [7, 8, 9]
    jax.tree.map(np.testing.assert_array_equal, resumed.params, run().params)


def test_a_stop_during_an_evaluation_loses_nothing(run, tmp_path):
    stop = StopRequest()

    def evaluate(params):
        stop.requested = True
        return {"accuracy": 0.5}

    with Checkpoints(tmp_path) as checkpoints, pytest.raises(Interrupted):
        run(stop, checkpoints, evaluate=evaluate)
    steps = []
    with Checkpoints(tmp_path) as checkpoints:
        run(StopRequest(), checkpoints, lambda step, values: steps.append(step))
    assert steps[0] == 3


def test_a_stop_after_the_last_step_finishes(run):
    stop = StopRequest()

    def log(step, values):
        stop.requested = step == STEPS

    assert run(stop, None, log).progress.history[-1]["step"] == STEPS


def test_the_best_step_is_kept_and_of_equals_the_earliest(run):
    scores = iter([0.5, 0.7, 0.7, 0.2, 0.1])
    seen = []

    def evaluate(params):
        seen.append(jax.tree.map(np.array, params))
        return {"accuracy": next(scores)}

    result = run(evaluate=evaluate)
    assert [entry["step"] for entry in result.progress.history] == [2, 4, 6, 8, 9]
    assert (result.progress.best_step, result.progress.best_score) == (4, 0.7)
    jax.tree.map(np.testing.assert_array_equal, result.params, seen[1])


@pytest.mark.parametrize("stop_at", [None, 1, 2, 4, 5])
def test_patience_ends_a_run_where_it_would_have_ended_undisturbed(run, tmp_path, stop_at):
    """Evaluations at 2, 4 and 6: two in a row that are no better; rates are those of nine steps."""
    scores, seen, losses = iter([0.7, 0.7, 0.2, 0.9, 0.9]), [], {}
    stop = StopRequest()

    def evaluate(params):
        seen.append(jax.tree.map(np.array, params))
        return {"accuracy": next(scores)}

    def log(step, values):
        losses.update({step: values["train/loss"]} if "train/loss" in values else {})
        stop.requested = step == stop_at

    if stop_at:
        with Checkpoints(tmp_path) as checkpoints, pytest.raises(Interrupted):
            run(stop, checkpoints, log, evaluate, patience=2)
    with Checkpoints(tmp_path) as checkpoints:
        result = run(None, checkpoints, log, evaluate, patience=2)
    assert [entry["step"] for entry in result.progress.history] == [2, 4, 6]
    assert result.progress.best_step == 2
    jax.tree.map(np.testing.assert_array_equal, result.params, seen[0])
    whole = {}
    run(on_log=lambda step, values: whole.setdefault(step, values.get("train/loss")))
    assert losses == {step: whole[step] for step in range(1, 7)}


def test_steps_before_an_early_end_are_reported_and_counted(run, toy_table):
    told = []
    scores = iter([0.7, 0.2])
    result = run(
        evaluate=lambda params: {"accuracy": next(scores)},
        on_log=lambda step, values: told.append((step, sorted(values)[0])),
        log_every=9,
        patience=1,
    )
    assert (4, "train/grad_norm") in told
    assert result.progress.examples < len(toy_table) + 2 * 16


def test_a_run_that_patience_has_ended_takes_no_step_more(run, tmp_path):
    """Its checkpoint may be from after an evaluation with which less patience would have ended."""
    stop = StopRequest()
    scores = iter([0.7, 0.2])

    def log(step, values):
        stop.requested = step == 5

    with Checkpoints(tmp_path) as checkpoints, pytest.raises(Interrupted):
        run(stop, checkpoints, log, lambda params: {"accuracy": next(scores)}, patience=2)
    with Checkpoints(tmp_path) as checkpoints:
        result = run(None, checkpoints, lambda *_: pytest.fail("a step"), pytest.fail, patience=1)
    assert result.progress.history[-1]["step"] == 4


def test_equals_are_told_apart_by_another_metric_and_a_loss_is_best_where_it_is_lowest():
    scores = [
        {"step": 2, "accuracy": 0.95, "nll": 0.30},
        {"step": 4, "accuracy": 0.95, "nll": 0.20},
        {"step": 6, "accuracy": 0.95, "nll": 0.25},
        {"step": 8, "accuracy": 0.90, "nll": 0.10},
        {"step": 9, "accuracy": math.nan, "nll": math.nan},
    ]

    def chosen(select, ties=None):
        progress, loop = Progress(), LoopConfig(10, 2, select=select, ties=ties)
        for at in scores:
            progress.history.append(at)
            if progress.improves(at, loop):
                progress.best_step = at["step"]
        return progress

    assert chosen("accuracy").best_step == 2
    assert chosen("accuracy", "nll").best_step == 4
    assert chosen("nll").best_step == 8
    assert chosen("nll", "accuracy").at_best() == {"accuracy": 0.90, "nll": 0.10}
    assert Progress().at_best() == {}


def test_every_example_counts_once_an_epoch(run, toy_table):
    assert run().progress.examples == 3 * len(toy_table)


@pytest.mark.parametrize("when", ["the first", "the last"])
def test_a_stop_within_an_evaluation_takes_it_up_again(run, tmp_path, when):
    expected = run()
    calls = []

    def evaluate(params):
        calls.append(1)
        if when == "the first" or len(calls) == len(expected.progress.history):
            raise Interrupted
        return {"accuracy": float(params["classifier"]["bias"][0])}

    with Checkpoints(tmp_path) as checkpoints, pytest.raises(Interrupted):
        run(None, checkpoints, evaluate=evaluate)
    assert steps_in(tmp_path)[-1] == (2 if when == "the first" else STEPS)
    with Checkpoints(tmp_path) as checkpoints:
        resumed = run(None, checkpoints)
    assert resumed.progress.history == expected.progress.history
    assert resumed.progress.examples == expected.progress.examples
    jax.tree.map(np.testing.assert_array_equal, resumed.params, expected.params)


def test_a_run_goes_on_with_other_numbers_of_devices(run, tmp_path):
    """8, then 4, then 1: the same data in the same order, the same result within rounding."""
    whole, seen, stop = [], [], StopRequest()
    expected = run(on_log=lambda step, values: whole.append((step, values)))

    def log(step, values):
        seen.append((step, values))
        stop.requested = step in (3, 5)

    for devices, stops in ((8, True), (4, True), (1, False)):
        stop.requested = False
        with Checkpoints(tmp_path) as checkpoints:
            if stops:
                with pytest.raises(Interrupted):
                    run(stop, checkpoints, log, devices=devices)
            else:
                resumed = run(stop, checkpoints, log, devices=devices)
    assert [step for step, _ in seen] == [step for step, _ in whole]
    for (_, values), (_, wanted) in zip(seen, whole, strict=True):
        assert values == pytest.approx(wanted, rel=1e-3, abs=2e-5)
    assert resumed.progress.examples == expected.progress.examples
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5),
        resumed.params,
        expected.params,
    )


def test_divergence_is_named(run):
    with pytest.raises(UserError, match=r"not finite.*learning-rate"):
        run(learning_rate=1e30)


def steps_with(run, example):
    """The steps, from 1, whose batch holds an example."""
    feed = run.feed()
    return [n for n in range(1, STEPS + 1) if example in feed(n - 1)[0].example_ids_B]


EXAMPLE = 13


def test_what_is_not_finite_is_named_and_the_state_before_it_kept(run, tmp_path):
    """Term, example and step; and the kept state is that of a run that never saw the NaN."""
    first = steps_with(run, EXAMPLE)[0]
    assert first > 1
    told = rf"step {first}: kl not finite on example example-{EXAMPLE}\. .*kept in {tmp_path}"
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match=told):
        run(None, checkpoints, poisoned=EXAMPLE)
    assert steps_in(tmp_path)[-1] == first - 1
    expected, steps = run(), []
    with Checkpoints(tmp_path) as checkpoints:
        resumed = run(None, checkpoints, lambda step, values: steps.append(step))
    assert steps[0] == first
    assert resumed.progress.examples == expected.progress.examples
    jax.tree.map(np.testing.assert_array_equal, resumed.params, expected.params)


def test_such_steps_are_skipped_where_that_is_asked_for(run, tmp_path):
    """With another step's data nothing is different: the update is left out, the count goes on."""
    said, logs = [], {}
    result = run(
        poisoned=EXAMPLE,
        on_nan="skip",
        say=said.append,
        on_log=lambda step, values: logs.update({step: logs.get(step, {}) | values}),
    )
    skipped = steps_with(run, EXAMPLE)
    assert result.progress.skipped == len(skipped) == 3
    assert said[0] == (f"step {skipped[0]} is left out: kl not finite on example example-{EXAMPLE}")
    assert logs[skipped[0]]["train/skipped"] == 1 and "train/loss" not in logs[skipped[0]]
    assert logs[STEPS]["train/skipped"] == 3
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.params))
    assert result.progress.examples < run().progress.examples

    stop = StopRequest()

    def log(step, values):
        stop.requested = step == skipped[1]

    with Checkpoints(tmp_path) as checkpoints, pytest.raises(Interrupted):
        run(stop, checkpoints, log, poisoned=EXAMPLE, on_nan="skip")
    with Checkpoints(tmp_path) as checkpoints:
        resumed = run(None, checkpoints, poisoned=EXAMPLE, on_nan="skip")
    assert resumed.progress.skipped == 3
    jax.tree.map(np.testing.assert_array_equal, resumed.params, result.params)


def test_a_run_that_skips_every_step_ends(run, monkeypatch):
    monkeypatch.setattr(loop_module, "MAX_SKIPPED", 2)
    with pytest.raises(UserError, match="more than 2 steps in a row were skipped"):
        run(learning_rate=1e30, on_nan="skip")


def test_a_save_that_fails_ends_the_run_at_the_next_step(run, tmp_path, monkeypatch):
    steps = []

    def log(step, values):
        steps.append(step)
        if checkpoints._finishing is not None:
            checkpoints._finishing.join()

    with Checkpoints(tmp_path) as checkpoints:
        monkeypatch.setattr("distill_jax.training.checkpoint.write_digests", lambda f: 1 / 0)
        with pytest.raises(UserError, match="cannot write a checkpoint"):
            run(None, checkpoints, log)
    assert max(steps) <= 3


def test_a_damaged_checkpoint_is_not_passed_over(run, tmp_path):
    stop = StopRequest()
    stop.requested = True
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(Interrupted):
        run(stop, checkpoints)
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.stat().st_size > 100:
            path.write_bytes(path.read_bytes()[:50])
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match="is damaged"):
        run(StopRequest(), checkpoints)


@pytest.mark.parametrize("record", [{"best": 3}, {"best_step": "three"}])
def test_a_record_of_another_version(record):
    with pytest.raises(UserError, match="may be of another version"):
        Progress.of(record)


def test_the_best_of_another_watched_metric_renews_the_patience():
    """What is kept is decided by one metric, when training ends by any of them."""
    loop = LoopConfig(100, 1, select="hr@10", patience=2, watched=("hr@5", "nll"))
    hits, short, loss = [0.5, 0.4, 0.4, 0.4, 0.4, 0.4], [0.1, 0.1, 0.2, 0.2, 0.1, 0.1], [9.0] * 6
    loss[3] = 8.0  # lower is better
    progress = Progress()
    ends = []
    for step, (hit, five, nll) in enumerate(zip(hits, short, loss, strict=True), 1):
        scores = {"hr@10": hit, "hr@5": five, "nll": nll}
        progress.history.append({"step": step, **scores})
        if progress.improves(scores, loop):
            progress.best_step = step
        ends.append(progress.has_ended(loop))
    assert ends == [False, False, False, False, False, True]
    assert progress.best_step == 1
    alone = dataclasses.replace(loop, watched=())
    assert progress.has_ended(alone)
    progress.history = progress.history[:3]
    assert progress.has_ended(alone) and not progress.has_ended(loop)
