"""Families of models: each is one file that ends with ``register``; nobody else asks for a kind."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.files import atomic_folder, save_tensors
from distill_jax.core.types import ModelShape, TokenRange, as_batch
from distill_jax.models.bert import Params
from distill_jax.models.hf_config import read_json, write_json
from distill_jax.models.hf_folder import CONFIG, check_tokenizer
from distill_jax.models.hf_tokenizer import TOKENIZER
from distill_jax.models.hf_weights import WEIGHTS
from distill_jax.models.loaded import (
    UNSAID,
    Loaded,
    TextInputs,
    check_free,
    check_names,
    flat_arrays,
    model_digest,
    read_params,
)

ImageShape = tuple[int, int, int]
"""Height, width and channels."""


OWN = "distill_jax_"
"""How the model types begin of what no other software reads."""


class ModelConfig(Hashable, Protocol):
    """What everybody may know of a classifier: a frozen dataclass with these."""

    @property
    def num_labels(self) -> int:
        """Classes."""

    @property
    def shape(self) -> ModelShape:
        """What objectives have to know."""

    @property
    def token_range(self) -> TokenRange:
        """What it has embeddings for."""


@dataclasses.dataclass(frozen=True)
class Family:
    """A kind of models.

    Attributes:
      name: of the kind.
      config_type: the class of its configs, frozen dataclasses that belong to no other family.
      module: the class of its modules, ``module(config)``; with ``dtype`` and ``remat`` where it
        has such fields.
      embeddings: path in its parameters to the embeddings of tokens, [``config.vocab_size``, D],
        which nothing but token ids reads; () for none.
    """

    name: str
    config_type: type
    module: type[nn.Module]
    embeddings: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)

    @property
    def has_dtype(self) -> bool:
        """Whether its modules can compute in another dtype than float32."""
        return "dtype" in _fields(self)

    def build(self, config: Any, dtype: Any = jnp.float32, remat: bool = False) -> nn.Module:
        """The module: ``apply({"params": params}, batch, train=...)`` gives an output.

        Args:
          dtype: of the computation; parameters and outputs stay float32.
          remat: compute inner activations again in the backward pass, to save memory.

        Raises:
          UserError: for what the module does not know.
        """
        given = {"dtype": dtype, "remat": remat}
        known = {name: given[name] for name in given if name in _fields(self)}
        if remat and "remat" not in known:
            raise UserError(f"--remat is for BERTs: a {self.module.__name__} keeps its activations")
        if dtype != jnp.float32 and "dtype" not in known:
            able = [each.module.__name__ for each in _FAMILIES.values() if each.has_dtype]
            raise UserError(
                f"{self.module.__name__} computes in float32 alone: leave --precision at f32, or "
                f"take another model ({', '.join(able)})"
            )
        return self.module(config, **known)


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """Folders of a family's models that other software loads by its own classes.

    Attributes:
      save: (folder, config, params, tokenizer_file, label_names, inputs): fills an empty folder.
      load: (folder) -> ``Loaded``: reads what ``save`` wrote.
      usage: (config, pairs) -> Markdown: how it is loaded there.
    """

    save: Callable[..., None]
    load: Callable[[Path], Loaded]
    usage: Callable[[Any, bool], str]


@dataclasses.dataclass(frozen=True)
class Classifiers(Family):
    """Students, and perhaps teachers, that read a ``Batch`` and say a ``ModelOutput``.

    A new family has ``claims`` and ``student``; the rest has a default. Its parameters have a part
    ``classifier``, the head, whose last axis are the classes, and its configs are made of numbers,
    words and tuples of them.

    Attributes:
      names: what its students are called, for people.
      reads: ``texts`` (tokens, as its teacher's tokeniser makes them) or ``images`` (pixels).
      pools: whether ``pooling`` means something to its students.
      tokens: whether they may have a head that reads every token, ``pooling="tokens"``.
      compacts: whether its models are built as BERTs are, so that ``compact_bert.compact`` says
        what they are with fewer heads or in 8-bit integers.
      reference: (folder, token ids, token types, mask) -> logits as other software reads a folder
        of this family; None where no other does.
      elsewhere: how a folder is written and read that other software loads without our code; None
        where no other has such models.
    """

    names: tuple[str, ...] = ()
    reads: str = "texts"
    pools: bool = False
    tokens: bool = False
    compacts: bool = False
    reference: Callable[..., Any] | None = None
    elsewhere: Elsewhere | None = None

    def claims(self, name: str) -> bool:
        """Whether a student of this name is one of the family, whatever else is wrong with it."""
        raise NotImplementedError

    def student(self, name: str, teacher: ModelConfig, **options: Any) -> ModelConfig:
        """The config of a student.

        Args:
          name: one that the family claims.
          teacher: its teacher's, with whom it shares tokens and classes.
          options: ``pooling``, of families where that means something, and ``layers``, of students
            that copy some, see ``students``.

        Raises:
          UserError: for a name that goes wrong, or a teacher that such a student cannot have.
        """
        raise NotImplementedError

    def copies(self, name: str) -> bool:
        """Whether such a student starts from layers of its teacher."""
        return False

    def start(self, name: str, teacher: Loaded, rng: Array, **options: Any) -> Params:
        """Where a student starts; by default from fresh parameters.

        Args:
          teacher: the checkpoint before it was fine-tuned.
          options: as in ``student``.
        """
        return self.init(self.student(name, teacher.config, **options), rng)

    def check_narrowed(self, what: str, name: str, teacher: ModelConfig, **options: Any) -> None:
        """Raises ``UserError`` where such a student has no such start, see ``narrowed``."""
        raise UserError(f"student {name!r} of the family {self.name!r} has no start {what!r}")

    def narrowed(self, what: str, name: str, teacher: Loaded, rng: Array, **options: Any) -> Params:
        """A start from a wider teacher, see ``starts``, that ``check_narrowed`` allows.

        Args:
          what: ``embeddings`` or ``truncated``.
        """
        raise NotImplementedError

    def claims_teacher(self, name: str) -> bool:
        """Whether a teacher of this name is one of the family, and starts by chance."""
        return False

    def alone(
        self, name: str, num_labels: int, image: ImageShape | None = None
    ) -> ModelConfig | None:
        """The config of a teacher that starts by chance; None for a name that is none.

        Args:
          image: height, width and channels of the images that it reads.
        """
        return None

    def rounds(self, config: Any) -> bool:
        """Whether such a model computes in few bits, where sums of floats in another order may
        move a number by a step."""
        return False

    def init(self, config: Any, rng: Array) -> Params:
        """Fresh float32 parameters, drawn from a jax random key."""
        batch = as_batch(jnp.zeros((1, 2), jnp.int32), jnp.ones((1, 2), bool))
        return self.build(config).init(rng, batch)["params"]

    def embedding_width(self, config: Any) -> int:
        """Of the embeddings of tokens, in families that have some."""
        return getattr(config, "embedding_size", None) or config.shape.hidden_size

    @property
    def model_type(self) -> str:
        """In ``config.json`` of a saved model."""
        return f"{OWN}{self.name}"

    def keeps_its_own(self, folder: Path) -> bool:
        """Whether a folder is in a form that only we read, not a checkpoint that others have."""
        file = folder / CONFIG
        own = self.model_type.startswith(OWN)
        return own and file.is_file() and read_json(file).get("model_type") == self.model_type

    def opens(self, model_type: Any) -> bool:
        """Whether ``load`` reads folders whose ``config.json`` has this ``model_type``."""
        return model_type == self.model_type

    def save(
        self,
        folder: Path,
        config: Any,
        params: Params,
        tokenizer_file: Path | None,
        label_names: Sequence[str],
        inputs: TextInputs = UNSAID,
    ) -> None:
        """Write a folder that ``load`` opens, whole or not at all.

        Raises:
          UserError: the folder exists and is not empty, or the label names do not fit the head.
        """
        check_free(folder)
        check_names(label_names, config.num_labels)
        raw: dict[str, Any] = {
            "model_type": self.model_type,
            **dataclasses.asdict(config),
            "label_names": list(label_names),
            "digest": model_digest(config, params),
        }
        if tokenizer_file is not None:
            raw["inputs"] = dataclasses.asdict(inputs)
        with atomic_folder(folder) as scratch:
            write_json(scratch / CONFIG, raw)
            save_tensors(scratch / WEIGHTS, flat_arrays(params))
            if tokenizer_file is not None:
                shutil.copyfile(tokenizer_file, scratch / TOKENIZER)

    def load(self, folder: Path) -> Loaded:
        """Read what ``save`` wrote, and verify it against the digest written with it.

        Raises:
          UserError: a file is missing, damaged, changed, or of another family.
        """
        where = folder / CONFIG
        raw = read_json(where)
        if raw.pop("model_type", None) != self.model_type:
            raise UserError(f"{where} is not of a {self.model_type}.")
        try:
            names, expected = tuple(map(str, raw.pop("label_names"))), raw.pop("digest")
            inputs = TextInputs(**raw.pop("inputs", {}))
            fields = {name: tuple(x) if type(x) is list else x for name, x in raw.items()}
            config: Any = self.config_type(**fields)
        except (KeyError, TypeError, UserError) as error:
            raise UserError(f"{where} is damaged: {error}") from error
        if len(names) != config.num_labels:
            raise UserError(f"{where}: {len(names)} label names for a head of {config.num_labels}.")
        params = read_params(folder, lambda rng: self.init(config, rng))
        if (found := model_digest(config, params)) != expected:
            raise UserError(f"{folder} is damaged: its content has changed since it was saved.")
        tokenizer = folder / TOKENIZER if (folder / TOKENIZER).is_file() else None
        if tokenizer is not None:
            check_tokenizer(tokenizer, config.token_range.tokens)
        return Loaded(config, params, tokenizer, found, names, inputs=inputs)


_FAMILIES: dict[type, Family] = {}
F = TypeVar("F", bound=Family)


def _fields(family: Family) -> Any:
    return family.module.__dataclass_fields__


def register(family: F) -> F:
    """Make a family known.

    Raises:
      UserError: when another has its name or its configs.
    """
    if family.config_type in _FAMILIES or family.name in {f.name for f in _FAMILIES.values()}:
        raise UserError(f"a family of models {family.name!r} is there already.")
    _FAMILIES[family.config_type] = family
    return family


def registered(kind: type[F]) -> tuple[F, ...]:
    """The families of a kind, in the order of their registration."""
    return tuple(each for each in _FAMILIES.values() if isinstance(each, kind))


def family_of(config: Any) -> Any:
    """The family of a config.

    Raises:
      TypeError: for anything else.
    """
    if type(config) not in _FAMILIES:
        raise TypeError(f"no model for a {type(config).__name__}")
    return _FAMILIES[type(config)]
