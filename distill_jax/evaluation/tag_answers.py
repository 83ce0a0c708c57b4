"""What a tagger says of texts: their entities, and the intent where it has one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from distill_jax.data.tokenise import Tokeniser, TokenTable
from distill_jax.data.words import word_table, words_of
from distill_jax.evaluation.answers import PREDICTED, Fields, Form, Read, Watched, softmax
from distill_jax.evaluation.tagging import entities
from distill_jax.evaluation.tokens import asked_about

TAGS, ENTITIES, PROBABILITY = "predicted_tags", "entities", "probability"


@dataclasses.dataclass(frozen=True)
class Tagged:
    """A text with tags.

    Attributes:
      tags: of its words, what white space separates; a word that the model did not see has O.
      entities: each with ``type``, ``text``, ``start`` and ``end``, characters of the text.
      intent: None of a model without.
      probability: of the intent.
    """

    tags: tuple[str, ...]
    entities: tuple[dict[str, Any], ...]
    intent: str | None = None
    probability: float = 0.0

    @property
    def label(self) -> str:
        """The intent; of a model without, the entities: ``person: Emma; location: New York``."""
        if self.intent is not None:
            return self.intent
        return "; ".join(f"{each['type']}: {each['text']}" for each in self.entities)


@dataclasses.dataclass(frozen=True)
class TagForm(Form):
    """Tags of words, and an intent where there are some.

    Attributes:
      tags: their names by number; O is the first.
      intents: names of the other outputs, which are read at the first token.
    """

    tags: tuple[str, ...]
    intents: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        probability = (PROBABILITY,) if self.intents else ()
        return (PREDICTED, *probability, TAGS, ENTITIES)

    def read(
        self, tokeniser: Tokeniser, columns: Sequence[Sequence[str]], ids: Sequence[str]
    ) -> Read:
        (texts,) = columns
        tokens, tally = word_table(texts, tokeniser, ids=ids)
        return Read(tokens, tally, tally.cut_N(tokeniser.max_length))

    def answers(
        self, said: np.ndarray, tokens: TokenTable, texts: Sequence[Sequence[str]]
    ) -> list[Tagged]:
        said_WC, _ = asked_about(said[..., : len(self.tags)], tokens)
        numbers = iter(said_WC.argmax(axis=-1).tolist())
        answers = []
        for row, ((text, *_), words) in enumerate(zip(texts, tokens.aside or (), strict=True)):
            places = words_of(text)
            tags = [self.tags[0]] * len(places)
            for word in words.seen:
                tags[word] = self.tags[next(numbers)]
            found = tuple(
                {
                    "type": kind,
                    "text": text[places[first][0] : places[stop - 1][1]],
                    "start": places[first][0],
                    "end": places[stop - 1][1],
                }
                for kind, first, stop in entities(tags)
            )
            answers.append(Tagged(tuple(tags), found, *self._intent(said[row, 0])))
        return answers

    def verdicts(self, said: np.ndarray, tokens: TokenTable) -> list[Any]:
        """The words with a tag but O, and the intent where there is one."""
        count = len(self.tags)
        said_WC, _ = asked_about(said[..., :count], tokens)
        numbers = iter(said_WC.argmax(axis=-1).tolist())
        words = [{word: next(numbers) for word in own.seen} for own in tokens.aside or ()]
        tags = [{word: tag for word, tag in own.items() if tag} for own in words]
        if not self.intents:
            return tags
        return list(zip(tags, said[:, 0, count:].argmax(axis=-1).tolist(), strict=True))

    @property
    def reading(self) -> str:
        told = "Logits are of every token; a word has the tag that is likeliest at its first token."
        if self.intents:
            told += (
                f" Outputs from number {len(self.tags)} on are the intents, of which the likeliest "
                "at the first token of all counts."
            )
        return told

    def _intent(self, said_C: np.ndarray) -> tuple[str, float] | tuple[()]:
        if not self.intents:
            return ()
        probs = softmax(said_C[len(self.tags) :])
        return self.intents[int(probs.argmax())], float(probs.max())

    def line(self, answer: Tagged | None) -> list[str]:
        if not self.intents:
            return [answer.label if answer else ""]
        if answer is None:
            return ["", ""]
        return [answer.label, dataclasses.replace(answer, intent=None).label]

    def row(self, answer: Tagged | None) -> list[str]:
        if answer is None:
            return [""] * len(self.columns)
        told = {name: value for name, value in self.data(answer).items() if name in self.columns}
        told[TAGS] = " ".join(answer.tags)
        told[ENTITIES] = json.dumps(answer.entities, ensure_ascii=False)
        return [str(told[name]) for name in self.columns]

    @property
    def fields(self) -> Fields:
        told: dict[str, tuple[Any, str]] = {
            PREDICTED: (str, "the entities with their types, or the intent where there is one")
        }
        if self.intents:
            told[PROBABILITY] = (float, "of the intent")
        return {
            **told,
            TAGS: (list[str], "of every word, what white space separates"),
            ENTITIES: (
                list[dict[str, str | int]],
                "each with type, text, start and end: characters of the text, from and up to",
            ),
        }

    @property
    def watchable(self) -> Watched:
        types = dict.fromkeys(tag[2:] for tag in self.tags[1:])
        return Watched(self.intents, entities=tuple(types))

    def watched(self, answer: Tagged) -> Watched:
        intents = () if answer.intent is None else (answer.intent,)
        return Watched(intents, entities=tuple(each["type"] for each in answer.entities))

    def data(self, answer: Tagged | None) -> dict[str, Any]:
        if answer is None:
            return dict.fromkeys(self.columns)
        told: dict[str, Any] = {PREDICTED: answer.label}
        if self.intents:
            told[PROBABILITY] = float(f"{answer.probability:.6g}")
        return {**told, TAGS: list(answer.tags), ENTITIES: list(answer.entities)}
