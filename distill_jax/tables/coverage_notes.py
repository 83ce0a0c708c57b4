"""Under a table: what share of the texts nobody saw, where it is much."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from distill_jax.data.coverage import WARNED
from distill_jax.data.table import SPLITS

if TYPE_CHECKING:
    from distill_jax.tables.table import Table

_SAID = {
    "cut": "texts are longer than the maximal length and were cut",
    "unknown": "tokens are unknown to the vocabulary ([UNK])",
}


def notes_of_coverage(table: "Table") -> list[str]:
    """A footnote for texts that were cut, one for unknown tokens, each from 5% of a split on."""
    runs = [run.metrics for row in table.rows for run in row.runs.values()]
    notes = []
    for name, said in _SAID.items():
        split, share = max(_shares(runs, name).items(), key=lambda item: item[1])
        if share >= WARNED:
            notes.append(f"{100 * share:.0f}% of the {split} {said}.")
    return notes


def _shares(runs: Sequence[Mapping[str, float]], name: str) -> dict[str, float]:
    """Split -> the largest share of any run."""
    return {s: max((run.get(f"{s}/{name}", 0.0) for run in runs), default=0.0) for s in SPLITS}
