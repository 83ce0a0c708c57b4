"""docs/compression.md says what is so."""

import dataclasses
import re
import shlex
from pathlib import Path

from distill_jax.cli.compress import Compress
from distill_jax.cli.run import parse_flags
from distill_jax.compression.grammar import parse_steps
from distill_jax.compression.kinds import kinds
from distill_jax.models.compact_bert import COMPACT_BERTS
from distill_jax.training.pruning import Pruning

PAGE = (Path(__file__).resolve().parents[2] / "docs/compression.md").read_text(encoding="utf-8")


def test_the_commands_that_it_shows_are_read():
    shown = re.findall(r"distill-jax compress ([^\n]*)", PAGE)
    assert len(shown) == 4
    for arguments in shown:
        flags = parse_flags(Compress, shlex.split(arguments), "compress")
        assert flags.run == Path("RUN") and parse_steps(flags.steps)


def test_its_table_names_every_step_and_option_with_its_default():
    rows = re.findall(r"^\| `(\w+)[^|]*\| ([^|]*)\|", PAGE, flags=re.M)
    assert {name for name, _ in rows} == set(kinds())
    for name, options in rows:
        for field in dataclasses.fields(kinds()[name]):
            if name == "int8" and field.name in ("objective", "epochs", "steps", "rate"):
                continue  # "those of distil"
            if (name, field.name) == ("prune", "share"):
                assert f"`prune({field.default})`" in PAGE
                continue
            assert field.name in options, (name, field.name)
            for shown in re.findall(rf"`{field.name}=([\w.]+)`", options):
                default = str(field.default).lower().removesuffix(".0")
                assert shown == default, (name, field.name)


def test_its_numbers_and_names_are_those_of_the_code():
    assert COMPACT_BERTS.model_type in PAGE
    assert f"first {100 * Pruning().until:.0f}% of the steps" in PAGE
    assert "(1 by default)" in PAGE and Compress(Path(), "").max_drop == 1
