"""From a finished run to its row of the ledger: the one place where rows are written."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from distill_jax.tables.ledger import LedgerRow
from distill_jax.tables.provenance import provenance
from distill_jax.training.loop import TrainResult


def ledger_row(
    *,
    hash: str,
    experiment: str,
    row: str,
    group: str,
    seed: int,
    config: Mapping[str, Any],
    metrics: Mapping[str, float],
    fingerprints: Mapping[str, str],
    training: Mapping[str, Any],
    history: Sequence[Mapping[str, float]] = (),
    test_correct: str | None = None,
    test_scores: Mapping[str, str] | None = None,
) -> LedgerRow:
    """A row, with code, packages, device and time as they are now.

    Args:
      config: becomes plain JSON.
      training: of ``training_facts``; {} where nothing was trained.
      history: validation scores by step.
      test_correct, test_scores: evidence of each test example, see ``LedgerRow``.
    """
    return LedgerRow(
        hash=hash,
        experiment=experiment,
        row=row,
        group=group,
        seed=seed,
        config=json.loads(json.dumps(config)),
        metrics=metrics,
        selected_step=training.get("selected_step"),
        fingerprints=fingerprints,
        seconds=training.get("seconds", {}),
        examples_per_second=training.get("examples_per_second"),
        test_correct=test_correct,
        test_scores=test_scores or {},
        history=list(history),
        **provenance(),
    )


def training_facts(result: TrainResult, total: float | None = None) -> dict[str, Any]:
    """What a training tells of itself: selected step and its score, seconds,
    throughput, history.

    Args:
      total: seconds of the whole run, evaluation and saving too; None to leave them out.
    """
    progress = result.progress
    seconds = {"train": progress.train_seconds, "compile": progress.compile_seconds}
    return {
        "selected_step": progress.best_step,
        "best_score": progress.best_score,
        "seconds": seconds if total is None else {**seconds, "total": total},
        "examples_per_second": result.examples_per_second,
        "history": progress.history,
    }
