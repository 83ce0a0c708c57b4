"""Self-checks before step 1: what would spoil a table in silence is an error that says what to do.

A handful of training examples go through teacher, student and objective once, in float32 and
without dropout. Every student starts a little off its own start, so that a gradient that is zero
there by chance (a layer copied from the teacher is at distance 0 from it) is not taken for one
that never comes.

What must get a gradient. In the last stage: every parameter of the student and of the losses. In
a stage before it the student's parameters out of the objective's reach (the classifier, where it
compares hidden states) are named and left to the next stage. Not asked of: the bias of attention
keys, which a softmax cancels; a term whose weight is 0 all the way, and the parameters it owns.
Rows of an embedding that no example uses do not matter: one row of a parameter is enough.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from distill_jax.core.errors import UserError
from distill_jax.core.types import Batch, ModelOutput
from distill_jax.data.splits import is_content_id
from distill_jax.engine.progress import Reporter
from distill_jax.models.family import ModelConfig
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.tasks.classification.models import params_of_student
from distill_jax.tasks.classification.probe import (
    EXAMPLES,
    LoneTerm,
    Probe,
    add_outputs,
    nudged,
    programs,
    retold,
    take_probe,
    terms_that_count,
)
from distill_jax.tasks.classification.runs import ClassifierRun
from distill_jax.tasks.classification.shares import Shares
from distill_jax.tasks.classification.splits import Examples, Splits
from distill_jax.tasks.classification.teacher import Teacher, check_label_order
from distill_jax.training.feed import TeacherOutputs
from distill_jax.training.state import Params

PASSED = (
    "teacher deterministic, {labels}padding changes nothing, all trained parameters "
    "get gradients, student and teacher see the same tokens, no test id among the training ids"
)
UNNAMED = "the teacher does not name its classes: they are taken in the data's order"
MOST_REPEATED = 0.01
"""Of the texts of a split."""
TOLERANCE = 1e-3
"""Relative; rounding in float32 makes a hundredth of it, a padding that is read far more."""
Say = Callable[[str], None]


def run_self_checks(
    runs: Sequence[ClassifierRun],
    widest: Callable[[ClassifierRun], Examples],
    reporter: Reporter,
    check_stop: Callable[[], None] = lambda: None,
) -> None:
    """All checks, once for each student shape and objective; says that they passed.

    Args:
      runs: those that are not finished yet; none, and nothing is checked or said.
      widest: the examples that a run's teacher is asked about, the run's own among them.
      check_stop: called now and then; raises to stop.

    Raises:
      UserError: for the first check that fails.
    """
    if not runs:
        return
    started = time.perf_counter()
    groups: dict[tuple[str, ...], list[ClassifierRun]] = {}
    for each in runs:
        digests = tuple(teacher.digest for teacher in each.teachers)
        groups.setdefault((*digests, each.taught.digest, each.splits.digest), []).append(each)
    count = 0
    orders: dict[str | None, None] = {}
    with (
        reporter.stage("self-checks", len(groups)) as stage,
        # Not left to the device: a matmul in half precision must not look like a leak.
        jax.default_matmul_precision("highest"),
    ):
        for done, group in enumerate(groups.values(), 1):
            check_stop()
            orders.update(dict.fromkeys(map(_order_known, group[0].teachers)))
            count += _check_group(group, widest, reporter.say, check_stop)
            stage.update(done)
    seconds = time.perf_counter() - started
    objectives = f"{count} objective{'s' * (count > 1)}"
    if None in orders:
        reporter.say(f"self-checks: {UNNAMED}")
    passed = PASSED.format(labels="".join(f"{order}, " for order in orders if order))
    if any(each.heard is not None for each in runs):
        passed = passed.replace("the same tokens", "the same examples")
    reporter.say(f"self-checks: {passed}: passed ({objectives}, {seconds:.1f} s)")


def check_splits(splits: Splits) -> None:
    """No example of validation or test is trained on, or spoken of by the teacher.

    Public benchmarks hold a few texts twice. Where ids are made of the texts, up to one in a
    hundred such is left to the note that the data comes with.

    Raises:
      UserError: naming one.
    """
    training = set(splits.everything.ids) | set(splits.labelled.ids)
    for split, table in (("test", splits.test), ("validation", splits.validation)):
        shared = [example for example in table.ids if example in training]
        few = len(shared) <= MOST_REPEATED * len(table)
        if shared and not (few and all(map(is_content_id, shared))):
            raise UserError(
                f"{len(shared)} of {len(table)} {split} examples are training examples too, "
                f"{shared[0]!r} for one: the scores would be flattered. Leave them out of train, "
                "or, if only their ids are the same, give ids that occur once in all files."
            )


def check_same_tokens(
    splits: Splits, teacher: ModelConfig, student: ModelConfig, widest: Examples
) -> None:
    """Student and teacher read the same tokens of the same examples, and have embeddings for them.

    Args:
      widest: the examples that the teacher is asked about and its cache is keyed by; a cache
        itself compares ids, lengths and its digest when it is opened.

    Raises:
      UserError: naming what differs.
    """
    row_of = {example: row for row, example in enumerate(widest.ids)}
    own = splits.everything
    missing = [example for example in own.ids if example not in row_of]
    if missing:
        raise UserError(
            f"the teacher is not asked about {len(missing)} of the student's {len(own)} examples, "
            f"{missing[0]!r} for one: prepare data and teacher outputs anew"
        )
    rows = np.asarray([row_of[example] for example in own.ids])
    every = np.arange(len(own))
    if widest.take(rows).without_labels(every).digest != own.without_labels(every).digest:
        raise UserError(
            "student and teacher do not see the same tokens of the same examples: they were "
            "tokenised differently. Delete the folders tokens and teacher_outputs under "
            "DISTILL_JAX_HOME and run again"
        )
    tokens = max(each.token_range.tokens for each in (own, splits.validation, splits.test))
    for whose, config in (("teacher", teacher), ("student", student)):
        if tokens > config.token_range.tokens:
            raise UserError(
                f"token id {tokens - 1} occurs, and the {whose} has embeddings for ids below "
                f"{config.token_range.tokens}: its tokeniser is that of another model"
            )


def check_same_examples(splits: Splits, heard: Splits) -> None:
    """A student with tokens of its own reads the examples that its teacher speaks of, row by row.

    Raises:
      UserError: when it does not.
    """
    own, theirs = splits.everything, heard.everything
    if own.ids != theirs.ids or not np.array_equal(own.labels_N, theirs.labels_N):
        raise UserError(
            "student and teacher do not see the same examples in the same order: delete the folder "
            "tokens under DISTILL_JAX_HOME and run again"
        )


def check_deterministic(teacher: TeacherOutputs, batch: Batch) -> ModelOutput:
    """Two calls, the same bits; returns what it said.

    Raises:
      UserError: naming what differs.
    """
    first, second = jax.device_get((teacher(batch), teacher(batch)))
    for (path, one), other in zip(
        jax.tree_util.tree_leaves_with_path(first), jax.tree.leaves(second), strict=True
    ):
        if one.tobytes() != other.tobytes():
            raise UserError(
                "the teacher is not deterministic: asked twice about the same batch it gave "
                f"different {jax.tree_util.keystr(path).strip('.')}. Turn its dropout off "
                "(train=False) and every other draw"
            )
    return first


def check_padding(whose: str, little: Mapping[str, Any], much: Mapping[str, Any]) -> None:
    """The same numbers of the same examples, whatever the padding.

    Args:
      whose: for people: ``the teacher``, or a student and its objective.
      little, much: arrays by name, of a ``Probe``'s two batches; those of ``much`` may go on with
        empty rows.

    Raises:
      UserError: naming what differs, or is not finite.
    """
    for name, array in little.items():
        one = np.asarray(array, np.float64)
        other = np.asarray(much[name], np.float64)[: len(one)] if one.ndim else much[name]
        if not (np.isfinite(one).all() and np.isfinite(other).all()):
            raise UserError(
                f"{whose}: {name} is not finite on {EXAMPLES} training examples, before any "
                "training: mend the loss or the checkpoint"
            )
        gap = np.abs(one - other).max(initial=0.0)
        scale = max(np.abs(one).max(initial=0.0), np.abs(other).max(initial=0.0))
        if gap > TOLERANCE * scale + 1e-6:
            raise UserError(
                f"{whose}: padding changes {name} (by {gap:.3g}, of {scale:.3g}). Honour `where` "
                "before every softmax, mean and norm"
            )


def check_gradients(whose: str, reached: Params, *, last: bool, say: Say) -> None:
    """Every parameter of the student gets a gradient; before the last stage some may wait.

    Args:
      reached: for each parameter, its gradient, or whether that is anything but 0.
      last: whether no stage comes after.
      say: told of the parameters that wait for the next stage.

    Raises:
      UserError: naming them.
    """
    if not _any(reached):
        raise UserError(f"{whose}: no gradient reaches the student; it would learn nothing")
    names = sorted(unreached_in(reached))
    parts = ", ".join(dict.fromkeys("/".join(name.split("/")[:2]) for name in names))
    if names and last:
        raise UserError(
            f"{whose}: no gradient reaches {parts} ({len(names)} parameters); they "
            "would stay as they start. Add a loss on logits, '+ ce' or '+ kl' say, or make "
            "this objective a stage before the last"
        )
    if names:
        say(f"{whose}: {parts} get no gradient before the last stage")


def _check_group(
    group: Sequence[ClassifierRun],
    widest: Callable[[ClassifierRun], Examples],
    say: Say,
    check_stop: Callable[[], None],
) -> int:
    """The checks of the runs that share teacher and examples; returns how many objectives."""
    splits, teachers = group[0].splits, group[0].teachers
    for teacher in teachers:
        check_label_order(teacher, splits.label_names)
    for config, each in {each.model: each for each in group}.items():
        for teacher in teachers:
            reads = config if each.heard is None else teacher.config
            check_same_tokens(each.taught, teacher.config, reads, widest(each))
        if each.heard is not None:
            check_same_examples(splits, each.heard)
        if config.num_labels != len(splits.label_names):
            raise UserError(
                f"the student has {config.num_labels} classes, the data {len(splits.label_names)}"
            )
    configs = [*(teacher.config for teacher in teachers), *(each.model for each in group)]
    heard_N = np.logical_or.reduce([each.speaks_of(splits.everything) for each in teachers])
    positions = min(config.token_range.positions for config in configs)
    probe = take_probe(splits.everything, positions, heard_N if heard_N.any() else None)
    heard = any(fitted.needs_teacher for each in group for fitted in each.fitted)
    spoken = probe if group[0].heard is None else retold(probe, group[0].heard.everything)
    speaks = _teachers_on(spoken, group[0].taught, teachers) if heard else (None, None)
    students: dict[ModelConfig, _Student] = {}
    shares = Shares(programs(), probe.little, speaks[0])
    seen: set[Any] = set()
    for each in group:
        if each.model not in students:
            students[each.model] = _Student(each, probe, speaks)
        for work, objective in zip(each.works, each.fitted, strict=True):
            terms = terms_that_count(objective, work.steps)
            key = each.model, tuple(term.objective.structure for term in terms), work.selects
            if key not in seen:
                seen.add(key)
                check_stop()
                whose = f"{each.cell.setup.student}, {objective.objective}"
                students[each.model].check(whose, terms, last=work.selects, say=say)
            if line := shares.line(each, objective, terms):
                say(line)
    return len(seen)


def _order_known(teacher: Teacher) -> str | None:
    """What is known of the order of a teacher's classes; None where it does not name them."""
    order = teacher.pretrained.order
    if order is not None and order.by == "map":
        return "classes as --label-map says"
    return None if teacher.label_names is None else "label orders agree"


def _teachers_on(probe: Probe, splits: Splits, teachers: Sequence[Teacher]) -> tuple[Any, Any]:
    """What the teachers say of both batches, checked; of several a tuple each."""
    said = [_teacher_on(probe, splits, teacher) for teacher in teachers]
    if len(said) == 1:
        return said[0]
    little, much = zip(*said, strict=True)
    return little, much


def _teacher_on(probe: Probe, splits: Splits, teacher: Teacher) -> tuple[ModelOutput, ModelOutput]:
    """What the teacher says of both batches, checked."""
    speak = teacher.on_few(splits, programs().forward)
    little, much = check_deterministic(speak, probe.little), speak(probe.much)
    check_padding("the teacher", _logits(little, probe), _logits(much, probe))
    return little, much


class _Student:
    """A student of one shape, a little off its start, and what it says of a probe."""

    def __init__(self, run: ClassifierRun, probe: Probe, speaks: Sequence[Any]) -> None:
        params = nudged(params_of_student(run.cell, *run.sources))
        compiled = programs()
        little, self._pull = compiled.forward_and_pull(run.model, params, probe.little)
        much = compiled.forward(run.model, params, probe.much)
        student = f"student {run.cell.setup.student}"
        check_padding(student, _logits(little, probe), _logits(much, probe))
        self._says = little, much
        self._ends = list(zip(self._says, speaks, (probe.little, probe.much), strict=True))
        self._slopes: dict[str, ModelOutput] = {}

    def check(self, whose: str, terms: Sequence[LoneTerm], *, last: bool, say: Say) -> None:
        """An objective's terms, each once, and where their gradients arrive together."""
        slope = jax.tree.map(jnp.zeros_like, self._says[0])
        for term in terms:
            structure = term.objective.structure
            if structure not in self._slopes:
                self._slopes[structure] = self._check_term(whose, term.objective, term.numbers)
            slope = add_outputs(slope, self._slopes[structure])
        reached, _ = programs().reached(self._pull, slope)
        check_gradients(whose, reached, last=last, say=say)

    def _check_term(self, whose: str, term: ResolvedObjective, numbers: Any) -> ModelOutput:
        """The gradient of a term with respect to the student's output."""
        little, much = (
            (term.student_capture.select(own), teacher and term.heard(teacher), b)
            for own, teacher, b in self._ends
        )
        own = nudged(term.init_params(jax.random.key(0)))
        try:
            parts, of_own, of_student = programs().slope(term, own, numbers, *little)
            if not _any(of_student):  # a ranking may be right already: ask for it upside down
                upside_down = jax.tree.map(jnp.negative, little[0])
                _, of_own, of_student = programs().slope(
                    term, own, numbers, upside_down, *little[1:]
                )
            parts_of_much = programs().value(term, own, numbers, *much)
        except Exception as error:  # the loss may be the user's own; shapes may not fit
            told = (str(error).splitlines() or [""])[0]
            raise UserError(
                f"{whose}: {term.objective} cannot be computed ({type(error).__name__}: {told})"
            ) from error
        check_padding(whose, _means(parts), _means(parts_of_much))
        if missed := unreached_in(of_own):
            raise UserError(
                f"{whose}: no gradient reaches {', '.join(missed)}, parameters of the loss itself. "
                "It must use them, outside of stop_gradient"
            )
        if not _any(of_student):
            raise UserError(
                f"{whose}: {term.objective} gives the student no gradient. Is the student's side "
                "in stop_gradient, or are student and teacher the wrong way round?"
            )
        return of_student


def unreached_in(gradients: Mapping[str, Any]) -> list[str]:
    """Names of the parameters whose gradient (or flag) is zero everywhere, without key biases."""
    flat = flatten_dict(dict(gradients), sep="/")
    return [
        name
        for name, leaf in flat.items()
        if not np.asarray(leaf).any() and not name.endswith("attention/key/bias")
    ]


def _any(gradients: Any) -> bool:
    """Whether anything in a tree is not 0."""
    return any(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradients))


def _logits(output: ModelOutput, probe: Probe) -> dict[str, np.ndarray]:
    """The logits of the examples, or of the tokens, that are there."""
    where_BT = np.asarray(probe.little.where_BT)
    examples = int(np.sum(np.asarray(probe.little.example_ids_B) >= 0))
    logits = np.asarray(output.logits_BC)[:examples]
    if logits.ndim == 3:
        logits = logits[:, : where_BT.shape[1]][where_BT[:examples]]
    return {"the logits": logits}


def _means(parts: Mapping[str, tuple[Any, Any]]) -> dict[str, np.ndarray]:
    return {
        f"the value of {label}": np.asarray(total) / np.maximum(np.asarray(count), 1)
        for label, (total, count) in parts.items()
    }
