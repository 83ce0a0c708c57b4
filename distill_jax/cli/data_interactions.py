"""``distill-jax data`` of interactions: what a recommender would learn from, and be asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from distill_jax.core.errors import UserError
from distill_jax.core.files import user_path

if TYPE_CHECKING:
    from distill_jax.data.interactions import RankingSplit


def holds_interactions(name: str) -> bool:
    """Whether ``--data`` of that name is interactions, as far as names of files and columns say.

    Raises:
      UserError: for a table alone, which texts never are, without columns that say so.
    """
    from distill_jax.data.load_interactions import BUILT_IN
    from distill_jax.data.separated import header_of, is_number

    kind, _, rest = name.partition(":")
    if kind != "files":
        return name in BUILT_IN or name.startswith("tfds:movielens/")
    place = user_path(rest)
    if place.is_dir():
        if any(place.glob("*.inter")) or any(place.glob("interactions.*")):
            return True
        tables = [path for path in sorted(place.iterdir()) if _is_table(path)]
        train = [path for path in tables if path.name.startswith("train.")]
        return any(map(_names_both, train[:1] or tables))
    if not _is_table(place):
        return False
    cells = header_of(place)
    if not _names_both(place) and sum(map(is_number, cells)) < 2:  # else it has no header
        raise UserError(
            f"{place} has columns {', '.join(cells)}; expected a user and an item, or --columns "
            "user=COLUMN,item=COLUMN. Of texts give the folder that holds the file and the other "
            "splits."
        )
    return True


def _is_table(path: Path) -> bool:
    return path.is_file() and path.name.endswith((".csv", ".tsv", ".csv.gz", ".tsv.gz"))


def _names_both(path: Path) -> bool:
    """Whether columns of a user and of an item are there, or several that may be."""
    from distill_jax.data.column_names import column_of
    from distill_jax.data.separated import header_of

    cells = header_of(path)
    return all(any(column_of(role, [cell], path) for cell in cells) for role in ("user", "item"))


def described(split: RankingSplit, examples: int) -> Iterator[str]:
    """Sizes, notes, the split, and the first users with what they took."""
    data = split.data
    yield (
        f"{data.name}: {data.num_users:,} users, {data.num_items:,} items, "
        f"{len(data):,} interactions; digest {split.digest}"
    )
    for note in data.notes:
        yield f"note: {note}"
    yield f"protocol: {split.protocol}"
    for part in ("validation", "test"):
        yield f"  {part}: {len(getattr(split, part)):,} items are asked for"
    lengths = sorted(data.lengths_U.tolist())
    middle = lengths[len(lengths) // 2]
    most = f"{lengths[0]:,} to {lengths[-1]:,}, half of them at most {middle:,}"
    yield f"  interactions of a user: {most}"
    for user in range(min(examples, data.num_users)):
        start, end = data.offsets_U1[user : user + 2]
        newest = [data.item_names[item] for item in data.items_N[start:end]][-5:]
        yield f"    {data.user_names[user]}  ... {'; '.join(newest)}"


def show(name: str, columns: str | None, examples: int) -> None:
    """Print what is there, and what a recommender would be asked.

    Args:
      columns: see ``parse_columns``.

    Raises:
      UserError: for what training would refuse about the data.
    """
    from distill_jax.data.column_names import parse_columns
    from distill_jax.data.load_interactions import load_ranking_split

    split = load_ranking_split(name, columns=parse_columns(columns))
    for line in described(split, examples):
        print(line)
