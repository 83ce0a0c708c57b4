"""Questions about paragraphs, whose answers are spans of them, in the form of SQuAD's files.

Rajpurkar et al. 2016 (SQuAD 1.1) and 2018 (2.0, with questions that have no answer). Articles with
paragraphs with questions, ``{"data": [{"paragraphs": [{"context": .., "qas": [..]}]}]}``; or, as on
the Hugging Face hub, a question a row with ``question``, ``context`` and ``answers``
(``{"text": [..], "answer_start": [..]}``). A question without ``answers`` is transfer set.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distill_jax.core.digests import unit_interval
from distill_jax.core.errors import UserError
from distill_jax.data.file_formats import kind_of, place, read_cells
from distill_jax.data.files import told_apart
from distill_jax.data.split_files import STEMS, TRANSFER, find_split_files
from distill_jax.data.splits import HELD_OUT, build_dataset, concatenate, content_ids
from distill_jax.data.table import NO_LABEL, TextDataset, TextTable, fold
from distill_jax.data.tags import encodable

Answer = tuple[str, int]
"""Its text, and the number of its first character in the context."""
OUTPUTS = ("start", "end")
"""What a model says of each token: the answer begins, or ends, here."""
_SHARES = {"train": 0.8, "validation": 0.9, "test": 1.0}
"""Of a single file: a paragraph whose hash is below goes there."""


class _Question(NamedTuple):
    id: str | None
    question: str
    context: str
    answers: tuple[Answer, ...] | None


def load(folder: Path) -> TextDataset:
    """A folder of files as a data set: ``texts`` are questions, ``texts_b`` their contexts,
    ``targets`` the answers of each, () where it has none, None where nobody says.

    Split files are those of any data; a single file without them is split by paragraph, and a
    missing validation split is taken out of train by paragraph, both by a fixed hash.

    Raises:
      UserError: one line that names the file, the place in it and what was expected.
    """
    notes: list[str] = []
    single = _single_file(folder)
    if single is not None:
        found = _by_paragraph(_read(single, notes), notes)
    else:
        files = find_split_files(folder)
        notes += files.notes
        found = {s: [q for p in paths for q in _read(p, notes)] for s, paths in files.paths.items()}
        found = _with_validation(found, notes)
    tables = {split: _table(split, questions, notes) for split, questions in found.items()}
    tables = told_apart(tables, notes)
    transfer = tables.pop(TRANSFER, None)
    if transfer is not None:
        tables["train"] = concatenate(tables["train"], transfer)
        notes.append(f"{len(transfer):,} questions of the transfer file joined train, unanswered")
    return build_dataset(f"files:{folder}", OUTPUTS, tables, tuple(notes))


def load_unanswered(folder: Path) -> tuple[TextTable, tuple[str, ...]]:
    """The training questions of a folder, those of a ``transfer`` file too, and notes. No answer
    is kept, and none need be there.

    Raises:
      UserError: as ``load``.
    """
    notes: list[str] = []
    single = _single_file(folder)
    if single is not None:
        found = _by_paragraph(_read(single, notes), notes)["train"]
    else:
        files = find_split_files(folder, needed=("train", TRANSFER))
        notes += files.notes
        paths = [p for split in ("train", TRANSFER) for p in files.paths.get(split, ())]
        found = [question for path in paths for question in _read(path, notes)]
    bare = [question._replace(answers=None) for question in found]
    return _table("train", bare, notes), tuple(notes)


def _single_file(folder: Path) -> Path | None:
    """The one file of a folder that has no other, where it is not called as train or transfer
    files are."""
    if not folder.is_dir():
        return None
    paths = sorted(folder.iterdir())
    found = [path for path in paths if path.is_file() and kind_of(path) == ".json"]
    stems = ("train", *STEMS[TRANSFER])
    splits = any(path.name.lower().startswith(stems) for path in paths)
    return found[0] if len(found) == 1 and not splits else None


def _by_paragraph(questions: Sequence[_Question], notes: list[str]) -> dict[str, list[_Question]]:
    found: dict[str, list[_Question]] = {split: [] for split in _SHARES}
    for question in questions:
        unit = unit_interval(f"paragraph/{fold(question.context)}")
        found[next(split for split, share in _SHARES.items() if unit < share)].append(question)
    counts = ", ".join(
        f"{split} {len(own):,} questions of {len({q.context for q in own}):,}"
        for split, own in found.items()
    )
    notes.append(f"one file, split by a fixed hash of the paragraph: {counts} paragraphs")
    return found


def _with_validation(
    found: dict[str, list[_Question]], notes: list[str]
) -> dict[str, list[_Question]]:
    """Three splits, where there is one beside train: it is the test split."""
    if "validation" in found and "test" in found:
        return found
    if "test" not in found and "validation" in found:
        found = {**found, "test": found["validation"]}
        notes.append("the validation (dev) split serves as test")
    train: list[_Question] = []
    held: list[_Question] = []
    for question in found["train"]:
        unit = unit_interval(f"validation/{fold(question.context)}")
        (held if unit < HELD_OUT else train).append(question)
    if not held or not train:
        raise UserError(
            "train has too few paragraphs to hold some out; add a validation and a test file."
        )
    notes.append(
        f"{len(held):,} train questions, of paragraphs chosen by a fixed hash, serve as validation"
    )
    return {**found, "train": train, "validation": held}


def _read(path: Path, notes: list[str]) -> list[_Question]:
    questions = []
    for line, cells in read_cells(path, notes.append):
        where = place(path, line)
        rows = _article(cells, where) if "paragraphs" in cells else [(where, cells)]
        questions += [_question(row, at) for at, row in rows]
    if not questions:
        raise UserError(f"{path}: no questions; expected at least one.")
    return questions


def _article(article: Mapping[str, Any], where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The questions of an article, each with its context, and where they stand."""
    for number, paragraph in enumerate(_list(article, "paragraphs", where), start=1):
        at = f"{where}, paragraph {number}"
        context = paragraph.get("context")
        for count, own in enumerate(_list(paragraph, "qas", at), start=1):
            yield f"{at}, question {count}", {**own, "context": context}


def _list(cells: Mapping[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    value = cells.get(key)
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise UserError(f"{where}: expected a list of objects as {key!r}, found {value!r:.60}.")
    return value


def _question(cells: Mapping[str, Any], where: str) -> _Question:
    texts = []
    for key in ("question", "context"):
        value = cells.get(key)
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{where}: expected text as {key!r}, found {value!r:.60}.")
        texts.append(_encodable(value, key, where))
    question, context = texts
    number = cells.get("id")
    own_id = _encodable(str(number), "id", where) if isinstance(number, str | int) else None
    return _Question(own_id or None, question.strip(), context, _answers(cells, context, where))


def _answers(cells: Mapping[str, Any], context: str, where: str) -> tuple[Answer, ...] | None:
    given = cells.get("answers")
    if cells.get("is_impossible") is True:
        return ()
    if given is None:
        return None
    if isinstance(given, dict):  # columns, as on the hub; no answer is none there
        texts, starts = given.get("text"), given.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise UserError(
                f"{where}: expected answers as {{'text': [..], 'answer_start': [..]}} of one "
                f"length, found {given!r:.60}."
            )
        given = [{"text": t, "answer_start": s} for t, s in zip(texts, starts, strict=True)]
    elif not given:
        raise UserError(
            f"{where}: no answers; a question that has none says 'is_impossible': true, one of "
            "the transfer set has no 'answers' at all."
        )
    found = _list({"answers": given}, "answers", where)
    return tuple(_answer(each, context, where) for each in found)


def _answer(cells: Mapping[str, Any], context: str, where: str) -> Answer:
    text, start = cells.get("text"), cells.get("answer_start")
    if not isinstance(text, str) or not text.strip() or type(start) is not int:
        raise UserError(
            f"{where}: expected an answer {{'text': .., 'answer_start': ..}}, found {cells!r:.80}."
        )
    there = context[start : start + len(text)] if start >= 0 else ""
    if there != text:
        raise UserError(
            f"{where}: the answer {text!r:.60} is not at character {start} of its context; there "
            f"is {there!r:.60}."
        )
    return text, start


def _encodable(text: str, key: str, where: str) -> str:
    if not encodable(text):
        raise UserError(f"{where}: {key!r} has half of a character; expected text.")
    return text


def _table(split: str, questions: Sequence[_Question], notes: list[str]) -> TextTable:
    if not questions:
        raise UserError(f"the {split} split has no question.")
    texts = tuple(each.question for each in questions)
    contexts = tuple(each.context for each in questions)
    ids = [each.id for each in questions]
    named = None not in ids and len(set(ids)) == len(ids)
    if not named and any(ids):
        notes.append(f"the ids of {split} do not name each question once: the texts name them")
    told = split != TRANSFER
    answers = tuple(each.answers if told else None for each in questions)
    return TextTable(
        ids=tuple(map(str, ids)) if named else content_ids(texts, contexts),
        texts=texts,
        texts_b=contexts,
        labels_N=np.array([NO_LABEL if own is None else 0 for own in answers], np.int32),
        targets=answers,
    )
