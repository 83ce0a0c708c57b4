"""An intent a sentence and a tag a word, by two heads on one trunk: ``--task intent_slots``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from distill_jax.data.labels import LabelColumn
from distill_jax.data.split_files import listed
from distill_jax.data.table import TextTable
from distill_jax.data.tags import IntentTagColumn, number_of_tags
from distill_jax.evaluation.metrics import classification_metrics
from distill_jax.evaluation.tagging import EntityCounts
from distill_jax.objectives.outputs import Outputs
from distill_jax.objectives.token_outputs import IntentAndTags
from distill_jax.tables.columns import COSTS, Column
from distill_jax.tables.evidence import pack_numbers
from distill_jax.tasks.kinds.kind import Calibrated, Described, Examples, register
from distill_jax.tasks.kinds.tags import (
    Tags,
    counted,
    described_types,
    f1_by_sentence,
    log_shares,
)


class IntentSlots(Tags):
    """Intents and slots: what ``Tags`` has, and the accuracy of intents. ``frames`` is the share of
    sentences in which the intent and every tag are right."""

    name = "intent_slots"
    what = "intents and slots"
    outputs: ClassVar[Outputs] = IntentAndTags()
    heads = ()
    columns = (
        Column("test/f1", "slot F1 %", 100, 1, higher_is_better=True),
        Column("test/intent_accuracy", "intent accuracy %", 100, 1, higher_is_better=True),
        Column("test/frames", "all right %", 100, 1, higher_is_better=True),
        Column("test/intent_fidelity", "intent fidelity %", 100, 1, higher_is_better=True),
        Column("test/fidelity", "word fidelity %", 100, 1, higher_is_better=True),
        *COSTS,
    )
    tested = ("test/f1", "test/intent_accuracy")
    decides: ClassVar[Mapping[str, str]] = {
        "frames": "frames",
        "f1": "f1",
        "accuracy": "intent_accuracy",
        "loss": "nll",
    }

    def labels(self, data: Described) -> LabelColumn:
        return IntentTagColumn(words=data.text)

    def tags(self, label_names: Sequence[str]) -> Sequence[str]:
        return label_names[: number_of_tags(label_names)]

    def label_of(self, table: TextTable, row: int, names: Sequence[str]) -> str:
        assert table.labels_N is not None
        intent = names[number_of_tags(names) + int(table.labels_N[row])]
        return f"{intent}: {super().label_of(table, row, names)}"

    def constant(self, labelled: Examples, label_names: Sequence[str]) -> np.ndarray | None:
        """The same of tags and of intents, which are outputs of their own."""
        count = number_of_tags(label_names)
        intents = 1 + np.bincount(
            labelled.labels_N[labelled.labels_N >= 0], minlength=len(label_names) - count
        )
        return np.concatenate([log_shares(labelled, count), np.log(intents / intents.sum())])

    def outputs_for(self, label_names: Sequence[str]) -> Outputs:
        return IntentAndTags(tags=number_of_tags(label_names))

    def described(self, label_names: Sequence[str]) -> str:
        tags = self.tags(label_names)
        return f"intents {listed(label_names[len(tags) :])}; {described_types(tags)}"

    def scores(
        self,
        said: np.ndarray,
        table: Examples,
        fitted: Any,
        *,
        calibrated: Calibrated | None = None,
        teacher: np.ndarray | None = None,
    ) -> dict[str, float]:
        """``nll`` is that of the intent plus the mean of that of the words."""
        scores = super().scores(said, table, fitted, calibrated=calibrated, teacher=teacher)
        count = len(fitted["tags"])
        beside = None if teacher is None else teacher[:, 0, count:]
        of_intents = classification_metrics(
            said[:, 0, count:], table.labels_N, teacher_logits_NC=beside
        )
        scores["intent_accuracy"] = of_intents["accuracy"]
        scores["nll"] += of_intents["nll"]
        if teacher is not None:
            scores["intent_fidelity"] = of_intents["fidelity"]
        scores["frames"] = math.nan
        if not np.isnan(said).any():
            right_N = _right(said, table, fitted["tags"])
            scores["frames"] = float(np.mean(right_N[0] & right_N[1]))
        return scores

    def evidence(
        self, said: np.ndarray, table: Examples, fitted: Any, calibrated: Calibrated
    ) -> dict[str, Any]:
        if not np.isfinite(said).all():
            return {}
        intent_N, slots_N = _right(said, table, fitted["tags"])
        kept = {
            "f1": f1_by_sentence(said, table, fitted["tags"]),
            "intent_accuracy": pack_numbers(intent_N.astype(np.uint8)),
            "frames": pack_numbers((intent_N & slots_N).astype(np.uint8)),
        }
        return {"test_scores": kept}


def _right(
    said_NTC: np.ndarray, table: Examples, tags: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """bool [N]: whether the intent is right, and whether every entity is and no other is said."""
    intent_N = said_NTC[:, 0, len(tags) :].argmax(axis=-1) == table.labels_N
    counts: EntityCounts = counted(said_NTC, table, tags)
    slots_N = (counts.right_N == counts.said_N) & (counts.right_N == counts.due_N)
    return intent_N, slots_N


register(IntentSlots())
