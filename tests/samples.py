"""Finished runs as a ledger would keep them, made without training anything."""

import itertools

import numpy as np

from distill_jax.tables.columns import ACCURACY, Column
from distill_jax.tables.evidence import pack_correct
from distill_jax.tables.ledger import LedgerRow
from distill_jax.tables.spec import Place, TableSpec

ROWS = ("ce", "kl", "0.9*kl(T=4) + 0.1*ce")
SECONDS = Column("seconds/total", "run (s)", decimals=0, kind="mean")


def sample_run(row, group, seed, accuracy=0.6, *, hash=None, correct=None, **changes):
    """A run; with ``correct`` its accuracy is the mean of that."""
    accuracy = accuracy if correct is None else float(np.mean(correct))
    fields = {
        "hash": hash or f"{group}/{row}/{seed}",
        "experiment": "sample",
        "row": row,
        "group": group,
        "seed": seed,
        "config": {"data": {"name": "toy", "label_fraction": 0.1}, "seed": seed, "student": group},
        "metrics": {"test/accuracy": accuracy, "validation/accuracy": accuracy},
        "selected_step": 75,
        "fingerprints": {"data": "dada", "teacher": "feed"},
        "code": {"version": "0.1.0", "commit": "c0ffee", "dirty": False},
        "packages": {"jax": "0.10.2", "python": "3.11.7"},
        "device": "cpu: 2 cores",
        "seconds": {"total": 20.0 + seed, "train": 10.0},
        "examples_per_second": 1000.0,
        "finished_at": "2026-01-02T03:04:05+00:00",
        "test_correct": None if correct is None else pack_correct(correct),
        "history": [{"step": step, "accuracy": accuracy - 5 / step} for step in (25, 50, 75)],
    }
    return LedgerRow(**{**fields, **changes})


def sample_correct(rate, seed, count=600):
    """[count] booleans: the same easy and hard examples for everybody, and some luck by seed."""
    difficulty_N = np.random.default_rng(0).random(count)
    luck_N = 0.05 * np.random.default_rng(seed + 1).standard_normal(count)
    return difficulty_N + luck_N < rate


def sample_runs(groups=("tiny", "l2"), rows=ROWS, seeds=3, *, correct=True):
    """Later rows and groups are better."""
    runs = []
    for (g, group), (r, row), seed in itertools.product(
        enumerate(groups), enumerate(rows), range(seeds)
    ):
        right_N = sample_correct(0.5 + 0.06 * r + 0.02 * g, 100 * r + seed)
        runs.append(
            sample_run(row, group, seed, correct=right_N)
            if correct
            else sample_run(row, group, seed, float(right_N.mean()))
        )
    return runs


def sample_teacher(group="minilm"):
    """The run of a teacher."""
    return sample_run("teacher", group, 0, 0.8, history=[])


def sample_yardstick(row="tfidf+logreg", accuracy=0.6, seed=0, **metrics):
    """The run of a yardstick."""
    scores = {"test/accuracy": accuracy, "validation/accuracy": accuracy}
    config = {"data": {"name": "toy"}, "student": row}
    return sample_run(
        row, "yardstick", seed, accuracy, config=config, metrics=scores | metrics, history=[]
    )


def place(run):
    """Where a run stands by its own labels."""
    return Place(run.row, run.group, run.seed, run.hash)


def sample_spec(runs, teachers=(), yardsticks=(), **changes):
    """A description that puts every run at the place of its own labels."""
    fields = {
        "name": "sample",
        "title": "A sample",
        "layout": "metrics",
        "columns": (ACCURACY, SECONDS),
        "baseline": "ce",
        "places": tuple(map(place, runs)),
        "teachers": tuple(map(place, teachers)),
        "yardsticks": tuple(map(place, yardsticks)),
        "protocol": ("Chosen on validation.", "Tested once."),
    }
    return TableSpec(**{**fields, **changes})
