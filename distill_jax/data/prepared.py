"""TFDS builders written to and read from ArrayRecord files, without TensorFlow."""

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill_jax.core.errors import UserError
from distill_jax.core.files import home as default_home

FILE_FORMAT = "array_record"
TRAIN, VALIDATION = 0.8, 0.9
"""A hash below ``TRAIN`` goes to train, below ``VALIDATION`` to validation, else to test."""


def data_dir(home: Path | None = None) -> Path:
    """Where prepared data sets live."""
    return (home or default_home()) / "tfds"


def split_of(unit: float) -> str:
    """The split that a hash in [0, 1) falls into: 80% train, 10% validation, 10% test."""
    return "train" if unit < TRAIN else "validation" if unit < VALIDATION else "test"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """TFDS without its progress bars, its announcements and its warnings about absent data."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def prepare(builder: Any) -> None:
    """Write a builder's data unless it is there; another process may win the race."""
    import tensorflow_datasets as tfds

    config = tfds.download.DownloadConfig(try_download_gcs=False)
    with quiet():
        if builder.is_prepared():
            return
        try:
            builder.download_and_prepare(download_config=config, file_format=FILE_FORMAT)
        except OSError:
            if not builder.is_prepared():
                raise


def read(builder: Any, split: str) -> Iterator[dict[str, Any]]:
    """The examples of a prepared split; text comes as ``str``.

    Raises:
      UserError: if the files cannot be read or some of them are gone.
    """
    where = builder.data_path
    mend = f"Delete the folder {where} to have it made again."
    try:
        source = builder.as_data_source(split=split)
        expected = builder.info.splits[split].num_examples
        if len(source) != expected:
            raise ValueError(f"{len(source)} examples instead of {expected}")
        examples = source.__getitems__(list(range(len(source)))) if expected else []
    except (OSError, ValueError, RuntimeError, IndexError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise UserError(f"prepared data in {where} cannot be read: {reason}. {mend}") from error
    for example in examples:
        yield {
            name: value.decode() if isinstance(value, bytes) else value
            for name, value in example.items()
        }
