"""A finished recommender in use: histories of anybody in, items with their scores out."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from distill_jax.core.errors import UserError
from distill_jax.core.files import readable_os_errors, save_tensors, write_atomic
from distill_jax.data.interactions import histories_of
from distill_jax.evaluation.audience import Audience, load_audience
from distill_jax.evaluation.item_catalogue import Catalogue, load_catalogue
from distill_jax.evaluation.recommend import Scorer, recommend
from distill_jax.evaluation.score_histories import HistoryScorer, room_for
from distill_jax.models.bert import Params
from distill_jax.models.recommenders.build import Recommender
from distill_jax.models.recommenders.closed_forms import (
    SavedClosedForm,
    is_closed_form,
    load_closed_form,
)
from distill_jax.models.recommenders.popularity import Popularity
from distill_jax.models.recommenders.save import load_recommender
from distill_jax.models.recommenders.text_items import ItemTexts
from distill_jax.teachers.item_texts import MAX_TOKENS, TextSpace, item_tokens

SPACE, ENCODER = "text_space.safetensors", "encoder.json"


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """One item of a list.

    Attributes:
      item: its number; new items come after the catalogue's.
      name: the data's own name, or the text of a new item.
      title: for people.
      score: the model's logit; differences of two have a meaning, the height has none.
    """

    item: int
    name: str
    title: str
    score: float


class Served(Protocol):
    """A model that gives scores to histories."""

    @property
    def scorer(self) -> Scorer:
        """Of the catalogue; made once."""

    def with_new(self, texts: Sequence[str]) -> Scorer:
        """Of the catalogue, then ``room_for`` new items: those of these texts, and padding."""

    def network(self) -> tuple[Recommender, Params]:
        """Whose scores are inner products of two vectors, and perhaps a bias.

        Raises:
          UserError: for a model that has no such vectors.
        """


@dataclasses.dataclass(frozen=True, eq=False)
class Neural:
    """A network as it is served: compiled once, at few shapes.

    Attributes:
      compiled: with the model.
      folder: where it came from; new items look for their encoder there.
    """

    compiled: HistoryScorer
    params: Params
    folder: Path

    @property
    def recommender(self) -> Recommender:
        return self.compiled.recommender

    @functools.cached_property
    def scorer(self) -> Scorer:
        scorer: Scorer = self.compiled.of(self.params)
        return scorer

    def network(self) -> tuple[Recommender, Params]:
        """See ``Served``."""
        return self.recommender.in_use, self.recommender.params_in_use(self.params)

    def with_new(self, texts: Sequence[str]) -> Scorer:
        """See ``Served``.

        Raises:
          UserError: for a model whose item vectors are not made of texts.
        """
        items = self.recommender.in_use.config.items
        if items.reads_files:
            what = "a vector" if items.given_width else "fields"
            raise UserError(
                f"this model reads {what} of every item from a file: a new item has none. Take a "
                "student that reads texts alone (-text or -both)."
            )
        if not items.reads_texts or self.recommender.texts is None:
            raise UserError(
                "this model knows items by their numbers alone: an item it was not trained on has "
                "no vector. Take a student whose item vectors are made of texts (-text or -both)."
            )
        known_IE = np.asarray(self.recommender.texts.vectors_IE)
        new_NE = _encode(self.folder, texts)
        padding = np.zeros((room_for(len(texts)) - len(texts), known_IE.shape[1]), np.float32)
        vectors_IE = np.concatenate([known_IE, new_NE, padding])
        scorer: Scorer = self.compiled.of(self.params, ItemTexts(vectors_IE=vectors_IE))
        return scorer


@dataclasses.dataclass(frozen=True, eq=False)
class Closed:
    """A recommender in closed form as it is served."""

    saved: SavedClosedForm

    @property
    def scorer(self) -> Scorer:
        return self.saved.model.scores

    def with_new(self, texts: Sequence[str]) -> Scorer:
        """See ``Served``.

        Raises:
          UserError: always, as no text is read.
        """
        raise UserError(
            f"{self.saved.kind} reads no texts: an item it was not fitted to has no score. Take a "
            "student whose item vectors are made of texts (-text or -both)."
        )

    def network(self) -> tuple[Recommender, Params]:
        """See ``Served``.

        Raises:
          UserError: always.
        """
        raise UserError(
            f"{self.saved.kind} gives items no vectors, so there is nothing for an index. Write "
            "its lists for all users instead (distill-jax recommend --model RUN --users FILE "
            "--output FILE), or export a student."
        )


@dataclasses.dataclass(frozen=True, eq=False)
class OpenRecommender:
    """A model with its catalogue. What it compiles it keeps: ask one object many times.

    Attributes:
      audience: whom it knows, and what is popular.
    """

    model: Served
    catalogue: Catalogue
    audience: Audience = dataclasses.field(default_factory=Audience)

    def recommend(
        self,
        history: str | Sequence[str],
        k: int = 10,
        *,
        new_items: Sequence[str] = (),
        shown_I: np.ndarray | None = None,
        with_seen: bool | None = None,
    ) -> list[Suggestion]:
        """The k best items for somebody who took these, which are left out.

        Who took nothing gets what is popular, the score being interactions.

        Args:
          history: ids or titles, oldest first, as a list or as one text with semicolons; of a run
            with several kinds of feedback with the kind in front, ``click:Alien``, or else as the
            kind that is recommended.
          new_items: texts (``title | genres``) of items that the catalogue lacks and that compete.
          shown_I: bool, the items of the catalogue that may be in the list; None for all.
          with_seen: whether those of the history may be; None for what the run was evaluated
            with: they may where users take items again.

        Raises:
          UserError: for an item that is not there, new items of a model whose item vectors are not
            made of texts, or an empty history where the run does not say what is popular.
        """
        words = self.catalogue.words(history, self.audience.kinds)
        events = [self.audience.event(word) for word in words]
        items = [self.catalogue.find(word) for word, _ in events]
        if not items:
            return self._popular(k, shown_I)
        with_seen = self.audience.repeats if with_seen is None else with_seen
        known, room = len(self.catalogue), room_for(len(new_items))
        scorer = self.model.with_new(new_items) if new_items else self.model.scorer
        may_be_I = np.arange(known + room) < known + len(new_items)
        if shown_I is not None:
            may_be_I[:known] = shown_I
        kinds = [[kind for _, kind in events]] if self.audience.kinds else None
        asked = histories_of([items], known + room, kinds=kinds)
        top_EK, scores_EK = recommend(scorer, asked, k, shown_I=may_be_I, with_seen=with_seen)
        found = zip(top_EK[0].tolist(), scores_EK[0].tolist(), strict=True)
        return [self._suggest(item, score, new_items) for item, score in found if item >= 0]

    def _popular(self, k: int, shown_I: np.ndarray | None) -> list[Suggestion]:
        if self.audience.counts_I is None:
            raise UserError("the history is empty: name one item at least.")
        counts_I = self.audience.counts_I.astype(np.float32)
        nobody = histories_of([[]], len(self.catalogue))
        top_EK, scores_EK = recommend(Popularity(counts_I).scores, nobody, k, shown_I=shown_I)
        found = zip(top_EK[0].tolist(), scores_EK[0].tolist(), strict=True)
        return [self._suggest(item, score, ()) for item, score in found if item >= 0]

    def _suggest(self, item: int, score: float, new_items: Sequence[str]) -> Suggestion:
        known = len(self.catalogue)
        if item < known:
            return Suggestion(item, self.catalogue.names[item], self.catalogue.title(item), score)
        text = new_items[item - known]
        return Suggestion(item, text, text.partition(" | ")[0], score)


def open_recommender(folder: Path) -> OpenRecommender:
    """Open a run's folder (or its ``model``).

    Raises:
      UserError: where there is no recommender, or it is damaged.
    """
    model = folder / "model" if (folder / "model").is_dir() else folder
    if not model.is_dir():
        raise UserError(f"no model at {folder}: expected the folder of a finished run")
    served, names = _served(model)
    catalogue = load_catalogue(model) or Catalogue(names)
    if catalogue.names != names:
        raise UserError(f"{model} is damaged: its catalogue is not the model's")
    audience = load_audience(model, len(catalogue))
    kinds = served.recommender.config.kinds if isinstance(served, Neural) else ()
    if kinds and kinds != audience.kinds:
        raise UserError(f"{model} is damaged: its kinds of feedback are not the model's")
    if isinstance(served, Neural) and served.recommender.config.event_fields:
        raise UserError(
            f"{model} reads privileged fields of events, which nobody has who asks for a list: it "
            "is a teacher; ask one of its students."
        )
    return OpenRecommender(served, catalogue, audience)


def _served(model: Path) -> tuple[Served, tuple[str, ...]]:
    """A model's folder as it is served, and the names of its items."""
    if is_closed_form(model):
        closed = load_closed_form(model)
        return Closed(closed), closed.item_names
    saved = load_recommender(model)
    return Neural(HistoryScorer(saved.recommender), saved.params, model), saved.item_names


def keep_encoder(folder: Path, space: TextSpace, encoder: str) -> None:
    """Write beside a model what its text vectors were made with."""
    scale = np.array([space.scale], np.float32)
    arrays: dict[str, np.ndarray] = {"mean_E": np.asarray(space.mean_E), "scale": scale}
    with readable_os_errors(folder):
        save_tensors(folder / SPACE, arrays)
    write_atomic(folder / ENCODER, json.dumps({"encoder": encoder}) + "\n")


def _encode(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """[n, E], in the space of the catalogue's text vectors."""
    from distill_jax.teachers.item_texts import encode

    if not all(text.strip() for text in texts):
        raise UserError("a new item needs a text.")
    space, pretrained = text_encoder(folder)
    table = item_tokens(texts, pretrained.tokenizer_file)
    raw_NE = encode(pretrained.config, pretrained.params, table, lengths=(MAX_TOKENS,))
    return space.of(raw_NE)


@functools.lru_cache(maxsize=1)
def text_encoder(folder: Path) -> tuple[TextSpace, Any]:
    """What reads the texts of a model's items, and the space their vectors are put into.

    Raises:
      UserError: where the folder does not say.
    """
    from distill_jax.data.assets import fetch
    from distill_jax.models.huggingface import load_pretrained

    try:
        arrays = load_file(folder / SPACE)
        space = TextSpace(arrays["mean_E"], float(arrays["scale"][0]))
        name = json.loads((folder / ENCODER).read_text(encoding="utf-8"))["encoder"]
    except (OSError, ValueError, LookupError, SafetensorError) as error:
        raise UserError(f"{folder} does not say how its texts were read: {error}") from error
    options: dict[str, Any] = {"pooling": "mean", "num_labels": 2, "fresh_classifier": True}
    return space, load_pretrained(fetch(name), **options)
