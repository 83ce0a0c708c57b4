"""Federated distillation: clients who show nobody their data, and a server who hears their logits.

Lin et al. 2020, "Ensemble Distillation for Robust Model Fusion in Federated Learning" (FedDF),
arXiv:2006.07242, in one round and without averaging parameters: every client trains a model on its
own examples, ``DataConfig(client="K/N")``; on texts that all know and nobody has labels of, it
answers (``client_answers``); the server's student learns from the mean of the answers, files like
any other teacher's (``server_setup``). What passes between the two is a file of logits by id.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from distill_jax.data.subsets import labelled_rows
from distill_jax.evaluation.open_classifier import open_classifier
from distill_jax.tasks.classification.cells import (
    FILE,
    SEED,
    ClassifierSetup,
    DataConfig,
    TeacherConfig,
)
from distill_jax.tasks.classification.splits import load_texts
from distill_jax.teachers.predictions import write_predictions

OBJECTIVE = "kl(teachers='mean_logits')"
"""FedDF's: against the mean of the clients' logits, at temperature 1."""
Shared = Mapping[str, tuple[str, ...]]
"""The texts that all know: id -> a text, or its two."""


def shared_texts(data: DataConfig) -> dict[str, tuple[str, ...]]:
    """The training texts whose labels nobody uses, without their labels.

    Args:
      data: of the server or of any client.
    """
    train = load_texts(data).splits["train"]
    draw = data.label_seed if data.draws_labels else 0
    salt = f"labels/{draw}" if draw else "labels"
    used = set(labelled_rows(train, data.label_fraction, salt=salt).tolist())
    columns = [train.texts] if train.texts_b is None else [train.texts, train.texts_b]
    rows = zip(train.ids, zip(*columns, strict=True), strict=True)
    return {example: texts for row, (example, texts) in enumerate(rows) if row not in used}


def client_answers(client: Path, shared: Shared, path: Path) -> None:
    """Write what a client says of the shared texts: all that leaves it.

    Args:
      client: the folder of its finished run.
      path: an ``.npz``.
    """
    opened = open_classifier(client, temperature=1.0)
    columns = [list(column) for column in zip(*shared.values(), strict=True)]
    answers = opened.classify(*columns)
    names = opened.label_names
    nothing = dict.fromkeys(names, 1 / len(names))  # of a blank text
    said_NC = np.array([[(a.probabilities if a else nothing)[n] for n in names] for a in answers])
    logits_NC = np.log(np.maximum(said_NC, np.finfo(np.float32).tiny))
    write_predictions(path, list(shared), names, logits_NC, "logits")


def server_setup(
    data: DataConfig, student: str, files: Sequence[str], tokenizer: str = ""
) -> ClassifierSetup:
    """A student of the server, who learns on the shared texts alone.

    Args:
      data: of which the server knows the shared texts, and its own validation and test.
      files: of the clients' answers; ``{seed}`` in a name is the seed of the teacher.
      tokenizer: see ``TeacherConfig``.
    """
    one, *others = (
        TeacherConfig(f"{FILE}{file}", fine_tune=False, tokenizer=tokenizer, most_silent=0.0)
        for file in files
    )
    server = dataclasses.replace(data, transfer="only", client="", client_alpha=0.0)
    return ClassifierSetup(server, one, student, more_teachers=tuple(others))


def answers_file(folder: Path, group: str, client: int) -> str:
    """Where a client's answers of each seed are."""
    return str(folder / f"{group}-client-{client}-seed-{SEED}.npz")
