"""Small classifiers of every family, saved as runs save them."""

import dataclasses
import re
from pathlib import Path

import jax
import jax.numpy as jnp

from distill_jax.evaluation.calibration import write_temperature
from distill_jax.models.build import family_of, load_model
from distill_jax.models.family import Classifiers, registered
from distill_jax.models.loaded import TextInputs

MAX_LENGTH = 24


def text_families():
    """Every registered family of students that read texts, by name."""
    found = (each for each in registered(Classifiers) if each.reads == "texts" and each.names)
    return {each.name: each for each in found}


def small_name(family):
    """Of a student of the family, as small as its names allow."""
    if family.claims("1x8x2"):
        return "1x8x2"
    shown = re.search(r"\((.*?)[,)]", family.names[-1])
    return re.sub(r"\d+", "8", shown[1] if shown else family.names[-1])


def noisy(params, scale=0.3, seed=0):
    """Parameters off their start, biases too, so that nothing in them can be left out unseen."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    moved = [
        x + scale * jax.random.normal(key, jnp.shape(x))
        for x, key in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(tree, moved)


def save_student(
    folder: Path,
    toy_teacher,
    family="bert",
    *,
    pairs=False,
    temperature=1.5,
    outputs=("good", "bad"),
    **options,
):
    """A folder as a finished run leaves it: ``model`` with its temperature."""
    teacher = load_model(toy_teacher)
    shape = {"num_labels": len(outputs)}
    shape |= {"pooling": "tokens"} if options.get("pooling") == "tokens" else {}
    made_for = dataclasses.replace(teacher.config, **shape)
    kind = text_families()[family]
    usual = "mean" if family == "bert" else "pooler"  # the others' own, for other software
    options = {"pooling": usual, **options} if kind.pools else options
    config = kind.student(small_name(kind), made_for, **options)
    scale = 0.1 if family == "mobilebert" else 0.3  # which has no norm that would even it out
    params = noisy(kind.init(config, jax.random.key(1)), scale)
    inputs = TextInputs(MAX_LENGTH, pairs)
    family_of(config).save(
        folder / "model", config, params, teacher.tokenizer_file, outputs, inputs
    )
    write_temperature(folder / "model", temperature)
    return folder
