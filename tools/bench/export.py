"""Writes down what a table of ``compare-losses`` trains from, for the PyTorch script.

    python tools/bench/export.py FOLDER [flags of compare-losses]

Tokens, splits, the choice of labels, the teacher before its fine-tuning, every student and every
projection before its first step, steps, rates: all as our own runs have them.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from distill_jax.cli.compare import sweep_of
from distill_jax.cli.compare_flags import parse_arguments
from distill_jax.cli.run import run
from distill_jax.core.errors import UserError
from distill_jax.core.files import atomic_folder, save_tensors
from distill_jax.engine.engine import Engine
from distill_jax.engine.progress import Reporter
from distill_jax.models.bert import BertConfig
from distill_jax.models.huggingface import save_pretrained
from distill_jax.objectives.feeds import projection_name
from distill_jax.objectives.resolve import ResolvedObjective, resolve
from distill_jax.tasks.classification.cells import ClassifierCell, TrainingConfig
from distill_jax.tasks.classification.models import check_student, params_of_student
from distill_jax.tasks.classification.splits import Splits
from distill_jax.tasks.classification.table import Classification
from distill_jax.training.interrupt import StopRequest
from distill_jax.training.optimizer import OptimizerConfig

Arrays = dict[str, np.ndarray]


def export(flags: Sequence[str], folder: Path) -> None:
    """Write the folder; one that is there is left as it is.

    Args:
      flags: of ``compare-losses``; they must give one student of random weights.
    """
    if folder.is_dir():
        return
    task = Classification(sweep_of(parse_arguments(flags, "export")))
    entries, reporter = task.sweep.entries(), Reporter()
    with tempfile.TemporaryDirectory() as runs, StopRequest(reporter.say) as stop:
        task.prepare(Engine(Path(runs), reporter, stop, "none"), entries)
    cells = [entry.cell for entry in entries]
    if len({cell.setup.student for cell in cells}) > 1:
        raise UserError("the PyTorch script trains one student; name one with --students")
    splits, pretrained = task.supplies.of(cells[0])
    config, tokenizer = check_student(cells[0], pretrained.config), pretrained.tokenizer_file
    if tokenizer is None or not isinstance(config, BertConfig):
        raise UserError("the PyTorch script trains BERTs on texts")
    fitted = [resolve(cell.objective, config.shape, pretrained.config.shape) for cell in cells]
    names = splits.label_names
    with atomic_folder(folder) as scratch:
        save_pretrained(scratch / "teacher", pretrained.config, pretrained.params, tokenizer, names)
        for cell, objective in zip(cells, fitted, strict=True):
            student, params = scratch / start_of(cell), params_of_student(cell, pretrained)
            if not student.is_dir():
                save_pretrained(student, config, params, tokenizer, names)
            if maps := projections(objective, cell.seed):
                save_tensors(scratch / projections_of(cell), maps)
        save_tensors(scratch / "tokens.safetensors", tokens(splits))
        plan = plan_of(cells, fitted, splits)
        (scratch / "plan.json").write_text(json.dumps(plan, indent=1) + "\n")


def start_of(cell: ClassifierCell) -> str:
    """The folder of a cell's student before its first step."""
    return f"student-{cell.seed}"


def projections_of(cell: ClassifierCell) -> str:
    """The file of a cell's projections before its first step."""
    return f"projections-{cell.seed}.safetensors"


def tokens(splits: Splits) -> Arrays:
    """Tokens of every split in a row, where each example begins, and its label (-1: not used)."""
    tables: dict[str, Any] = {
        "train": splits.everything,
        "validation": splits.validation,
        "test": splits.test,
    }
    arrays: Arrays = {}
    for name, table in tables.items():
        arrays[f"{name}.tokens"] = np.array(table.tokens_S)
        arrays[f"{name}.offsets"] = np.array(table.offsets_N1)
        arrays[f"{name}.labels"] = np.array(table.labels_N)
    return arrays


def pairs_of(objective: ResolvedObjective) -> list[tuple[int, int]]:
    """(student layer, teacher layer) of what an objective compares inside the models."""
    readers = [reader for term in objective.terms for reader in term.readers]
    return [pair for reader in readers for pair in getattr(reader, "pairs", ())]


def projections(objective: ResolvedObjective, seed: int) -> Arrays:
    """The maps of hidden states before the first step, as PyTorch's ``Linear`` has them, by pair;
    {} where there are none."""
    own = objective.init_params(jax.random.key(seed)).get("hidden_mse", {}).get("teacher_0", {})
    arrays: Arrays = {}
    for number, pair in enumerate(pairs_of(objective) if own else ()):
        linear = own[projection_name(pair)]
        arrays[f"{number}.weight"] = np.ascontiguousarray(np.asarray(linear["kernel"]).T)
        arrays[f"{number}.bias"] = np.asarray(linear["bias"])
    return arrays


def plan_of(
    cells: Sequence[ClassifierCell], fitted: Sequence[ResolvedObjective], splits: Splits
) -> dict[str, Any]:
    """How the teacher is fine-tuned, and every run of the table."""
    runs = [
        {
            "objective": cell.objective,
            "seed": cell.seed,
            "start": start_of(cell),
            "projections": projections_of(cell),
            "pairs": pairs_of(objective),
            "training": training_of(cell.training, len(splits.everything)),
        }
        for cell, objective in zip(cells, fitted, strict=True)
    ]
    teacher = cells[0].setup.teacher.training
    return {"teacher": training_of(teacher, len(splits.labelled)), "runs": runs}


def training_of(training: TrainingConfig, examples: int) -> dict[str, Any]:
    """Steps, evaluations and AdamW's settings."""
    steps, optimizer = training.total_steps(examples), training.optimizer
    if optimizer != OptimizerConfig(learning_rate=optimizer.learning_rate):
        raise UserError("the PyTorch script has AdamW at our defaults; only its rate may differ")
    if (training.select, training.patience) != ("accuracy", 0):
        raise UserError("the PyTorch script takes all steps and keeps the one of best accuracy")
    settings = ("learning_rate", "warmup", "weight_decay", "clip_norm")
    return {
        "steps": steps,
        "eval_every": max(1, -(-steps // training.evaluations)),
        "batch_size": training.batch_size,
        **{name: getattr(optimizer, name) for name in settings},
    }


if __name__ == "__main__":
    run(lambda: export(sys.argv[2:], Path(sys.argv[1])))
