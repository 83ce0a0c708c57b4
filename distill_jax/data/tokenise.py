"""Text to ragged token arrays, once, kept on disk under a name made of what went in."""

import contextlib
import dataclasses
import functools
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from distill_jax.core.digests import digest, sha256_file
from distill_jax.core.errors import UserError, panics_reported
from distill_jax.core.files import atomic_folder
from distill_jax.core.types import Batch, TokenRange
from distill_jax.data.coverage import Coverage, RowTally, Tally
from distill_jax.data.plan import example_arrays, filled
from distill_jax.data.table import NO_LABEL, LabelledArrays, TextDataset, TextTable

_FORMAT = 1
_LAYOUT = 3
"""Of the files that are kept; the digest of what they hold does not depend on it."""
_AT_ONCE = 1024
"""Texts that the tokeniser is given at a time: what it says of one takes kilobytes."""
_TOKENS_AT_ONCE = 1 << 20
_MANIFEST, _COVERAGE = "manifest.json", "coverage.json"
_ARRAYS = ("tokens_S", "token_types_S", "offsets_N1")
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Tokens and token types of some texts one after another, and the length (int64) of each."""


@dataclasses.dataclass(frozen=True, eq=False)
class TokenTable(LabelledArrays):
    """One split, tokenised: rows of different lengths one after another, no padding.

    Attributes:
      tokens_S: int32 [S], the token ids of all rows, special tokens included.
      token_types_S: int8 [S], 0 for the first segment, 1 for the second.
      offsets_N1: int64 [N + 1]; row n is ``tokens_S[offsets_N1[n] : offsets_N1[n + 1]]``.
      scores_N: float32 [N] mean human ratings, or None.
      targets: what is to be predicted where that is no class, an entry an example, [N, ...]; or
        None.
      targets_S: int32 [S], the same, an entry a token; negative where nothing is asked; or None.
      aside: a tuple with an entry an example of what its scoring reads beside arrays, no part of
        the digest; or None.
      asked_at_once: rows of a batch that a teacher is asked about.
      features_NF: float32 [N, F] that a linear model can read; None: tokens are no numbers.
      image: height, width and channels of images; None: these are none.
    """

    asked_at_once: ClassVar[int] = 64
    features_NF: ClassVar[None] = None
    image: ClassVar[None] = None

    tokens_S: np.ndarray
    token_types_S: np.ndarray
    offsets_N1: np.ndarray
    scores_N: np.ndarray | None = None
    targets: np.ndarray | None = None
    targets_S: np.ndarray | None = None
    aside: Any = None

    @functools.cached_property
    def lengths_N(self) -> np.ndarray:
        """int64 [N], tokens of every row."""
        return np.diff(self.offsets_N1)

    @functools.cached_property
    def token_range(self) -> TokenRange:
        """What is in it."""
        tokens, types = (int(x.max(initial=0)) for x in (self.tokens_S, self.token_types_S))
        return TokenRange(tokens + 1, types + 1, int(self.lengths_N.max(initial=0)))

    @functools.cached_property
    def occurring_tokens(self) -> np.ndarray:
        """The token ids that batches of it may hold, ascending; 0 of padding among them."""
        seen = np.zeros(self.token_range.tokens, bool)
        seen[0] = True
        for start in range(0, len(self.tokens_S), _TOKENS_AT_ONCE):  # they may lie on disk
            seen[self.tokens_S[start : start + _TOKENS_AT_ONCE]] = True
        return np.flatnonzero(seen)

    def take(self, rows: np.ndarray | list[int]) -> "TokenTable":
        """The table of some rows, in the order given."""
        rows = np.asarray(rows)
        if np.array_equal(rows, np.arange(len(self))):
            return self
        lengths = self.lengths_N[rows]
        offsets = np.append(0, np.cumsum(lengths)).astype(np.int64)
        tokens_S, types_S = (
            np.empty(offsets[-1], array.dtype) for array in (self.tokens_S, self.token_types_S)
        )
        targets_S = None if self.targets_S is None else np.empty(offsets[-1], np.int32)
        for start in range(0, len(rows), _AT_ONCE):  # the places of all tokens would be large
            some = slice(start, start + _AT_ONCE)
            here = slice(offsets[start], offsets[min(start + _AT_ONCE, len(rows))])
            source = np.arange(here.start, here.stop)
            source += np.repeat(self.offsets_N1[rows[some]] - offsets[:-1][some], lengths[some])
            tokens_S[here], types_S[here] = self.tokens_S[source], self.token_types_S[source]
            if targets_S is not None and self.targets_S is not None:
                targets_S[here] = self.targets_S[source]
        return TokenTable(
            ids=tuple(self.ids[row] for row in rows),
            tokens_S=tokens_S,
            token_types_S=types_S,
            offsets_N1=offsets,
            labels_N=self.labels_N[rows],
            scores_N=None if self.scores_N is None else self.scores_N[rows],
            targets=None if self.targets is None else self.targets[rows],
            targets_S=targets_S,
            aside=None if self.aside is None else tuple(self.aside[row] for row in rows),
        )

    def joined(self, other: "TokenTable") -> "TokenTable":
        """The rows of both, these first; human ratings only where both have them."""
        mine, theirs = self.scores_N, other.scores_N
        rated = mine is not None and theirs is not None
        for name in ("targets", "targets_S", "aside"):
            if (getattr(self, name) is None) != (getattr(other, name) is None):
                raise ValueError(f"one of the tables has {name}, the other has none")

        def both(name: str) -> Any:
            own = getattr(self, name)
            return None if own is None else np.concatenate([own, getattr(other, name)])

        return TokenTable(
            ids=self.ids + other.ids,
            tokens_S=np.concatenate([self.tokens_S, other.tokens_S]),
            token_types_S=np.concatenate([self.token_types_S, other.token_types_S]),
            offsets_N1=np.append(self.offsets_N1, self.offsets_N1[-1] + other.offsets_N1[1:]),
            labels_N=np.concatenate([self.labels_N, other.labels_N]),
            scores_N=np.concatenate([mine, theirs]) if rated else None,
            targets=both("targets"),
            targets_S=both("targets_S"),
            aside=None if self.aside is None else (*self.aside, *other.aside),
        )

    def _hidden(self, rows: np.ndarray) -> dict[str, Any]:
        hidden: dict[str, Any] = {}
        if self.targets is not None:
            hidden["targets"] = self.targets.copy()
            hidden["targets"][rows] = _nothing_said(self.targets[rows])
        if self.targets_S is not None:
            said_N = np.zeros(len(self), bool)
            said_N[rows] = True
            said_S = np.repeat(said_N, self.lengths_N)
            hidden["targets_S"] = np.where(said_S, _nothing_said(self.targets_S), self.targets_S)
        return hidden

    def batch(self, rows: np.ndarray, length: int, batch_size: int) -> Batch:
        """Numpy arrays of ``rows``, padded to ``length`` tokens and ``batch_size`` rows."""
        lengths_B = np.zeros(batch_size, np.int64)
        lengths_B[: len(rows)] = self.lengths_N[rows]
        if lengths_B.max(initial=0) > length:
            raise ValueError(f"a row of {lengths_B.max()} tokens in a batch of {length}")
        starts_B = np.zeros(batch_size, np.int64)
        starts_B[: len(rows)] = self.offsets_N1[rows]
        position_T = np.arange(length)
        where_BT = position_T[None, :] < lengths_B[:, None]
        index_BT = np.where(where_BT, starts_B[:, None] + position_T[None, :], 0)
        arrays: dict[str, Any] = dict(  # numpy arrays until the step takes them to a device
            input_ids_BT=np.where(where_BT, self.tokens_S[index_BT], np.int32(0)),
            token_type_ids_BT=np.where(where_BT, self.token_types_S[index_BT], 0).astype(np.int32),
            where_BT=where_BT,
        )
        if self.targets is not None:
            arrays["targets"] = filled(self.targets[rows], batch_size)
        if self.targets_S is not None:
            arrays["targets"] = np.where(where_BT, self.targets_S[index_BT], np.int32(-1))
        return Batch(**arrays, **example_arrays(rows, self.labels_N, batch_size))


def _nothing_said(targets: np.ndarray) -> np.ndarray:
    """Targets of hidden labels: 0, and where nothing is asked (whole numbers below 0) as it is."""
    return np.minimum(targets, 0) if targets.dtype.kind == "i" else np.zeros_like(targets)


@dataclasses.dataclass(frozen=True, eq=False)
class TokenDataset:
    """The tokenised splits of a ``TextDataset``.

    Attributes:
      label_names: the classes, in label order.
      splits: token tables under the text splits' names.
      digest: digest of text, tokeniser file and ``max_length``.
      coverage: of each split.
      notes: what was decided while tokens were made, a sentence each.
    """

    label_names: tuple[str, ...]
    splits: Mapping[str, TokenTable]
    digest: str
    coverage: Mapping[str, Coverage]
    notes: tuple[str, ...] = ()


def tokenise_texts(
    texts: Sequence[str],
    tokenizer_file: Path,
    *,
    max_length: int,
    texts_b: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
) -> tuple[TokenTable, Coverage]:
    """Token ids of texts that belong to no data set, and how much of the texts is left.

    Args:
      texts_b: the second text of each, of pairs.
      ids: of the texts; their numbers where None.
    """
    ids = tuple(ids or map(str, range(len(texts))))
    table = TextTable(ids, tuple(texts), None if texts_b is None else tuple(texts_b))
    dataset = TextDataset("texts", (), {"train": table})
    tokens = tokenise_dataset(dataset, tokenizer_file, max_length=max_length)
    return tokens.splits["train"], tokens.coverage["train"]


def tokenise_dataset(
    dataset: TextDataset, tokenizer_file: Path, *, max_length: int = 128, cache: Path | None = None
) -> TokenDataset:
    """Token ids of every split, computed once.

    The tokeniser's own truncation and padding are replaced: rows are cut to ``max_length``
    tokens (the longer sentence of a pair first) and never padded.

    Args:
      dataset: the text.
      tokenizer_file: a ``tokenizer.json`` of the ``tokenizers`` library.
      max_length: the most tokens of a row, special tokens included.
      cache: folder to keep the arrays in, one folder a (text, tokeniser, max_length); every
        file is verified when it is read again, and stays on disk. None keeps nothing.

    Raises:
      UserError: if the tokeniser cannot be read or a kept file is damaged.
    """
    if not tokenizer_file.is_file():
        raise UserError(f"no tokeniser at {tokenizer_file}.")
    key = digest(
        {
            "format": _FORMAT,
            "dataset": dataset.digest,
            "tokenizer": sha256_file(tokenizer_file),
            "max_length": max_length,
        }
    )
    if cache is None:
        arrays, coverage = _encode(dataset, tokenizer_file, max_length)
    else:
        kept = cache / f"{key}-{_LAYOUT}"
        if not kept.is_dir():
            _save(kept, dataset, tokenizer_file, max_length)
        arrays, coverage = _load(kept)
    return TokenDataset(
        label_names=dataset.label_names,
        splits={
            split: TokenTable(
                ids=table.ids,
                **{name: arrays[f"{split}.{name}"] for name in _ARRAYS},
                labels_N=(
                    np.full(len(table), NO_LABEL, np.int32)
                    if table.labels_N is None
                    else table.labels_N.astype(np.int32)
                ),
                scores_N=table.scores_N,
            )
            for split, table in dataset.splits.items()
        },
        digest=key,
        coverage=coverage,
    )


def _encode(
    dataset: TextDataset, tokenizer_file: Path, max_length: int
) -> tuple[dict[str, np.ndarray], dict[str, Coverage]]:
    tokeniser = Tokeniser(tokenizer_file, max_length)
    arrays: dict[str, np.ndarray] = {}
    coverage: dict[str, Coverage] = {}
    for split, table in dataset.splits.items():
        own, tally = tokeniser.encode(table.texts, table.texts_b, ids=table.ids)
        arrays |= {f"{split}.{name}": array for name, array in own.items()}
        coverage[split] = tally.coverage(max_length)
    return arrays, coverage


class Tokeniser:
    """A ``tokenizer.json`` as it is used here: rows are cut to ``max_length`` and never padded.

    The library reads texts on all cores, and without the interpreter's lock.

    Raises:
      UserError: if the file is no tokeniser, or leaves no room for words.
    """

    def __init__(self, file: Path, max_length: int) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except BaseException as error:  # the library raises a bare Exception, and panics
            raise UserError(f"{file} is not a tokeniser file: {panics_reported(error)}") from error
        special = self._tokenizer.num_special_tokens_to_add(is_pair=True)
        if max_length <= special:
            raise UserError(
                f"max length {max_length} leaves no room beside {special} special tokens."
            )
        self._tokenizer.no_padding()
        self.unknown_id = _unknown_id(self._tokenizer)
        self.max_length = max_length

    def encode(
        self, texts: Sequence[str], texts_b: Sequence[str] | None = None, *, ids: Sequence[str]
    ) -> tuple[dict[str, np.ndarray], RowTally]:
        """The arrays of a ``TokenTable``, and what was cut and unknown.

        Args:
          texts_b: the second text of each, of pairs.
          ids: of the texts, for errors.

        Raises:
          UserError: if the tokeniser fails, or finds nothing in a text.
        """
        tally = RowTally()
        pieces = self.pieces(texts, texts_b, ids=ids, tally=tally)
        tokens_S, types_S, lengths_N = (np.concatenate(each) for each in zip(*pieces, strict=True))
        offsets_N1 = np.append(0, np.cumsum(lengths_N))
        return dict(zip(_ARRAYS, (tokens_S, types_S, offsets_N1), strict=True)), tally

    def pieces(
        self,
        texts: Sequence[str],
        texts_b: Sequence[str] | None = None,
        *,
        ids: Sequence[str],
        tally: Tally,
    ) -> Iterator[Arrays]:
        """``encode`` piece by piece: tokens, token types, and the length (int64) of every row.

        Args:
          tally: counts what is cut and unknown.
        """
        for _, arrays in self.read(texts, texts_b, ids=ids, tally=tally):
            yield arrays

    def read(
        self,
        texts: Sequence[str],
        texts_b: Sequence[str] | None = None,
        *,
        ids: Sequence[str],
        tally: Tally,
        places: bool = False,
    ) -> Iterator[tuple[list[Any], Arrays]]:
        """What the library says of the texts, some of them at a time, and that as arrays.

        Args:
          tally: counts what is cut and unknown.
          places: whether each token says which characters it was made of (``offsets``).
        """
        inputs = iter(texts if texts_b is None else zip(texts, texts_b, strict=True))
        special = self._tokenizer.num_special_tokens_to_add(is_pair=texts_b is not None)
        encode = partial(_encoded, self._tokenizer, places=places)
        done = 0
        while some := list(itertools.islice(inputs, _AT_ONCE)):
            encodings = encode(some, None)
            needed = np.array([len(each) for each in encodings], np.int64)
            long = np.flatnonzero(needed > self.max_length).tolist()
            cut = encode([some[n] for n in long], self.max_length)
            for n, each in zip(long, cut, strict=True):
                encodings[n] = each
            arrays = arrays_of(encodings)
            tokens, _, kept = arrays
            if not kept.all():
                empty = ids[done + int(np.argmin(kept))]
                raise UserError(f"the tokeniser finds no token in example {empty!r}.")
            unknown = int((tokens == self.unknown_id).sum())
            tally.add(needed, words=len(tokens) - special * len(some), unknown=unknown)
            done += len(some)
            yield encodings, arrays

    def shortened(self, texts: Sequence[str], most: int) -> list[str]:
        """The texts, each cut after so many tokens at most, special ones not counted."""
        special = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        encodings = _encoded(self._tokenizer, list(texts), most + special, places=True)
        ends = (max(stop for _, stop in each.offsets) for each in encodings)
        cut = (bool(each.overflowing) for each in encodings)
        return [t[:end] if over else t for t, end, over in zip(texts, ends, cut, strict=True)]

    def windows(
        self, questions: Sequence[str], contexts: Sequence[str], *, stride: int
    ) -> Iterator[list[Any]]:
        """For each question and its context: the pair, as often as it takes to see all of it.

        Args:
          questions: as ``shortened`` makes them, so that each leaves room for more of its context
            than is shared.
          stride: tokens of a context that two windows after one another share.
        """
        pairs = list(zip(questions, contexts, strict=True))
        self._tokenizer.enable_truncation(self.max_length, stride=stride, strategy="only_second")
        for start in range(0, len(pairs), _AT_ONCE):
            for first in self._tokenizer.encode_batch(pairs[start : start + _AT_ONCE]):
                yield [first, *first.overflowing]

    def text_windows(self, texts: Sequence[str], *, stride: int) -> Iterator[list[Any]]:
        """Each text as often as it takes to see all of it.

        Args:
          stride: tokens of a text that two windows after one another share.
        """
        self._tokenizer.enable_truncation(self.max_length, stride=stride)
        for start in range(0, len(texts), _AT_ONCE):
            for first in self._tokenizer.encode_batch(list(texts[start : start + _AT_ONCE])):
                yield [first, *first.overflowing]


def arrays_of(encodings: Sequence[Any]) -> Arrays:
    """Tokens and token types one after another, and the length (int64) of every row."""
    kept = np.array([len(each) for each in encodings], np.int64)
    total, chain = int(kept.sum()), itertools.chain.from_iterable
    tokens = np.fromiter(chain(each.ids for each in encodings), np.int32, total)
    types = np.fromiter(chain(each.type_ids for each in encodings), np.int8, total)
    return tokens, types, kept


class _ArrayFile:
    """A ``.npy`` file of one axis that grows, so that the array is never held."""

    def __init__(self, file: BinaryIO, dtype: Any) -> None:
        self._file = file
        self._dtype, self._length = np.dtype(dtype), 0
        self._begin()
        self._start = self._file.tell()

    def append(self, array: np.ndarray) -> None:
        self._file.write(array.astype(self._dtype, copy=False).tobytes())
        self._length += len(array)

    def finish(self) -> None:
        """Write the length, for which numpy leaves room in what is written first."""
        self._begin()
        assert self._file.tell() == self._start

    def _begin(self) -> None:
        self._file.seek(0)
        descr = np.lib.format.dtype_to_descr(self._dtype)
        about = {"descr": descr, "fortran_order": False, "shape": (self._length,)}
        np.lib.format.write_array_header_1_0(self._file, about)


def _encoded(tokenizer, texts: list, max_length: int | None, *, places: bool = False) -> list:
    """What the tokeniser says of texts, or pairs, cut where they are too long.

    Args:
      places: whether tokens say which characters they were made of.
    """
    if max_length is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(max_length)
    try:
        return (tokenizer.encode_batch if places else tokenizer.encode_batch_fast)(texts)
    except BaseException as error:  # as above
        raise UserError(f"the tokeniser fails on the texts: {panics_reported(error)}") from error


def _unknown_id(tokenizer) -> int:
    """The id of words that the vocabulary does not know, -1 where it knows every byte."""
    token = getattr(tokenizer.model, "unk_token", None)
    number = tokenizer.token_to_id(token) if token else getattr(tokenizer.model, "unk_id", None)
    return -1 if number is None else number


def _save(folder: Path, dataset: TextDataset, tokenizer_file: Path, max_length: int) -> None:
    """Tokenise into files; a piece of the text is held at a time."""
    tokeniser = Tokeniser(tokenizer_file, max_length)
    coverage: dict[str, Coverage] = {}
    with atomic_folder(folder) as scratch:
        for split, table in dataset.splits.items():
            coverage[split] = _save_table(scratch, split, table, tokeniser)
        said = {split: dataclasses.asdict(each) for split, each in coverage.items()}
        (scratch / _COVERAGE).write_text(json.dumps(said, indent=1))
        arrays = (f"{split}.{name}.npy" for split in dataset.splits for name in _ARRAYS)
        manifest = {name: sha256_file(scratch / name) for name in (_COVERAGE, *arrays)}
        (scratch / _MANIFEST).write_text(json.dumps(manifest, indent=1))


def _save_table(folder: Path, split: str, table: TextTable, tokeniser: Tokeniser) -> Coverage:
    tally, end = Tally(), 0
    with contextlib.ExitStack() as stack:
        files = [
            _ArrayFile(stack.enter_context(open(folder / f"{split}.{name}.npy", "wb")), kind)
            for name, kind in zip(_ARRAYS, (np.int32, np.int8, np.int64), strict=True)
        ]
        files[-1].append(np.zeros(1, np.int64))
        for tokens, types, lengths in tokeniser.pieces(
            table.texts, table.texts_b, ids=table.ids, tally=tally
        ):
            ends = end + np.cumsum(lengths)
            for file, array in zip(files, (tokens, types, ends), strict=True):
                file.append(array)
            end = int(ends[-1])
        for file in files:
            file.finish()
    return tally.coverage(tokeniser.max_length)


def _load(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Coverage]]:
    """Arrays that stay on disk until they are read."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        for name, expected in manifest.items():
            if sha256_file(folder / name) != expected:
                raise ValueError(f"{name} has changed")
        said = json.loads((folder / _COVERAGE).read_text())
        arrays = {
            name.removesuffix(".npy"): np.load(folder / name, allow_pickle=False, mmap_mode="r")
            for name in manifest
            if name != _COVERAGE
        }
        return arrays, {split: Coverage(**each) for split, each in said.items()}
    except (OSError, TypeError, ValueError) as error:
        raise UserError(
            f"the tokenised data in {folder} is damaged ({error}): delete that folder and run "
            "again to make it anew."
        ) from error
