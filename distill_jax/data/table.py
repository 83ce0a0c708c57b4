"""Text data as plain tuples and numpy arrays: one ``TextTable`` a split."""

import dataclasses
import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np

from distill_jax.core.digests import digest, digest_arrays, digest_strings
from distill_jax.core.errors import UserError, unknown

SPLITS = ("train", "validation", "test")
NO_LABEL = -1


def check_columns(table: Any) -> None:
    """Raises ``ValueError`` where ids repeat themselves, or a column has not as many entries."""
    for name, column in vars(table).items():
        if column is not None and len(column) != len(table.ids):
            raise ValueError(f"{name} has {len(column)} entries for {len(table.ids)} ids")
    if len(set(table.ids)) != len(table.ids):
        raise ValueError("example ids are not unique")


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """What all tables have in common: fields that are columns, an entry an example, or None.

    Attributes:
      ids: N unique ids that stay the same when the data is read again.
    """

    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: np.ndarray | list[int]) -> Self:
        """The table of some rows, in the order given."""

        def pick(column: Any) -> Any:
            if isinstance(column, tuple):
                return tuple(column[row] for row in rows)
            return None if column is None else column[rows]

        columns = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return dataclasses.replace(self, **{name: pick(own) for name, own in columns.items()})


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledArrays(Examples):
    """Examples as arrays: what tables of tokens and of images have in common.

    Attributes:
      ids: see ``Examples``.
      labels_N: int32 [N], the class, or 0 where what is predicted is no class; -1 for examples
        without a label.
    """

    labels_N: np.ndarray

    @functools.cached_property
    def digest(self) -> str:
        """Digest of ids and of every array."""
        named = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        named.pop("aside", None)
        arrays = {k: array for k, array in named.items() if k != "ids" and array is not None}
        return digest({"ids": digest_strings(self.ids), "arrays": digest_arrays(arrays)})

    def without_labels(self, rows: np.ndarray) -> Self:
        """The same table with the labels of ``rows`` hidden: they become a transfer set."""
        labels_N = self.labels_N.copy()
        labels_N[rows] = NO_LABEL
        return dataclasses.replace(self.with_labels(labels_N), **self._hidden(rows))

    def _hidden(self, rows: np.ndarray) -> dict[str, Any]:
        """The columns of labels beside ``labels_N`` without what they say of these rows."""
        return {}

    def joined(self, other: Self) -> Self:
        """The examples of both, these first; a column that one of them lacks is left out."""

        def both(first: Any, second: Any) -> Any:
            if first is None or second is None:
                return None
            return first + second if isinstance(first, tuple) else np.concatenate([first, second])

        names = [field.name for field in dataclasses.fields(self)]
        columns = {name: both(getattr(self, name), getattr(other, name)) for name in names}
        return dataclasses.replace(self, **columns)

    def with_labels(self, labels_N: np.ndarray) -> Self:
        """The same examples with other labels, int32 [N], -1 for none."""
        if labels_N.shape != self.labels_N.shape:
            raise ValueError(f"labels of shape {labels_N.shape} for {len(self)} examples")
        return dataclasses.replace(self, labels_N=labels_N.astype(np.int32))


@dataclasses.dataclass(frozen=True, eq=False)
class TextTable(Examples):
    """One split, as text.

    Attributes:
      ids: see ``Examples``.
      texts: N texts, the first sentences where the task has pairs.
      texts_b: N second sentences, or None.
      labels_N: int32 [N] class numbers, -1 where an example has no label; None where none has.
      scores_N: float32 [N] mean human ratings, or None where the data has none.
      targets: what is to be predicted where that is no class, an entry an example: an array
        [N, ...], or a tuple of what JSON can hold; anything where an example has no label.
    """

    texts: tuple[str, ...]
    texts_b: tuple[str, ...] | None = None
    labels_N: np.ndarray | None = None
    scores_N: np.ndarray | None = None
    targets: Any = None

    def __post_init__(self) -> None:
        check_columns(self)

    @functools.cached_property
    def digest(self) -> str:
        """Digest of every column."""
        arrays = {"labels": self.labels_N, "scores": self.scores_N}
        more: dict[str, Any] = {}
        if self.targets is not None:
            told = isinstance(self.targets, tuple)
            more["targets"] = self.targets if told else digest_arrays({"targets": self.targets})
        return digest(
            {
                **more,
                "ids": digest_strings(self.ids),
                "texts": digest_strings(self.texts),
                "texts_b": None if self.texts_b is None else digest_strings(self.texts_b),
                "arrays": digest_arrays({k: v for k, v in arrays.items() if v is not None}),
            }
        )


class _Table(Protocol):
    @property
    def digest(self) -> str: ...

    def __len__(self) -> int: ...


Table = TypeVar("Table", bound=_Table)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset(Generic[Table]):
    """Named splits with one set of labels.

    Attributes:
      name: what ``--data`` was given.
      label_names: the classes; ``labels_N`` are positions in this tuple.
      splits: tables under ``train``, ``validation`` and ``test``.
      notes: what was decided about the data on the user's behalf, one sentence each; command
        lines print them and runs record them.
    """

    name: str
    label_names: tuple[str, ...]
    splits: Mapping[str, Table]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for split, table in self.splits.items():
            if not len(table):
                raise UserError(f"data {self.name!r}: the {split} split is empty.")

    @functools.cached_property
    def digest(self) -> str:
        """Digest of the content: label names and every table; the name does not enter."""
        tables = {split: table.digest for split, table in self.splits.items()}
        return digest({"label_names": self.label_names, "splits": tables})


TextDataset = Dataset[TextTable]


def label_array(labels: Sequence[str | None], label_names: Sequence[str]) -> np.ndarray:
    """Int32 [N] class numbers of label names; None becomes -1."""
    number = {name: i for i, name in enumerate(label_names)}
    return np.array([NO_LABEL if x is None else number[x] for x in labels], np.int32)


def check_named(names: Iterable[str], there: Collection[str], where: str) -> None:
    """Raises ``UserError`` for a column that is not there.

    Args:
      names: of the columns that are needed.
      there: the names there are.
      where: file and line, say.
    """
    for name in names:
        if name not in there:
            raise unknown("column", name, there, where=f"in {where}")


def fold(text: str) -> str:
    """The form in which two texts count as the same: case and white space do not matter."""
    return " ".join(text.casefold().split())
