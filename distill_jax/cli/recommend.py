"""``distill-jax recommend``: what to show somebody, or everybody."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from distill_jax.cli.chosen_run import RANKS, chosen_run
from distill_jax.cli.run import parse_flags
from distill_jax.core.errors import UserError, unknown
from distill_jax.core.files import atomic_file, user_path

if TYPE_CHECKING:
    import numpy as np

    from distill_jax.data.people import Person
    from distill_jax.evaluation.item_catalogue import Catalogue
    from distill_jax.evaluation.open_recommender import OpenRecommender
    from distill_jax.evaluation.recommend_users import Lists, Taken, Told

COLUMNS = ("user", "rank", "item", "title", "score", "by")


@dataclass(frozen=True)
class Recommend:
    """Ask a finished recommender about somebody, who need not be in the data, or about a whole base
    of users.

    With --history each line of the output is the place, the title, the item's id and the model's
    score. With --users (or --interactions alone: all of its users) the lists go to --output.
    """

    model: Path
    """A run's folder (results/recommendation/runs/HASH) or a folder with a recommender; of a
    table (results/recommendation) the student that was best on validation."""
    history: str | None = None
    """Ids or titles, oldest first, divided by semicolons: "Toy Story; Alien"; "" for what
    is popular. Of runs with several kinds of feedback with the kind: "click:Alien; buy:Up"."""
    users: Path | None = None
    """A file of people: columns user, history (ids or titles, oldest first, divided by semicolons,
    or a list), or both; CSV, TSV, JSON, JSONL, Parquet, or .txt with a user a line."""
    interactions: str | None = None
    """What known users took, in the forms of --data of an experiment (files:FOLDER, movielens-100k)
    or a file; a history in --users comes before it."""
    columns: str | None = None
    """Of these files, where they are not called as usual: user=...,item=...,time=...,history=...,
    kind=..."""
    output: Path | None = None
    """A .csv or .jsonl to write: user, rank, item, title, score, and what the list rests on."""
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 10
    """How many items."""
    only: str | None = None
    """Items that may be shown: a file (a column item, or .txt with an item a line), or ids or
    titles divided by semicolons."""
    without: str | None = None
    """Items that may not be shown, given like --only."""
    with_seen: bool = False
    """Show items that somebody took, too, as runs with --repeats keep do."""
    new_items: tuple[str, ...] = ()
    """Texts ("title | genres") of items that the catalogue lacks; for models that read texts, with
    --history."""


def main(arguments: Sequence[str]) -> None:
    """Load, ask, print or write."""
    args = parse_flags(Recommend, arguments, "distill-jax recommend")
    if args.k < 1:
        raise UserError(f"-k is {args.k}; expected at least 1.")
    many = args.users is not None or args.interactions is not None
    if many == (args.history is not None):
        raise UserError("whom? Give either --history, or --users (or --interactions) and --output.")
    if many:
        _check_output(args)
    elif args.output is not None or args.columns is not None:
        raise UserError("--output and --columns go with --users or --interactions")

    from distill_jax.evaluation.open_recommender import open_recommender

    opened = open_recommender(chosen_run(args.model, RANKS))
    shown_I = _shown(args, opened.catalogue)
    if args.history is None:
        _everybody(args, opened, shown_I)
        return
    words = opened.catalogue.words(args.history, opened.audience.kinds)
    found = opened.recommend(
        args.history,
        args.k,
        new_items=args.new_items,
        shown_I=shown_I,
        with_seen=args.with_seen or None,
    )
    words = [opened.audience.event(word)[0] for word in words]
    for line in _doubts(opened.catalogue, words, len(found), args.k):
        print(line, file=sys.stderr)
    for place, each in enumerate(found, 1):
        print(f"{place}\t{each.title}\t{each.name}\t{each.score:.3f}")


def _doubts(catalogue: Catalogue, words: Sequence[str], found: int, k: int) -> Iterator[str]:
    """What somebody should know of a list.

    Raises:
      UserError: where there is none.
    """
    yield from filter(None, map(catalogue.doubt, words))
    if not words:
        yield "the history is empty: what is popular, with interactions as scores"
    if not found:
        raise UserError(
            f"no item is left to recommend: of {len(catalogue)} items none may be shown that is "
            "not in the history (--with-seen shows those, --only and --without say which may be)."
        )
    if found < k:
        yield f"only {found} of the {k} items are left to recommend"


def _check_output(args: Recommend) -> None:
    if args.output is None:
        raise UserError("--users and --interactions need --output, a .csv or .jsonl to write")
    if args.new_items:
        raise UserError("--new-items goes with --history")
    if args.output.suffix.lower() not in _WRITERS:
        raise unknown("ending of --output", args.output.suffix, _WRITERS)
    same = args.users is not None and args.output.resolve() == args.users.resolve()
    if args.output.is_dir() or same:
        raise UserError(f"--output {args.output} is a folder or the input; name another file")


def _shown(args: Recommend, catalogue: Catalogue) -> np.ndarray | None:
    from distill_jax.evaluation.recommend_users import shown_items

    if args.only is None and args.without is None:
        return None
    only = None if args.only is None else _items(args.only, catalogue, "--only")
    return shown_items(catalogue, only, _items(args.without or "", catalogue, "--without"))


def _items(text: str, catalogue: Catalogue, flag: str) -> list[int]:
    """Items of a list, which are all there, or of a file, which may hold others."""
    from distill_jax.data.people import read_items

    if not _is_file(text):
        try:
            return catalogue.history(text)
        except UserError as error:
            raise UserError(f"{flag}: no such file, and {error}") from error
    known = read_items(user_path(text), lambda word: bool(catalogue.candidates(word)))
    found = [catalogue.candidates(word) for word in known]
    if others := sum(len(each) != 1 for each in found):
        print(f"{flag}: {others} of {len(found)} are not in the catalogue", file=sys.stderr)
    return [each[0] for each in found if len(each) == 1]


def _is_file(text: str) -> bool:
    try:
        return user_path(text).is_file()
    except UserError:  # a list of many titles is no path
        return False


def _everybody(args: Recommend, opened: OpenRecommender, shown_I: np.ndarray | None) -> None:
    from distill_jax.evaluation.recommend_users import UserLists

    assert args.output is not None
    taken = _taken(args, opened)
    people, total = _people(args, taken)
    if taken is None and opened.audience.users and not args.with_seen:
        print("what known users took is not known without --interactions", file=sys.stderr)
    seen = args.with_seen or None
    lists = UserLists(opened, args.k, taken=taken, shown_I=shown_I, with_seen=seen)
    writer = _WRITERS[args.output.suffix.lower()]
    titles = [opened.catalogue.title(item) for item in range(len(opened.catalogue))]
    with atomic_file(args.output) as file, _progress(total) as on_users:
        file.write(writer([COLUMNS] if writer is _as_csv else []).encode())
        for window in lists.windows(people()):
            file.write(writer(_rows(window, opened.catalogue.names, titles)).encode())
            on_users(len(window.users))
    _tell(lists.told, total, args.output)


def _taken(args: Recommend, opened: OpenRecommender) -> Taken | None:
    """What the interactions say, with a line on what they do not."""
    if args.interactions is None:
        return None
    from distill_jax.data.build_interactions import Preparation
    from distill_jax.data.column_names import parse_columns
    from distill_jax.data.load_interactions import load_interactions
    from distill_jax.evaluation.recommend_users import taken_from

    is_file = user_path(args.interactions).exists()
    spec = f"files:{args.interactions}" if is_file else args.interactions
    repeats = "keep" if opened.audience.repeats else "first"
    preparation = Preparation(repeats, kinds=opened.audience.kinds, kinds_occur=False)
    data = load_interactions(spec, preparation=preparation, columns=parse_columns(args.columns))
    taken = taken_from(data, opened.catalogue)
    for note in data.notes:
        print(f"{data.name}: {note}", file=sys.stderr)
    if others := int((taken.items_I < 0).sum()):
        of = f"{others} of {data.num_items} items"
        print(f"{data.name}: {of} are not in the model's catalogue", file=sys.stderr)
    return taken


def _people(args: Recommend, taken: Taken | None) -> tuple[Callable[[], Iterable[Person]], int]:
    """Begins to read them; and how many there are. A file is read once before, so that its faults
    are told before any work."""
    from distill_jax.data.column_names import parse_columns
    from distill_jax.data.people import Person, read_people

    users, columns = args.users, parse_columns(args.columns)
    if users is not None:
        return lambda: read_people(users, columns), sum(1 for _ in read_people(users, columns))
    assert taken is not None
    names = taken.data.user_names
    return lambda: (Person(row, name) for row, name in enumerate(names, start=1)), len(names)


def _rows(
    lists: Lists, names: Sequence[str], titles: Sequence[str]
) -> Iterator[tuple[str, int, str, str, float, str]]:
    """The lists as rows of ``COLUMNS``."""
    found = zip(lists.users, lists.by, lists.top_EK.tolist(), lists.scores_EK.tolist(), strict=True)
    for user, by, items, scores in found:
        for rank, (item, score) in enumerate(zip(items, scores, strict=True), start=1):
            if item >= 0:
                yield user, rank, names[item], titles[item], float(f"{score:.6g}"), by


def _as_csv(rows: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def _as_jsonl(rows: Iterable[Sequence[Any]]) -> str:
    objects = (dict(zip(COLUMNS, row, strict=True)) for row in rows)
    return "".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in objects)


_WRITERS = {".csv": _as_csv, ".jsonl": _as_jsonl}


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Rate and time left on standard error; called with the number of users that are finished."""
    from rich.console import Console

    from distill_jax.engine.progress import Reporter

    with Reporter(Console(stderr=True)).stage("users", total) as bar:
        yield bar.advance


def _tell(told: Told, total: int, output: Path) -> None:
    """The summary, on standard error."""
    names = {"user": "their own vector", "history": "history", "popularity": "popularity"}
    by = ", ".join(f"{count:,} by {names[why]}" for why, count in told.by.items() if count)
    print(f"{total:,} users: {by or 'none'}: {output}", file=sys.stderr)
    if told.unknown:
        words = f"{told.unknown:,} words of histories ({told.example!r}, ...)"
        print(f"{words} name no item of the catalogue, or several: left out", file=sys.stderr)
    if told.doubts:
        print(f"{told.doubts:,} words of histories: {told.doubt}", file=sys.stderr)
    if told.empty:
        print(f"{told.empty:,} users have no item left to recommend", file=sys.stderr)
