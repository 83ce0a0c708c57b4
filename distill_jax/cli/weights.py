"""``--class-weights``: how much a label of each class counts in the hard term."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_jax.core.errors import UserError, unknown
from distill_jax.core.files import user_path

if TYPE_CHECKING:
    from distill_jax.tasks.classification.cells import DataConfig

HARD = ("ce", "focal")
OPTION = "class_weights"


def class_weights(given: str, data: "DataConfig") -> tuple[float, ...]:
    """A weight for each class of a data set, in the data's order, four digits each.

    Args:
      given: ``balanced``: ``N / (C * N_c)`` over the N labels that are used, so that every class
        weighs the same in all; or a JSON file ``{"class": weight}`` that names every class.

    Raises:
      UserError: for anything else.
    """
    from distill_jax.data.load_images import is_images
    from distill_jax.data.subsets import labelled_rows
    from distill_jax.tasks.classification.splits import load_texts

    if is_images(data.name):
        raise UserError("--class-weights is for texts, not for images")
    dataset = load_texts(data)
    names = dataset.label_names
    if given != "balanced":
        return _from_file(given, names)
    train = dataset.splits["train"]
    rows = labelled_rows(train, data.label_fraction)
    assert train.labels_N is not None
    counts = [int((train.labels_N[rows] == label).sum()) for label in range(len(names))]
    absent = [name for name, count in zip(names, counts, strict=True) if not count]
    if absent:
        raise UserError(
            f"--class-weights balanced: no training example has the label {absent[0]!r}; name the "
            'weights in a JSON file, {"class": weight}'
        )
    return tuple(float(f"{sum(counts) / (len(counts) * count):.4g}") for count in counts)


def with_class_weights(objective: str, weights: Sequence[float]) -> str:
    """An objective whose hard terms weigh the classes, except those that say so themselves."""
    from distill_jax.objectives.reworded import with_option

    return with_option(objective, lambda term: term.name in HARD, OPTION, weights)


def _from_file(given: str, names: Sequence[str]) -> tuple[float, ...]:
    path: Path = user_path(given)
    if not path.is_file():
        raise UserError(f"--class-weights is 'balanced' or a JSON file, and there is no {given}")
    try:
        table: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, RecursionError, ValueError) as error:
        raise UserError(f"--class-weights {given}: not JSON ({error})") from error
    if not isinstance(table, dict):
        raise UserError(f'--class-weights {given}: expected {{"class": weight, ...}}')
    for name in table:
        if name not in names:
            raise unknown("class", name, names, where=f"in {given}")
    weights = []
    for name in names:
        weight: Any = table.get(name)
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not 0 <= weight <= 1e6:
            raise UserError(f"--class-weights {given}: class {name!r} needs a number from 0 to 1e6")
        weights.append(float(f"{weight:.4g}"))
    if not any(weights):
        raise UserError(f"--class-weights {given}: all weights are 0")
    return tuple(weights)
