"""Where a pretrained model's files are: a local folder or the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill_jax.core.digests import digest, sha256_file
from distill_jax.core.errors import UserError, panics_reported
from distill_jax.core.files import home as default_home
from distill_jax.core.files import user_path, write_atomic
from distill_jax.models.hf_config import read_json

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
_VOCAB = "vocab.txt"
_TOKENIZER_CONFIG = "tokenizer_config.json"
_HUB_FILES = (
    CONFIG,
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
    TOKENIZER,
    _VOCAB,
    _TOKENIZER_CONFIG,
)
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def find_folder(reference: str | Path) -> Path:
    """The folder of a model: ``reference`` itself, or the hub's snapshot of that id.

    Only configuration, safetensors and tokeniser files are fetched; no code is, or is run.

    Raises:
      UserError: neither a folder nor reachable on the hub.
    """
    folder = user_path(reference)
    if folder.is_dir():
        return folder
    text = str(reference)
    if isinstance(reference, Path) or text.startswith((".", "~")) or not _HUB_ID.fullmatch(text):
        raise UserError(f"no folder {text!r}. {_layout()}")
    import huggingface_hub  # slow to import, needed only here

    try:
        return Path(huggingface_hub.snapshot_download(text, allow_patterns=list(_HUB_FILES)))
    except Exception as error:  # whatever its network stack raises, the user's way out is one
        cause = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise UserError(
            f"{text!r} is no local folder and the Hugging Face hub did not give it "
            f"({type(error).__name__}: {cause}). Offline, {_layout()}"
        ) from error


def find_tokenizer(folder: Path, *, vocab_size: int, home: Path | None = None) -> Path:
    """The ``tokenizer.json`` of a model's folder; made from ``vocab.txt`` where it is missing.

    What is made is kept under ``home`` by the digest of what it was made of.

    Raises:
      UserError: neither file, a damaged one, or more tokens than the model has embeddings for
        (their ids would be clamped in silence).
    """
    from tokenizers import Tokenizer

    file = folder / TOKENIZER
    if not file.is_file():
        if not (folder / _VOCAB).is_file():
            raise UserError(f"{folder} has neither {TOKENIZER} nor {_VOCAB}. {_layout()}")
        file = _tokenizer_from_vocab(folder, home or default_home())
    try:
        tokenizer = Tokenizer.from_file(str(file))
        # The words and what is put around them: each names its own ids.
        around = tokenizer.encode("a").ids + tokenizer.encode("a", "b").ids
        largest = max([*tokenizer.get_vocab().values(), *around], default=0)
    except BaseException as error:  # tokenizers raises bare Exception, and panics
        raise UserError(
            f"{file} is damaged or not a tokeniser: {panics_reported(error)}."
        ) from error
    if largest >= vocab_size:
        raise UserError(
            f"{file} has {largest + 1} tokens, the model has embeddings for {vocab_size}: they do "
            "not belong together."
        )
    return file


def _tokenizer_from_vocab(folder: Path, home: Path) -> Path:
    from tokenizers import BertWordPieceTokenizer

    options_file = folder / _TOKENIZER_CONFIG
    options: Mapping[str, Any] = read_json(options_file) if options_file.is_file() else {}
    settings = {  # defaults are those of transformers' BertTokenizer
        "lowercase": options.get("do_lower_case", True),
        "strip_accents": options.get("strip_accents"),
        "handle_chinese_chars": options.get("tokenize_chinese_chars", True),
    }
    vocab = folder / _VOCAB
    name = digest({"vocab": sha256_file(vocab), "settings": settings})
    target = home / "tokenizers" / name / TOKENIZER
    if target.is_file():
        return target
    words = vocab.read_bytes().decode("utf-8", errors="replace").splitlines()
    lacking = [word for word in ("[PAD]", "[UNK]", "[CLS]", "[SEP]") if word not in words]
    if lacking:
        raise UserError(f"{vocab} lacks {', '.join(lacking)}: not a BERT vocabulary.")
    tokenizer = BertWordPieceTokenizer(str(vocab), **settings)
    write_atomic(target, tokenizer.to_str())
    return target


def _layout() -> str:
    return f"a local folder with {CONFIG}, model.safetensors and {TOKENIZER} (or {_VOCAB}) works."
