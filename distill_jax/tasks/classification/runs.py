"""One run: from a cell to a row of the ledger."""

import io
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.core.distributed import is_lead
from distill_jax.core.files import write_atomic
from distill_jax.data.coverage import as_metrics
from distill_jax.engine.engine import Engine
from distill_jax.engine.rows import ledger_row, training_facts
from distill_jax.engine.work import Work
from distill_jax.evaluation.calibration import write_temperature
from distill_jax.evaluation.latency import cpu_latency
from distill_jax.evaluation.metrics import classification_metrics, fit_temperature
from distill_jax.evaluation.mistakes import mistakes
from distill_jax.evaluation.predict import one_by_one
from distill_jax.evaluation.size import model_size
from distill_jax.models.family import ModelConfig, family_of
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.tables.ledger import LedgerRow, pack_correct
from distill_jax.tables.runs_kept import MISTAKES
from distill_jax.tables.yardstick_names import CLASSES
from distill_jax.tasks.classification.cells import TEACHER, Cell, TrainingConfig, config_of
from distill_jax.tasks.classification.classify import SCORES, classifier_work, predict, predictor
from distill_jax.tasks.classification.models import check_saved, inputs_of
from distill_jax.tasks.classification.task import Examples, Task
from distill_jax.tasks.classification.teacher import Teacher
from distill_jax.tasks.classification.teacher_check import Checked
from distill_jax.training.loop import TrainResult
from distill_jax.training.state import Params


@dataclass(frozen=True, eq=False)
class Planned:
    """A cell with all that is needed to run it.

    Attributes:
      row, group: the first place it stands in.
      intermediate: the objective of the stage before, where there is one.
    """

    cell: Cell
    row: str
    group: str
    task: Task
    teacher: Teacher
    config: ModelConfig
    objective: ResolvedObjective
    intermediate: ResolvedObjective | None = None

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.group}  {self.row}  seed {self.cell.seed}"

    @property
    def stages(self) -> tuple[tuple[ResolvedObjective, TrainingConfig], ...]:
        """Its stages in order; the last one selects."""
        last = self.objective, self.cell.training
        if self.cell.intermediate is None:
            return (last,)
        assert self.intermediate is not None
        return (self.intermediate, self.cell.intermediate.training), last

    @property
    def works(self) -> tuple[Work, ...]:
        """The same, ready to be trained."""
        return tuple(
            classifier_work(
                self.cell,
                self.task,
                self.config,
                objective,
                training,
                training.total_steps(len(self.task.everything)),
                selects=number == len(self.stages),
            )
            for number, (objective, training) in enumerate(self.stages, 1)
        )


def finish_run(
    engine: Engine,
    experiment: str,
    planned: Planned,
    result: TrainResult,
    teacher_test_NC: np.ndarray,
    seconds: float,
) -> LedgerRow:
    """Read the test split, keep the model, and write the run up.

    Args:
      seconds: since it was last resumed.
    """
    cell, config, task, teacher = planned.cell, planned.config, planned.task, planned.teacher
    logits_NC = _logits(engine, task, config, result.params, task.test)
    temperature = temperature_of(engine, task, config, result.params)
    progress = result.progress
    metrics = scores_on_test(task, logits_NC, teacher_test_NC, temperature)
    metrics |= as_metrics(task.coverage)
    metrics |= cost_metrics(engine, task, config, result.params)
    chosen = progress.at_best()
    metrics |= {f"validation/{name}": chosen.get(name, math.nan) for name in SCORES.values()}
    if progress.skipped:
        metrics["skipped_steps"] = progress.skipped
    keep_run(
        engine.run_folder(cell.hash),
        task,
        config,
        result.params,
        teacher.pretrained.tokenizer_file,
        logits_NC,
        temperature,
        progress.history,
    )
    return ledger_row(
        hash=cell.hash,
        experiment=experiment,
        row=planned.row,
        group=planned.group,
        seed=cell.seed,
        config=config_of(cell, config),
        metrics=metrics,
        fingerprints=fingerprints(task, teacher),
        training=training_facts(result, seconds),
        **evidence(task, logits_NC, progress.history),
    )


def teacher_row(
    engine: Engine,
    experiment: str,
    cell: Cell,
    task: Task,
    teacher: Teacher,
    group: str,
    checked: Checked,
) -> LedgerRow:
    """The ledger's row of the teacher itself.

    Args:
      checked: what ``check_teacher`` found; its metrics are kept with the scores.
    """
    training = teacher.training
    logits_NC = _logits(engine, task, teacher.config, teacher.params, task.test)
    if checked.validation_NC is None:
        temperature = temperature_of(engine, task, teacher.config, teacher.params)
    else:
        temperature = fit_temperature(checked.validation_NC, task.validation.labels_N)
    metrics = scores_on_test(task, logits_NC, None, temperature) | checked.metrics
    metrics |= as_metrics(task.coverage)
    metrics |= cost_metrics(engine, task, teacher.config, teacher.params)
    metrics["validation/accuracy"] = training.get("validation_accuracy", math.nan)
    if "steps" in training:
        metrics["train/steps"] = training["steps"]
    history = training.get("history", [])
    keep_run(
        engine.run_folder(cell.hash),
        task,
        teacher.config,
        teacher.params,
        teacher.pretrained.tokenizer_file,
        logits_NC,
        temperature,
        history,
    )
    return ledger_row(
        hash=cell.hash,
        experiment=experiment,
        row=TEACHER,
        group=group,
        seed=cell.seed,
        config=config_of(cell, teacher.config),
        metrics=metrics,
        fingerprints=fingerprints(task, teacher),
        training=training,
        **evidence(task, logits_NC, history),
    )


def evidence(task: Task, logits_NC: np.ndarray, history: list[dict[str, float]]) -> dict[str, Any]:
    """What tests over examples and learning curves need of a run."""
    correct_N = logits_NC.argmax(axis=-1) == task.test.labels_N
    return {
        "test_correct": pack_correct(correct_N),
        "history": [{"step": at["step"], "accuracy": at["accuracy"]} for at in history],
    }


def _logits(
    engine: Engine, task: Task, config: ModelConfig, params: Params, table: Examples
) -> np.ndarray:
    return predict(task, config, params, table, mesh=engine.mesh, on_batch=engine.check_stop)


def temperature_of(engine: Engine, task: Task, config: ModelConfig, params: Params) -> float:
    """The temperature that calibrates a model, fitted on validation; the test split has no say."""
    logits_NC = _logits(engine, task, config, params, task.validation)
    return fit_temperature(logits_NC, task.validation.labels_N)


def scores_on_test(
    task: Task, logits_NC: np.ndarray, teacher_test_NC: np.ndarray | None, temperature: float
) -> dict[str, float]:
    """Scores on the test split, under ``test/``, how many classes are predicted there, and the
    temperature of the calibrated one."""
    scores = classification_metrics(
        logits_NC,
        task.test.labels_N,
        ratings_N=task.test.scores_N,
        teacher_logits_NC=teacher_test_NC,
        temperature=temperature,
    )
    lost = np.isnan(logits_NC).any()
    predicted = math.nan if lost else len(np.unique(logits_NC.argmax(axis=-1)))
    return {
        **{f"test/{name}": value for name, value in scores.items()},
        CLASSES: predicted,
        "temperature": temperature,
    }


def cost_metrics(
    engine: Engine, task: Task, config: ModelConfig, params: Params
) -> dict[str, float]:
    """What a model costs: parameters, and latency of single test examples on the CPU."""
    examples = one_by_one(task.test, 50, shape_lengths=task.few_lengths)
    latency = cpu_latency(predictor(config), params, examples, repeats=5, on_call=engine.check_stop)
    return {
        "parameters": model_size(params).parameters,
        "latency/p50_ms": latency.p50_ms,
        "latency/p95_ms": latency.p95_ms,
    }


def fingerprints(task: Task, teacher: Teacher) -> dict[str, str]:
    """Content digests of everything a run stood on."""
    return {
        "teacher": teacher.digest,
        "pretrained": teacher.pretrained.digest,
        "data": task.digest,
        "tokens": task.tokens_digest,
    }


def keep_run(
    folder: Path,
    task: Task,
    config: ModelConfig,
    params: Params,
    tokenizer_file: Path | None,
    test_logits_NC: np.ndarray,
    temperature: float,
    history: list[dict[str, float]],
) -> None:
    """Keep a finished model for use, what it says of the test split, and its history.

    Args:
      temperature: that calibrates it, fitted on validation; kept beside the model.
    """
    if not is_lead():
        return
    shutil.rmtree(folder / "model", ignore_errors=True)  # left by a run killed at this place
    inputs = inputs_of(task.config)
    family_of(config).save(
        folder / "model", config, params, tokenizer_file, task.label_names, inputs
    )
    check_saved(folder / "model", task.test, test_logits_NC)
    if math.isfinite(temperature):
        write_temperature(folder / "model", temperature)
    names, test = task.label_names, task.test
    said = io.BytesIO()
    np.savez(
        said,
        ids=np.asarray(test.ids),
        logits_NC=test_logits_NC,
        labels_N=test.labels_N,
        label_names=np.asarray(names),
    )
    write_atomic(folder / "test_logits.npz", said.getvalue())
    if np.isfinite(test_logits_NC).all():
        found = mistakes(
            test_logits_NC, test.labels_N, names, test.ids, task.test_texts, temperature
        )
        write_atomic(folder / MISTAKES, json.dumps(found, ensure_ascii=False, allow_nan=False))
    write_atomic(folder / "history.json", json.dumps(history, indent=1))
