"""From names, configs and folders to models, whatever family they are of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from distill_jax.core.errors import UserError, unknown
from distill_jax.models import (  # noqa: F401  registered here
    bert_kin,
    bilstm,
    cnn,
    compact_bert,
    decoder,
    masked_bert,
    mlp,
    mobilebert,
    static,
    text_cnn,
)
from distill_jax.models.family import OWN, Classifiers, family_of, registered
from distill_jax.models.hf_config import POOLED, read_json
from distill_jax.models.hf_folder import CONFIG
from distill_jax.models.language import LanguageModels
from distill_jax.models.loaded import Loaded
from distill_jax.models.students import BERTS


def build_model(config: Any, dtype: Any = jnp.float32, remat: bool = False) -> nn.Module:
    """The module of a config, see ``Family.build``."""
    return family_of(config).build(config, dtype, remat)


def families() -> tuple[Classifiers, ...]:
    """All of classifiers."""
    return registered(Classifiers)


def student_family(name: str) -> Classifiers:
    """The family that claims a student's name.

    Raises:
      UserError: none does.
    """
    families = registered(Classifiers)
    for family in families:
        if family.claims(name):
            return family
    raise unknown("student", name, [each for family in families for each in family.names])


def teacher_family(name: str) -> Classifiers:
    """The family of a teacher's name: one whose models start by chance, or that of checkpoints."""
    alone = (each for each in registered(Classifiers) if each.claims_teacher(name))
    return next(alone, BERTS)


def family_in(folder: Path) -> Classifiers:
    """The family of a saved model; BERTs where that cannot be told.

    Raises:
      UserError: it is a model of this package that is no classifier.
    """
    kind = read_json(folder / CONFIG).get("model_type") if (folder / CONFIG).is_file() else None
    for family in registered(Classifiers):
        if family.opens(kind):
            return family
    if not str(kind).startswith(OWN) or kind == POOLED:
        return BERTS
    what = str(kind).removeprefix(OWN).replace("_", " ")
    asked = "; distill-jax recommend asks it" if what in ("recommender", "closed form") else ""
    raise UserError(f"{folder} holds a {what}, which is none of this version's classifiers{asked}")


def language_family(asks: str) -> LanguageModels:
    """The family of language models that answer a question, ``masked`` or ``next``."""
    return next(each for each in registered(LanguageModels) if each.asks == asks)


def load_model(folder: Path) -> Loaded:
    """A classifier of any family.

    Raises:
      UserError: there is none, or it is damaged.
    """
    return family_in(folder).load(folder)
