"""Where a pretrained model's files are: a local folder or the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from distill_jax.core.errors import UserError, first_line, panics_reported
from distill_jax.core.files import home as default_home
from distill_jax.core.files import user_path
from distill_jax.models.hf_tokenizer import (
    FILES,
    TOKENIZER,
    VOCAB,
    Found,
    load_tokenizer,
    read_tokenizer,
)

CONFIG = "config.json"
TASK = "task.json"
"""Beside a model of ours that says no single class, see ``evaluation.task_file``."""
_HUB_FILES = (
    CONFIG,
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
    *FILES,
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
        raise UserError(
            f"{text!r} is no local folder and the Hugging Face hub did not give it "
            f"({type(error).__name__}: {first_line(error)}). Offline, {_layout()}"
        ) from error


def find_tokenizer(folder: Path, *, vocab_size: int, home: Path | None = None) -> Found:
    """The ``tokenizer.json`` of a model's folder, see ``hf_tokenizer``.

    What is made is kept under ``home`` by the digest of what it was made of.

    Raises:
      UserError: neither file, or as ``check_tokenizer``.
    """
    if not any((folder / name).is_file() for name in (TOKENIZER, VOCAB)):
        raise UserError(f"{folder} has neither {TOKENIZER} nor {VOCAB}. {_layout()}")
    found = read_tokenizer(folder, home or default_home())
    check_tokenizer(found.file, vocab_size)
    return found


def check_tokenizer(file: Path, vocab_size: int) -> None:
    """Raises ``UserError`` for a damaged tokeniser, or one with more tokens than the model has
    embeddings for (their ids would be clamped in silence)."""
    tokenizer = load_tokenizer(file)
    try:  # The words and what is put around them: each names its own ids.
        around = tokenizer.encode("a").ids + tokenizer.encode("a", "b").ids
    except BaseException as error:  # as in load_tokenizer
        raise UserError(
            f"{file} is damaged or not a tokeniser: {panics_reported(error)}."
        ) from error
    largest = max([*tokenizer.get_vocab().values(), *around], default=0)
    if largest >= vocab_size:
        raise UserError(
            f"{file} has {largest + 1} tokens, the model has embeddings for {vocab_size}: "
            "they do not belong together."
        )


def _layout() -> str:
    return f"a local folder with {CONFIG}, model.safetensors and {TOKENIZER} (or {VOCAB}) works."
