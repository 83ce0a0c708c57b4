"""Entities of tagged sentences, counted as ``conlleval`` counts them.

The script of the CoNLL-2000 and CoNLL-2003 shared tasks (Tjong Kim Sang and Buchholz 2000): an
entity is right when its type, its first and its last word are. Counts are kept for each sentence,
so that tests over sentences can be made of them.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.evaluation.mistakes import WORST

Entity = tuple[str, int, int]
"""Type, first word, word after the last."""


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of one sentence, in order.

    One begins at B, and at an I that follows O or another type; it ends before the next one, or
    before O. Nothing goes on over the end of a sentence.
    """
    found: list[Entity] = []
    begun, kind = -1, ""
    for word, tag in enumerate((*tags, "O")):
        own = tag[2:]
        begins = tag.startswith("B-") or (tag.startswith("I-") and (begun < 0 or own != kind))
        if begun >= 0 and (begins or tag == "O"):
            found.append((kind, begun, word))
            begun = -1
        if begins:
            begun, kind = word, own
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class EntityCounts:
    """Entities of N sentences.

    Attributes:
      right_N, said_N, due_N: int64 [N]: found rightly, found, there.
      by_type: type -> (right, said, due), types sorted.
    """

    right_N: np.ndarray
    said_N: np.ndarray
    due_N: np.ndarray
    by_type: dict[str, tuple[int, int, int]]

    @property
    def scores(self) -> dict[str, float]:
        """``precision``, ``recall`` and ``f1`` over all entities."""
        totals = (int(each.sum()) for each in (self.right_N, self.said_N, self.due_N))
        return dict(zip(("precision", "recall", "f1"), precision_recall_f1(*totals), strict=True))


def count_entities(said: Iterable[Sequence[str]], due: Iterable[Sequence[str]]) -> EntityCounts:
    """Counts of what a model said of sentences against what is there.

    Args:
      said, due: the tags of each sentence, as many on both sides.

    Raises:
      UserError: a sentence has not as many tags on both sides, or there is none.
    """
    counts: list[tuple[int, int, int]] = []
    types: tuple[Counter[str], ...] = (Counter(), Counter(), Counter())
    for number, (own, gold) in enumerate(zip(said, due, strict=True)):
        if len(own) != len(gold):
            raise UserError(f"sentence {number}: {len(own)} tags for {len(gold)} words.")
        found, there = set(entities(own)), set(entities(gold))
        sides = found & there, found, there
        counts.append((len(sides[0]), len(sides[1]), len(sides[2])))
        for counter, side in zip(types, sides, strict=True):
            counter.update(kind for kind, _, _ in side)
    if not counts:
        raise UserError("no sentence to count entities in: is the split empty?")
    right_N, said_N, due_N = np.array(counts, np.int64).T
    names = sorted({*types[1], *types[2]})
    by_type = {name: (types[0][name], types[1][name], types[2][name]) for name in names}
    return EntityCounts(right_N, said_N, due_N, by_type)


def precision_recall_f1(right: int, said: int, due: int) -> tuple[float, float, float]:
    """``right / said``, ``right / due`` and their harmonic mean; 0 for 0 / 0, as conlleval says."""
    precision = right / said if said else 0.0
    recall = right / due if due else 0.0
    f1 = 2 * right / (said + due) if said + due else 0.0
    return precision, recall, f1


def entity_mistakes(
    said: Sequence[Sequence[str]],
    due: Sequence[Sequence[str]],
    sure_N: np.ndarray,
    ids: Sequence[str],
    texts: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """``mistakes.mistakes`` of a tagger: a type of entities is a class, a sentence an example.

    Args:
      said, due: tags of each sentence.
      sure_N: how sure the model was of its surest wrong tag in each.
      ids: of the sentences.
      texts: id -> text.

    Returns:
      ``classes``, a type each, and ``worst``: of the sentences with a wrong entity those in which
      the model was surest.
    """
    by_type = count_entities(said, due).by_type
    classes = []
    for name, (right, found, there) in by_type.items():
        shares = {
            "precision": right / found if found else None,
            "recall": right / there if there else None,
            "f1": 2 * right / (found + there),
        }
        classes.append({"name": name, "examples": there, "predicted": found, **shares})
    pairs = enumerate(zip(said, due, strict=True))
    wrong = [n for n, (own, gold) in pairs if entities(own) != entities(gold)]
    surest = sorted(wrong, key=lambda n: (-sure_N[n], ids[n]))[:WORST]
    worst = []
    for n in surest:
        words = " ".join(texts.get(ids[n], ())).split()
        worst.append(
            {
                "id": ids[n],
                "texts": list(texts.get(ids[n], ())),
                "label": _in_words(due[n], words),
                "given": _in_words(said[n], words),
                "probability": float(sure_N[n]),
            }
        )
    return {"classes": classes, "worst": worst}


def _in_words(tags: Sequence[str], words: Sequence[str]) -> str:
    """``person: Emma; location: New York``."""
    found = (f"{kind}: {' '.join(words[first:stop])}" for kind, first, stop in entities(tags))
    return "; ".join(found)
