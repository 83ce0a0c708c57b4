"""docs/recipes.md and docs/augmentation.md: examples run, tables name what there is."""

import re
import shlex
from pathlib import Path

import pytest

from distill_jax.cli.compare import sweep_of
from distill_jax.cli.compare_flags import parse_arguments
from distill_jax.core.calls import Vocabulary, parse_call
from distill_jax.data.augment.augmentation import parse_augmentation
from distill_jax.data.augment.kinds import kinds as augmentations
from distill_jax.data.augment.paraphrases import read_paraphrases
from distill_jax.data.augment.synonyms import read_synonyms
from distill_jax.training.ingredients import base
from distill_jax.training.ingredients.kinds import kinds as ingredients
from distill_jax.training.recipe import parse_recipe

DOCS = Path(__file__).resolve().parents[2] / "docs"
RECIPES, AUGMENTATION = ((DOCS / name).read_text() for name in ("recipes.md", "augmentation.md"))


def blocks(page, kind=""):
    return re.findall(rf"```{kind}\n(.*?)```", page, re.S)


@pytest.fixture(autouse=True)
def own_ingredients(monkeypatch):
    """What an example registers is gone after it."""
    monkeypatch.setattr(base, "_KINDS", dict(base._KINDS))


@pytest.mark.parametrize("page", [RECIPES, AUGMENTATION], ids=["recipes", "augmentation"])
def test_the_examples_run(page):
    codes = blocks(page, "python")
    assert codes
    for code in codes:
        exec(code, {})


def test_an_ingredient_of_ones_own_is_one_like_the_others():
    exec(blocks(RECIPES, "python")[-1], {})
    assert str(parse_recipe("noise(0.2) + rdrop")) == "noise(0.2) + rdrop"


@pytest.mark.parametrize("page", [RECIPES, AUGMENTATION], ids=["recipes", "augmentation"])
def test_the_commands_are_commands(page):
    (shown, *_) = [block for block in blocks(page) if block.startswith("distill-jax")]
    for line in shown.strip().splitlines():
        program, command, *arguments = shlex.split(line)
        assert (program, command) == ("distill-jax", "compare-losses")
        assert sweep_of(parse_arguments(arguments, "doc")).entries()


@pytest.mark.parametrize(("page", "kinds"), [(RECIPES, ingredients), (AUGMENTATION, augmentations)])
def test_the_tables_say_every_kind_with_its_defaults(page, kinds):
    named = re.findall(r"^\| `([a-z]+[^`]*)` \|", page, re.M)
    assert {text.split("(")[0] for text in named} == set(kinds())
    words = Vocabulary(kinds(), "kind", "x")
    for text in named:
        found = parse_call(text.replace("\\|", "|"), words, where="here")
        files = {"file": found.file} if hasattr(found, "file") else {}
        assert found == type(found)(**files), text


def test_the_files_are_read(tmp_path):
    synonyms, paraphrases = blocks(AUGMENTATION)[-2:]
    (tmp_path / "words.txt").write_text(synonyms)
    assert read_synonyms(tmp_path / "words.txt")["film"] == ("movie", "picture")
    (tmp_path / "back.csv").write_text(paraphrases)
    assert len(read_paraphrases(tmp_path / "back.csv")["train-3"]) == 2
    assert str(parse_augmentation("mask(0.2) + mlm(0.1)")) == "mask(0.2) + mlm(0.1)"
