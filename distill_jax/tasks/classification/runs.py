"""One run: from a cell to a row of the ledger."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from distill_jax.core.digests import canonical_json
from distill_jax.core.distributed import is_lead
from distill_jax.core.files import write_atomic
from distill_jax.data.coverage import as_metrics
from distill_jax.data.load_images import is_images, load_images
from distill_jax.data.new_data import keys_by_split, keys_of_images
from distill_jax.data.splits import text_keys
from distill_jax.engine.engine import Engine
from distill_jax.engine.interface import Run
from distill_jax.engine.rows import ledger_row, training_facts
from distill_jax.engine.work import Work
from distill_jax.evaluation.latency import cpu_latency, parameter_count
from distill_jax.evaluation.predict import one_by_one
from distill_jax.models.family import ModelConfig, family_of
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.tables.ledger import LedgerRow
from distill_jax.tables.names import MISTAKES, TRAINED
from distill_jax.tasks.classification.cells import (
    TEACHER,
    ClassifierCell,
    TeacherConfig,
    config_of,
)
from distill_jax.tasks.classification.classify import classifier_work, predict, predictor
from distill_jax.tasks.classification.left_out import scores_of_left_out
from distill_jax.tasks.classification.models import (
    Checkpoint,
    check_saved,
    inputs_of,
    params_of_student,
)
from distill_jax.tasks.classification.peers import among_peers, start_of_peers, the_first
from distill_jax.tasks.classification.splits import Examples, Splits, load_texts, with_more_texts
from distill_jax.tasks.classification.teacher import Teacher
from distill_jax.tasks.classification.teacher_check import Checked
from distill_jax.tasks.kinds.kind import Calibrated
from distill_jax.training.feed import TeacherOutputs
from distill_jax.training.loop import TrainResult
from distill_jax.training.state import Params


class Shared(Protocol):
    """What the runs of a table share, see ``supplies.Supplies``."""

    @property
    def experiment(self) -> str: ...

    def outputs(self, run: ClassifierRun) -> TeacherOutputs | None: ...

    def teacher_on_test(self, run: ClassifierRun) -> np.ndarray | None: ...


@dataclass(frozen=True, eq=False)
class Moment:
    """Training examples that came together.

    Attributes:
      splits: they are its ``everything``, as the teachers were asked about them.
      teachers: as they were then.
    """

    splits: Splits
    teachers: tuple[Teacher, ...]


@dataclass(frozen=True, eq=False)
class ClassifierRun(Run):
    """A student.

    Attributes:
      splits: its examples.
      teachers: whom it hears; of the first copied students are made.
      fitted: the objectives of its stages.
      supplies: what it shares with the other runs; None for one that is only checked.
      heard: the examples as its teachers read them, where their tokens are not its own.
      begins: what it starts from, where that is not its first teacher's checkpoint.
    """

    splits: Splits
    teachers: tuple[Teacher, ...]
    model: ModelConfig
    fitted: tuple[ResolvedObjective, ...]
    supplies: Shared | None = None
    heard: Splits | None = None
    begins: Checkpoint | None = None

    @property
    def taught(self) -> Splits:
        """The examples as its teachers read them."""
        return self.heard or self.splits

    @property
    def moments(self) -> tuple[Moment, ...]:
        """Its training examples as they came, those of ``splits.everything`` in its order."""
        return (Moment(self.splits, self.teachers),)

    @cached_property
    def seen(self) -> Mapping[str, frozenset[str]]:
        """Split -> keys of the content of all examples that were there, used or not."""
        config = self.splits.config
        if is_images(config.name):
            return keys_by_split(load_images(config.name).splits, keys_of_images)
        dataset = with_more_texts(config, load_texts(config))
        return keys_by_split(dataset.splits, text_keys)

    @property
    def begun(self) -> Checkpoint:
        """What it starts from."""
        return self.begins or self.teacher.pretrained

    @property
    def sources(self) -> tuple[Checkpoint, Any]:
        """A checkpoint, and the fine-tuned teacher, None where that has other tokens; see
        ``params_of_student``."""
        return self.begun, None if self.begins else self.teacher

    @property
    def teacher(self) -> Teacher:
        """The first."""
        return self.teachers[0]

    @property
    def hears(self) -> tuple[tuple[str, TeacherConfig], ...]:
        """Which teachers, and how each is heard."""
        digests = [teacher.digest for teacher in self.teachers]
        return tuple(zip(digests, self.cell.setup.teachers, strict=True))

    @property
    def config(self) -> dict[str, Any]:
        return config_of(self.cell, self.model)

    @cached_property
    def works(self) -> tuple[Work, ...]:
        works = tuple(
            classifier_work(
                self.cell,
                self.splits,
                self.model,
                objective,
                stage.training,
                stage.training.total_steps(len(self.splits.everything)),
                selects=number == len(self.fitted),
                number=number,
            )
            for number, (stage, objective) in enumerate(
                zip(self.cell.making, self.fitted, strict=True), 1
            )
        )
        peers = self.cell.setup.peers
        return tuple(among_peers(work, peers) for work in works) if peers else works

    @property
    def together(self) -> Mapping[str, Any]:
        """One test of the steps, one way of hearing the teacher, one scale of the labels."""
        fitted = self.splits.fitted
        return {
            "evaluation": self.splits.tokens_digest,
            "live": self.cell.setup.teacher.outputs == "live",
            **({"silent": gaps} if any(gaps := self.gaps) else {}),
            **({} if fitted is None else {"fitted": canonical_json(fitted)}),
        }

    @cached_property
    def gaps(self) -> list[bool]:
        """Of each teacher whether it says nothing of some training example."""
        table = self.splits.everything
        return [not teacher.speaks_of(table).all() for teacher in self.teachers]

    def start(self) -> Params:
        if peers := self.cell.setup.peers:
            return start_of_peers(self.cell, *self.sources, peers)
        return params_of_student(self.cell, *self.sources)

    def outputs(self) -> TeacherOutputs | None:
        assert self.supplies is not None
        return self.supplies.outputs(self)

    def finish(self, engine: Engine, result: TrainResult, seconds: float) -> LedgerRow:
        assert self.supplies is not None
        if self.cell.setup.peers:
            result = dataclasses.replace(result, params=the_first(result.params))
        on_test = self.supplies.teacher_on_test(self)
        return finish_run(engine, self.supplies.experiment, self, result, on_test, seconds)

    def told(self, row: LedgerRow) -> str:
        return self.splits.kind.told(row.metrics)


def finish_run(
    engine: Engine,
    experiment: str,
    run: ClassifierRun,
    result: TrainResult,
    teacher_test: np.ndarray | None,
    seconds: float,
) -> LedgerRow:
    """Read the test split, keep the model, and write the run up.

    Args:
      seconds: since it was last resumed.
    """
    cell, config, splits, teacher = run.cell, run.model, run.splits, run.teacher
    kind, progress = splits.kind, result.progress
    said = _said(engine, splits, config, result.params, splits.test)
    calibrated = calibrated_on_validation(engine, splits, config, result.params)
    metrics = kind.measured(said, splits.test, splits.fitted, calibrated, teacher_test)
    metrics |= as_metrics(splits.coverage)
    metrics |= cost_metrics(engine, splits, config, result.params)
    metrics[TRAINED] = run.works[-1].trained_parameters(result.params)
    chosen = progress.at_best()
    metrics |= {f"validation/{name}": chosen.get(name, math.nan) for name in kind.decides.values()}
    told = evidence(splits, said, calibrated, progress.history)
    if splits.config.left_out:
        on_validation = _said(engine, splits, config, result.params, splits.validation)
        found, told["test_scores"] = scores_of_left_out(splits, on_validation, said)
        metrics |= found
    if progress.skipped:
        metrics["skipped_steps"] = progress.skipped
    keep_run(
        engine.run_folder(cell.hash),
        splits,
        config,
        result.params,
        run.begun.tokenizer_file,
        said,
        calibrated,
        progress.history,
    )
    return ledger_row(
        hash=cell.hash,
        experiment=experiment,
        row=run.entry.label,
        group=run.entry.group,
        seed=cell.seed,
        config=run.config,
        metrics=metrics,
        fingerprints={**fingerprints(splits, teacher), "teacher": cell.teacher_digest},
        training=training_facts(result, seconds),
        **told,
    )


def teacher_row(
    engine: Engine,
    experiment: str,
    cell: ClassifierCell,
    splits: Splits,
    teacher: Teacher,
    group: str,
    checked: Checked,
    said: np.ndarray,
) -> LedgerRow:
    """The ledger's row of the teacher itself.

    Args:
      checked: what ``check_teacher`` found; its metrics are kept with the scores.
      said: what it says of the test split; of one that does not speak of all of it there are no
        scores.
    """
    training, kind = teacher.training, splits.kind
    validation = checked.validation
    if validation is None:
        validation = teacher.answers(engine, splits, splits.validation)
    calibrated: Calibrated = {}
    validated = bool(teacher.speaks_of(splits.validation).all())
    if validated:
        calibrated = kind.calibrate(validation, splits.validation, splits.fitted)
    metrics = checked.metrics | as_metrics(splits.coverage)
    # Classes are told without a temperature; another kind may not be without its threshold.
    whole = bool(teacher.speaks_of(splits.test).all()) and (kind.has_classes or validated)
    if whole:
        metrics |= kind.measured(said, splits.test, splits.fitted, calibrated, None)
    metrics[f"validation/{kind.main}"] = training.get(f"validation_{kind.main}", math.nan)
    if "steps" in training:
        metrics["train/steps"] = training["steps"]
    history = training.get("history", [])
    folder = engine.run_folder(cell.hash)
    if teacher.params is not None:
        metrics |= cost_metrics(engine, splits, teacher.config, teacher.params)
        own = teacher.config, teacher.params, teacher.pretrained.tokenizer_file
        keep_run(folder, splits, *own, said, calibrated, history)
    elif whole:
        keep_words(folder, splits, said, calibrated)
    return ledger_row(
        hash=cell.hash,
        experiment=experiment,
        row=TEACHER,
        group=group,
        seed=cell.seed,
        config=config_of(cell, None if teacher.params is None else teacher.config),
        metrics=metrics,
        fingerprints=fingerprints(splits, teacher),
        training=training,
        **(evidence(splits, said, calibrated, history) if whole else {}),
    )


def evidence(
    splits: Splits, said: np.ndarray, calibrated: Calibrated, history: list[dict[str, float]]
) -> dict[str, Any]:
    """What tests over examples and learning curves need of a run."""
    kind = splits.kind
    return {
        **kind.evidence(said, splits.test, splits.fitted, calibrated),
        "history": [{"step": at["step"], kind.main: at[kind.main]} for at in history],
    }


def _said(
    engine: Engine, splits: Splits, config: ModelConfig, params: Params, table: Examples
) -> np.ndarray:
    return predict(splits, config, params, table, mesh=engine.mesh, on_batch=engine.check_stop)


def calibrated_on_validation(
    engine: Engine, splits: Splits, config: ModelConfig, params: Params
) -> dict[str, float]:
    """What calibrates a model, fitted on validation; the test split has no say."""
    said = _said(engine, splits, config, params, splits.validation)
    return splits.kind.calibrate(said, splits.validation, splits.fitted)


def cost_metrics(
    engine: Engine, splits: Splits, config: ModelConfig, params: Params
) -> dict[str, float]:
    """What a model costs: parameters, and latency of single test examples on the CPU."""
    examples = one_by_one(splits.test, 50, shape_lengths=splits.few_lengths)
    latency = cpu_latency(predictor(config), params, examples, repeats=5, on_call=engine.check_stop)
    return {
        "parameters": parameter_count(params),
        "latency/p50_ms": latency.p50_ms,
        "latency/p95_ms": latency.p95_ms,
    }


def fingerprints(splits: Splits, teacher: Teacher) -> dict[str, str]:
    """Content digests of everything a run stood on."""
    return {
        "teacher": teacher.digest,
        "pretrained": teacher.pretrained.digest,
        "data": splits.digest,
        "tokens": splits.tokens_digest,
    }


def keep_run(
    folder: Path,
    splits: Splits,
    config: ModelConfig,
    params: Params,
    tokenizer_file: Path | None,
    said: np.ndarray,
    calibrated: Calibrated,
    history: list[dict[str, float]],
) -> None:
    """Keep a finished model for use, what it says of the test split, and its history.

    Args:
      said: what it says of the test split.
      calibrated: fitted on validation; kept beside the model.
    """
    if not is_lead():
        return
    shutil.rmtree(folder / "model", ignore_errors=True)  # left by a run killed at this place
    inputs = inputs_of(splits.config)
    family_of(config).save(
        folder / "model", config, params, tokenizer_file, splits.label_names, inputs
    )
    check_saved(folder / "model", splits.test, said)
    splits.kind.keep(folder / "model", splits.fitted, calibrated)
    keep_words(folder, splits, said, calibrated)
    write_atomic(folder / "history.json", json.dumps(history, indent=1))


def keep_words(folder: Path, splits: Splits, said: np.ndarray, calibrated: Calibrated) -> None:
    """Keep what is said of the test split, and where that is wrong."""
    if not is_lead():
        return
    folder.mkdir(parents=True, exist_ok=True)
    names, test = splits.label_names, splits.test
    kept = io.BytesIO()
    np.savez(
        kept,
        ids=np.asarray(test.ids),
        logits_NC=said,
        labels_N=test.labels_N,
        label_names=np.asarray(names),
    )
    write_atomic(folder / "test_logits.npz", kept.getvalue())
    found = None
    if np.isfinite(said).all():
        found = splits.kind.mistakes(said, test, names, splits.test_texts, calibrated)
    if found is not None:
        write_atomic(folder / MISTAKES, json.dumps(found, ensure_ascii=False, allow_nan=False))
