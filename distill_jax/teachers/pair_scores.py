"""A teacher's scores of (query, product) candidates: computed once, kept, verified when read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill_jax.core.digests import digest, digest_arrays
from distill_jax.core.errors import UserError
from distill_jax.core.files import atomic_folder
from distill_jax.core.search_types import ListBatch, SearchOutput
from distill_jax.data.query_lists import Candidates

_SCORES, _MANIFEST = "scores.npy", "manifest.json"


@dataclass(frozen=True, eq=False)
class PairScores:
    """What a teacher says of the candidates; a ``Feed`` asks it for each batch.

    Attributes:
      candidates: of every query.
      scores_QM: float32 [Q, M], -inf where there is no candidate.
    """

    candidates: Candidates
    scores_QM: np.ndarray

    def __call__(self, batch: ListBatch) -> SearchOutput:
        """The scores of a batch's lists, -inf where a product is no candidate of the query."""
        query_B = np.maximum(np.asarray(batch.example_ids_B), 0)
        real_B1 = (np.asarray(batch.example_ids_B) >= 0)[:, None]
        items_BN, there_BN = np.asarray(batch.items_BN), np.asarray(batch.there_BN)
        own_BN = np.where(there_BN & real_B1, self.lookup(query_B, items_BN), -np.inf)
        first_B = np.where(there_BN[:, 0], items_BN[:, 0], -2)
        first_BB = np.broadcast_to(first_B[None, :], (len(first_B), len(first_B)))
        others_BB = np.where(real_B1, self.lookup(query_B, first_BB), -np.inf)
        return SearchOutput(
            scores_BN=own_BN.astype(np.float32),  # type: ignore[arg-type]
            others_BB=others_BB.astype(np.float32),  # type: ignore[arg-type]
        )

    def lookup(self, query_B: np.ndarray, items_BK: np.ndarray) -> np.ndarray:
        """float32 [B, K] scores of products for queries, -inf where the teacher was not asked."""
        match_BKM = items_BK[:, :, None] == self.candidates.items_QM[query_B][:, None, :]
        scores_BKM = np.where(match_BKM, self.scores_QM[query_B][:, None, :], -np.inf)
        return scores_BKM.max(axis=2)

    def shuffled(self, seed: int) -> PairScores:
        """A placebo: within each query the same scores, given to other candidates."""
        rng = np.random.default_rng(seed)
        scores_QM = self.scores_QM.copy()
        for row in scores_QM:
            there = np.flatnonzero(np.isfinite(row))
            row[there] = row[rng.permutation(there)]
        return PairScores(self.candidates, scores_QM)


def kept_scores(
    candidates: Candidates,
    compute: Callable[[np.ndarray, np.ndarray], np.ndarray],
    *,
    teacher_digest: str,
    cache: Path | None = None,
) -> PairScores:
    """The scores of all candidates, read from ``cache`` where they were kept.

    Args:
      compute: (query numbers [P], product numbers [P]) -> scores [P].
      teacher_digest: of the teacher's parameters and of the tokens it reads.
      cache: a folder of kept scores, each in a folder named by what it was made of; None keeps
        nothing.

    Raises:
      UserError: if kept scores are damaged.
    """
    made_of = {"teacher": teacher_digest, "candidates": candidates.digest}
    folder = None if cache is None else cache / digest(made_of)
    if folder is not None and folder.is_dir():
        return PairScores(candidates, _read(folder, candidates.items_QM.shape))
    there_QM = candidates.items_QM >= 0
    query_P, _ = np.nonzero(there_QM)
    scores_QM = np.full(there_QM.shape, -np.inf, np.float32)
    scores_QM[there_QM] = compute(query_P.astype(np.int32), candidates.items_QM[there_QM])
    if not np.isfinite(scores_QM[there_QM]).all():
        raise UserError("the teacher's scores are not finite: train it again at a lower rate.")
    if folder is not None:
        with atomic_folder(folder) as scratch:
            np.save(scratch / _SCORES, scores_QM, allow_pickle=False)
            manifest = {**made_of, "scores": digest_arrays({"scores": scores_QM})}
            (scratch / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return PairScores(candidates, scores_QM)


def _read(folder: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        scores_QM = np.load(folder / _SCORES, allow_pickle=False)
        if manifest["scores"] != digest_arrays({"scores": scores_QM}) or scores_QM.shape != shape:
            raise ValueError("not as they were written")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"the teacher's scores in {folder} are damaged ({error}): delete that folder to have "
            "them computed again."
        ) from error
    return scores_QM
