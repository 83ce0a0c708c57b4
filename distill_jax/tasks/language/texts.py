"""The texts of a cell as its model reads them, and the models that it starts from and hears."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from distill_jax.core.digests import digest, sha256_file
from distill_jax.core.errors import UserError
from distill_jax.core.files import home
from distill_jax.data.corpus import Corpus, load_corpus
from distill_jax.data.coverage import Coverage, in_words
from distill_jax.data.language_tables import (
    LanguageTable,
    MaskedTexts,
    NextTokens,
    begins_by_pieces,
    begins_by_spaces,
    masking_of,
)
from distill_jax.data.plan import choose_lengths
from distill_jax.data.text_windows import Windowed, windowed
from distill_jax.data.tokenise import TokenTable, tokenise_dataset
from distill_jax.data.wordpiece import kept_wordpiece
from distill_jax.models.build import language_family
from distill_jax.models.hf_tokenizer import load_tokenizer, special_tokens
from distill_jax.models.loaded import Loaded
from distill_jax.tasks.language.cells import Asks, LanguageDataConfig, LanguageSetup

EVALUATION_BATCH = 64


@dataclass(frozen=True, eq=False)
class LanguageTexts:
    """Texts and tokeniser of cells that share them.

    Attributes:
      tables: by split.
      vocab_size: of the tokeniser.
      coverage: of each split.
      notes: what was decided about the data.
    """

    config: LanguageDataConfig
    tokenizer_file: Path
    vocab_size: int
    tables: Mapping[str, LanguageTable]
    digest: str
    coverage: Mapping[str, Coverage]
    notes: tuple[str, ...] = ()

    @property
    def longest(self) -> int:
        """Tokens of the longest text of all splits."""
        return max(int(table.lengths_N.max()) for table in self.tables.values())

    @functools.cached_property
    def few_lengths(self) -> tuple[int, ...]:
        """Of batches of evaluation."""
        return self.lengths(EVALUATION_BATCH, 3)

    @functools.lru_cache(maxsize=8)  # noqa: B019  texts live as long as the table
    def lengths(self, batch_size: int, max_shapes: int) -> tuple[int, ...]:
        """Lengths of training batches."""
        lengths_N = np.append(self.tables["train"].lengths_N, self.longest)
        return choose_lengths(lengths_N, batch_size=batch_size, max_shapes=max_shapes)

    def told(self) -> Iterator[str]:
        """What a person should know before training, line by line."""
        yield from (f"data: {note}" for note in self.notes)
        counts = ", ".join(f"{len(table):,} {split}" for split, table in self.tables.items())
        tokens = len(self.tables["train"].tokens.tokens_S)
        yield (
            f"{self.config.name}: texts: {counts}; {tokens:,} training tokens of a vocabulary of "
            f"{self.vocab_size:,}"
        )
        yield from (f"data: {line}" for line in in_words(self.coverage, self.config.max_length))


def load_models(setup: LanguageSetup) -> tuple[Loaded | None, Loaded | None]:
    """The model that a cell starts from, and the one that it hears.

    Raises:
      UserError: where one cannot be had, or they read other tokens.
    """
    load = functools.partial(_loaded, setup.asks)
    start, teacher = (load(name) if name else None for name in (setup.start, setup.teacher))
    if start and teacher and sha256_file(_file(start)) != sha256_file(_file(teacher)):
        raise UserError(
            f"{setup.start} and its teacher {setup.teacher} have different tokenisers: a loss a "
            "token compares the same tokens"
        )
    if teacher and teacher.fresh:
        raise UserError(f"teacher {setup.teacher}: {'; '.join(teacher.notes)}")
    return start, teacher


@functools.lru_cache(maxsize=8)
def _loaded(asks: str, name: str) -> Loaded:
    return language_family(asks).load(name)


def _file(model: Loaded) -> Path:
    assert model.tokenizer_file is not None
    return model.tokenizer_file


def prepare_texts(
    config: LanguageDataConfig, asks: Asks, tokenizer_file: Path | None
) -> LanguageTexts:
    """The texts, tokenised, by a tokeniser that is there or that is trained on them.

    Args:
      tokenizer_file: None to train one.

    Raises:
      UserError: for data that cannot be had.
    """
    corpus = load_corpus(config.name, text=config.text)
    notes = corpus.notes
    if tokenizer_file is None:
        tokenizer_file = kept_wordpiece(
            corpus.splits["train"].texts,
            config.vocab_size,
            lowercase=config.lowercase,
            home=home(),
        )
    tokens = tokenise_dataset(
        corpus, tokenizer_file, max_length=config.max_length, cache=home() / "tokens"
    )
    tokenizer = load_tokenizer(tokenizer_file)
    tables: dict[str, LanguageTable] = {}
    coverage = dict(tokens.coverage)
    for split, table in tokens.splits.items():
        if asks == "next":
            own = _read_on(config, corpus, tokenizer_file, split, table)
            tables[split] = NextTokens(own.tokens, own.asked_S)
            coverage[split] = dataclasses.replace(coverage[split], cut=0.0)
            notes = (*notes, *_windows_told(own, split, config.max_length))
        else:
            tables[split] = _masked(config, corpus, tokenizer, tokenizer_file, split, table)
    return LanguageTexts(
        config,
        tokenizer_file,
        tokenizer.get_vocab_size(with_added_tokens=True),
        tables,
        digest({split: table.digest for split, table in tables.items()}),
        coverage,
        notes,
    )


def _read_on(
    config: LanguageDataConfig, corpus: Corpus, file: Path, split: str, tokens: TokenTable
) -> Windowed:
    """A split of which no text is cut."""
    tokens = dataclasses.replace(tokens, scores_N=None)
    return windowed(tokens, corpus.splits[split].texts, file, max_length=config.max_length)


def _windows_told(own: Windowed, split: str, max_length: int) -> list[str]:
    """A line where there are some."""
    if not own.long:
        return []
    return [
        f"{split}: {own.long:,} texts of more than {max_length} tokens are read on in "
        f"{own.further:,} further windows; each token is asked for once"
    ]


def _masked(
    config: LanguageDataConfig,
    corpus: Corpus,
    tokenizer: Tokenizer,
    file: Path,
    split: str,
    tokens: TokenTable,
) -> MaskedTexts:
    tokens = dataclasses.replace(tokens, scores_N=None)
    names = frozenset(special_tokens(tokenizer).values())
    vocabulary = masking_of(tokenizer, names, file)
    if config.words == "spaces":
        begins_S = begins_by_spaces(corpus.splits[split].texts, tokens, tokenizer)
    else:
        begins_S = begins_by_pieces(tokens, vocabulary)
    return MaskedTexts(tokens, vocabulary, begins_S, config.mask_share)
