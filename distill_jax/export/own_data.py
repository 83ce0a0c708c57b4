"""The data that a run was trained and tested on, where it is still to be had."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from distill_jax.core.errors import UserError
from distill_jax.core.files import home
from distill_jax.data.tokenise import TokenTable
from distill_jax.export.source import Source, public_name
from distill_jax.tasks.classification.cells import DataConfig
from distill_jax.tasks.classification.splits import load_texts


@dataclasses.dataclass(frozen=True, eq=False)
class OwnData:
    """Splits of a run, seen to be the ones it was made of.

    Attributes:
      name: of the data set and its split.
    """

    name: str
    splits: Mapping[str, TokenTable]


@dataclasses.dataclass(frozen=True)
class NoData:
    """Why there is none.

    Attributes:
      reason: for everybody: it goes into the export.
      detail: for who is exporting; may name folders.
    """

    reason: str
    detail: str = ""


def own_data(source: Source) -> OwnData | NoData:
    """Load the data of a run again, and compare its content's digest with the ledger's."""
    row = source.row
    if row is None:
        return NoData("there is no row of a ledger that says on what data it was trained")
    try:
        config = data_config(row.config.get("data", {}))
        dataset = load_texts(config)
        tokens = config.kind.tokenise(
            dataset, source.opened.tokenizer_file, config.max_length, home() / "tokens"
        )
    except (UserError, TypeError) as error:
        return NoData("its data cannot be loaded", f" ({error})")
    if tokens.digest != row.fingerprints.get("tokens"):
        return NoData(f"its data, {public_name(config.name)}, is no longer what it was")
    if tokens.label_names != source.opened.label_names:
        return NoData(f"its data, {public_name(config.name)}, has its classes in another order")
    return OwnData(f"test split of {public_name(config.name)}", tokens.splits)


def data_config(fields: Mapping[str, Any]) -> DataConfig:
    """The ``data`` of a ledger's row as it was declared."""
    plain: dict[str, Any] = {k: tuple(v) if type(v) is list else v for k, v in fields.items()}
    return DataConfig(**plain)
