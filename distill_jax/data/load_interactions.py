"""``--data`` of a recommender as text: which interactions, from where, how divided."""

from collections.abc import Mapping
from pathlib import Path

from distill_jax.core.errors import UserError, unknown
from distill_jax.core.files import user_path
from distill_jax.data.build_interactions import Preparation, RawInteractions, build_with_parts
from distill_jax.data.interaction_splits import (
    asked_at_most,
    own_split,
    parse_split,
    split_interactions,
)
from distill_jax.data.interactions import Interactions, RankingSplit

BUILT_IN = ("movielens-100k",)
FORMS = (*BUILT_IN, "files:FOLDER", "tfds:movielens/NAME")


def load_interactions(
    spec: str,
    *,
    preparation: Preparation | None = None,
    home: Path | None = None,
    columns: Mapping[str, str] | None = None,
) -> Interactions:
    """Interactions by name.

    Args:
      spec: ``movielens-100k``; ``files:FOLDER`` (or a file) for the user's own CSV, SASRec or
        RecBole files, see ``interaction_files``; ``tfds:movielens/100k-ratings`` and the like.
      preparation: filters and the rule for repeats.
      home: where assets and prepared data are kept, ``core.files.home()`` by default.
      columns: role -> column of the user's files, where they are not called as usual, see
        ``column_names``.

    Raises:
      UserError: if there is no such data, or its content is not as expected.
    """
    raw = read_raw(spec, home, columns)
    return build_with_parts(short_name(spec), raw, preparation)[0]


def load_ranking_split(
    spec: str,
    *,
    split: str | None = None,
    preparation: Preparation | None = None,
    home: Path | None = None,
    columns: Mapping[str, str] | None = None,
    asked: int | None = None,
) -> RankingSplit:
    """Interactions by name, divided.

    Args:
      spec, preparation, home, columns: as for ``load_interactions``.
      split: ``leave-one-out``, ``temporal``, ``temporal:0.8,0.1`` or ``files``; by default the
        data's own split where it brings one, else ``leave-one-out``.
      asked: cases of so many users at most, see ``asked_at_most``; None for all.

    Raises:
      UserError: see ``load_interactions``; for an unknown split, or one that the data cannot have.
    """
    rule = parse_split(split) if split else None
    raw = read_raw(spec, home, columns)
    brings_one = raw.rows.parts_N is not None
    if rule and brings_one and rule.kind != "files":
        raise UserError(
            f"data {spec!r} brings its own split, so it cannot be divided by {split!r}; put all "
            "interactions into one file for that."
        )
    data, parts_N = build_with_parts(short_name(spec), raw, preparation)
    if parts_N is not None:
        divided = own_split(data, parts_N)
    else:
        divided = split_interactions(data, rule or parse_split("leave-one-out"))
    return divided if asked is None else asked_at_most(divided, asked)


def short_name(spec: str) -> str:
    """What the data is called beside figures: of files the last part of their path."""
    kind, _, rest = spec.partition(":")
    return f"files:{user_path(rest).resolve().name}" if kind == "files" else spec


def read_raw(
    spec: str, home: Path | None = None, columns: Mapping[str, str] | None = None
) -> RawInteractions:
    """What the source says, before anything is sorted or filtered."""
    # Imported when needed: TFDS takes a while.
    kind, _, rest = spec.partition(":")
    if kind == "files" and rest:
        from distill_jax.data import interaction_files

        return interaction_files.read(user_path(rest), columns)
    if columns:
        raise UserError(f"--columns names columns of files:FOLDER; {spec} has its own")
    if kind == "tfds" and rest:
        from distill_jax.data import tfds_interactions

        return tfds_interactions.read(rest, home=home)
    if spec not in BUILT_IN:
        raise unknown("interactions", spec, FORMS)
    from distill_jax.data import movielens

    return movielens.read_100k(home)
