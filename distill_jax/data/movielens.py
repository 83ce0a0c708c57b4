"""MovieLens 100K from its asset: ratings with times, films with ``title (year) | genres``."""

from pathlib import Path

from distill_jax.core.errors import UserError
from distill_jax.data import assets
from distill_jax.data.build_interactions import RawInteractions, join_texts
from distill_jax.data.recbole import read, read_atomic

NAME = "movielens-100k"


def read_100k(home: Path | None = None) -> RawInteractions:
    """All 100,000 ratings of 1,682 films by 943 users (GroupLens's terms, shown when fetched).

    Args:
      home: where the asset is kept, ``core.files.home()`` by default.
    """
    folder = assets.fetch(NAME, home)
    rows = read(folder).rows
    table = read_atomic(folder / "ml-100k.item")
    items = table.column("item_id", "token")
    columns = zip(
        items,
        table.column("movie_title", "token_seq"),
        table.column("release_year", "token"),
        table.column("class", "token_seq"),
        strict=True,
    )
    texts = {
        item: film_text(" ".join(title), year, genres) for item, title, year, genres in columns
    }
    if len(texts) < len(items):
        raise UserError(f"{table.path}: an item occurs twice.")
    return RawInteractions(rows, texts)


def film_text(title: str, year: str, genres: tuple[str, ...]) -> str:
    """``Toy Story (1995) | Animation, Children's, Comedy``; what is unknown is left out."""
    known = [genre for genre in genres if genre != "unknown"]
    return join_texts([f"{title} ({year})" if year.isdigit() else title, ", ".join(known)])
