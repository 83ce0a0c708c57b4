"""A WordPiece tokeniser of one's own texts, as BERT's are made.

Devlin et al. 2019; the pieces are found by merging the commonest pairs (the ``tokenizers``
library). That library numbers the pieces of one character in an order that changes from call to
call, and breaks ties by these numbers; here they are numbered first, so that the same texts always
give the same tokeniser.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from distill_jax.core.digests import digest, digest_strings
from distill_jax.core.errors import UserError
from distill_jax.core.files import write_atomic

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUED = "##"
LEAST, MOST = 64, 1 << 20
"""Of tokens in a vocabulary."""
CHARACTERS = 0.75
"""The largest share of the vocabulary that pieces of one character take."""
_FORMAT = 1


def kept_wordpiece(
    texts: Sequence[str], vocab_size: int, *, lowercase: bool = True, home: Path
) -> Path:
    """The ``tokenizer.json`` of ``train_wordpiece``, made once and kept under ``home``."""
    made_of = {"texts": digest_strings(texts), "size": vocab_size, "lowercase": lowercase}
    name = digest({"kind": "wordpiece", "format": _FORMAT, **made_of})
    file = home / "tokenizers" / name / "tokenizer.json"
    if not file.is_file():
        tokenizer = train_wordpiece(texts, vocab_size, lowercase=lowercase)
        write_atomic(file, tokenizer.to_str(pretty=True))
    return file


def train_wordpiece(texts: Sequence[str], vocab_size: int, *, lowercase: bool = True) -> Tokenizer:
    """A tokeniser of at most ``vocab_size`` tokens, a function of its arguments.

    Chinese characters stand alone, as BERT has them. Characters that occur once, and the rarest
    beyond ``CHARACTERS`` of the vocabulary, are unknown to it.

    Args:
      lowercase: whether letters lose their case and accents.

    Raises:
      UserError: for a size out of range, or texts without any word.
    """
    if not LEAST <= vocab_size <= MOST:
        raise UserError(f"a vocabulary has from {LEAST} to {MOST} tokens, not {vocab_size}")
    tokenizer = _tokenizer({name: number for number, name in enumerate(SPECIAL)}, lowercase)
    first, continued = _characters(tokenizer, texts, vocab_size)
    if not first:
        raise UserError("there is no word in the texts that a tokeniser could be trained on")
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[*SPECIAL, *first, *continued],
        limit_alphabet=len(first),
        initial_alphabet=first,
        continuing_subword_prefix=CONTINUED,
    )
    tokenizer.train_from_iterator(texts, trainer, length=len(texts))
    ordered = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return _tokenizer({token: number for number, (token, _) in enumerate(ordered)}, lowercase)


def _tokenizer(vocabulary: Mapping[str, int], lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(dict(vocabulary), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUED)
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def _characters(
    tokenizer: Tokenizer, texts: Sequence[str], vocab_size: int
) -> tuple[list[str], list[str]]:
    """Pieces of one character: those that begin a word, and those that go on with one; the
    commonest first, equally common ones by code point."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(tokenizer.normalizer.normalize_str(text))
    inside = {character for word in _words(tokenizer, texts) for character in word[1:]}
    first: list[str] = []
    continued: list[str] = []
    room = int(CHARACTERS * (vocab_size - len(SPECIAL)))
    for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if character.isspace():
            continue
        room -= 1 + (character in inside)
        if count < 2 or room < 0:
            break
        first.append(character)
        continued += [f"{CONTINUED}{character}"] if character in inside else []
    return first, continued


def _words(tokenizer: Tokenizer, texts: Sequence[str]) -> list[str]:
    """Every word of the texts, once."""
    words = Tokenizer(models.WordLevel({}, unk_token="[UNK]"))
    words.normalizer, words.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    trainer = trainers.WordLevelTrainer(vocab_size=1 << 31, show_progress=False)
    words.train_from_iterator(texts, trainer, length=len(texts))
    return list(words.get_vocab())
