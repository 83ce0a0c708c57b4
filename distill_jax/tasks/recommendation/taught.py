"""A recommender that teaches: trained once for all tables, and what it says of histories."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_jax.core.digests import digest
from distill_jax.core.errors import UserError
from distill_jax.core.files import atomic_folder, home
from distill_jax.data.histories import HistoryTable
from distill_jax.data.interactions import RankingSplit
from distill_jax.engine.engine import Engine
from distill_jax.engine.rows import training_facts
from distill_jax.engine.strategies import clear_checkpoints
from distill_jax.models.recommenders.build import Recommender
from distill_jax.models.recommenders.save import (
    load_recommender,
    recommender_digest,
    save_recommender,
)
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.tasks.recommendation.cells import RecommenderCell
from distill_jax.tasks.recommendation.runs import recommender_work
from distill_jax.teachers.factor_words import FactorWords, factor_words
from distill_jax.teachers.recommender_speaker import RecommenderSpeaker, table_for
from distill_jax.teachers.top_items import (
    TopItemsCache,
    TopItemsProvenance,
    build_top_items,
    open_top_items,
)
from distill_jax.training.state import Params

TEACHER_OUTPUTS = "teacher_outputs"
"""Beside the runs: what teachers said of their positions."""


@dataclass(frozen=True)
class Kept:
    """What an earlier call left.

    Attributes:
      runs: beside them lies what its teacher said.
      tell: called with a sentence where something is gone, and made again.
    """

    runs: Path
    tell: Callable[[str], None]


def trained_once(
    engine: Engine,
    split: RankingSplit,
    cell: RecommenderCell,
    recommender: Recommender,
    objective: ResolvedObjective,
    params: Params,
    label: str,
    kept: Kept | None = None,
) -> tuple[Params, dict[str, Any]]:
    """What teaches: trained now, or found from an earlier table of the same data.

    Args:
      params: to start from.
      kept: what an earlier call left; None where there was none.

    Returns:
      Its parameters, and what its training tells, see ``rows.training_facts``.

    Raises:
      UserError: where what was kept is damaged.
    """
    folder = home() / "recommenders" / cell.hash
    if not folder.is_dir():
        if kept is not None:
            kept.tell("the run's teacher is not kept any more: it was trained again")
        started = time.perf_counter()
        own = engine.run_folder(cell.hash, shared=True)
        work = recommender_work(split, cell, recommender, objective)
        result = engine.train(work, params, teacher=None, label=label, folder=own)
        facts = training_facts(result, time.perf_counter() - started)
        with atomic_folder(folder) as scratch:
            save_recommender(scratch / "model", recommender, result.params, split.data.item_names)
            (scratch / "training.json").write_text(json.dumps(facts, indent=1))
        clear_checkpoints(own)
    try:
        return load_recommender(folder / "model").params, json.loads(
            (folder / "training.json").read_text()
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"the teacher in {folder} is damaged ({error}); delete that folder and it is trained "
            "again"
        ) from error


def asked(
    engine: Engine,
    recommender: Recommender,
    params: Params,
    table: HistoryTable,
    top: int,
    *,
    users: int | None = None,
    kept: Kept | None = None,
    among: int | None = None,
) -> tuple[str, TopItemsCache | FactorWords]:
    """A teacher's digest, and what it says at every position: its cache, made where there is none.

    A teacher that knows users by number says the same of a user at every position, at once, and
    more: the digest tells such words from those that a cache would keep.

    Args:
      table: of students that learn from it.
      top: how many of its likeliest items are kept, where there are more.
      users: of so many users at most; None for all.
      kept: what an earlier call left, whose cache serves where it is there.
      among: it names of the first so many items alone; None for all.
    """
    own = recommender_digest(recommender, params)
    limit = None if among == table.num_items else among
    top = kept_items(top, limit or table.num_items)
    plain = limit is None and not table.split.data.kind_names
    if recommender.config.knows_users and plain:
        words = factor_words(recommender, params, table.split, top)
        return digest({"factor_words": 1, "teacher": own}), words
    table = table_for(recommender, table)
    own_words = own if limit is None else digest([own, limit])
    provenance = TopItemsProvenance(own_words, table.digest, top, users)
    if kept is not None:
        caches = kept.runs / TEACHER_OUTPUTS
        if (caches / provenance.digest).is_dir():
            return own, open_top_items(caches / provenance.digest, provenance)
        kept.tell(
            f"{caches} has no cache of what the teacher said of the old interactions: it was "
            "asked again"
        )
    folder = engine.folder / TEACHER_OUTPUTS / provenance.digest
    if not folder.is_dir():
        engine.reporter.say("asking the teacher about every training position")
        speaker = RecommenderSpeaker(recommender, params, top, among=limit)
        build_top_items(folder, provenance, table, speaker, on_batch=lambda *_: engine.check_stop())
    return own, open_top_items(folder, provenance)


def kept_items(top: int, items: int) -> int:
    """How many of the teacher's likeliest items are kept: of few all but one, the rest.

    Args:
      items: that it names.
    """
    return min(top, items - 1)
