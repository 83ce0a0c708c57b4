"""docs/pretraining.md says what is so: its commands run, its numbers are those of the code."""

import json
import re
import shlex
from pathlib import Path

import pytest
from language_tables import on_one_device, write_texts

from distill_jax.cli.compare import parse_arguments
from distill_jax.cli.main import dispatch
from distill_jax.cli.pretrain import RUN, Pretrain
from distill_jax.cli.run import parse_flags
from distill_jax.data import corpus, coverage, language_tables
from distill_jax.models.decoder import MODEL_TYPE
from distill_jax.tasks.language.cells import LanguageDataConfig

PAGE = (Path(__file__).resolve().parents[2] / "docs/pretraining.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^    distill-jax (\S+) ?([^\n]*)", PAGE, flags=re.M)
SMALL = [
    "--steps",
    "1",
    "--evaluations",
    "1",
    "--max-length",
    "16",
    "--batch-size",
    "8",
    "--track",
    "none",
]


def test_every_command_it_shows_is_one():
    forms = {"pretrain": lambda given: parse_flags(Pretrain, given, "pretrain")}
    forms["compare-losses"] = lambda given: parse_arguments(given, "compare-losses")
    assert len(SHOWN) == 9
    for command, arguments in SHOWN:
        forms[command](shlex.split(arguments))


@pytest.mark.long
def test_its_models_are_made_one_from_another(tmp_path, monkeypatch):
    """As the page has it, but small; ``tests/cli/test_pretrain.py`` runs one."""
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    on_one_device(monkeypatch)
    monkeypatch.chdir(tmp_path)
    texts = write_texts(tmp_path, 120).rename("shop.txt").read_text().splitlines()
    Path("shop").mkdir()
    rows = [json.dumps({"review": text}) for text in texts]
    Path("shop/train.jsonl").write_text("\n".join(rows))
    for command, arguments in SHOWN:
        if command != "pretrain":
            continue
        smaller = re.sub(r"--size \S+|--epochs \S+|--vocab-size \S+", "", arguments)
        output = smaller.split("--output ")[1]
        size = [] if "--from" in arguments else ["--size", "1x8x2"]
        dispatch([command, *shlex.split(smaller), *size, "--vocab-size", "80", *SMALL])
        assert (Path(output) / RUN).is_file()
    first, then = (Path(name) / "tokenizer.json" for name in ("shop-bert", "shop-bert-2"))
    assert first.read_bytes() == then.read_bytes()


def test_its_numbers_are_those_of_the_code():
    assert f"from {100 * coverage.WARNED:.0f}% on" in PAGE
    assert f"{100 * corpus.HELD_OUT:.0f}% of the texts become each" in PAGE
    assert f"{100 * LanguageDataConfig().mask_share:.0f}% of a text's tokens" in PAGE
    masked, random = 100 * language_tables.MASKED, 100 * language_tables.RANDOM
    assert f"{masked:.0f}% become `[MASK]`, {random:.0f}% another token" in PAGE
    assert MODEL_TYPE in PAGE and RUN in PAGE
