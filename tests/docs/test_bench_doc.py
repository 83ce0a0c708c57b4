"""docs/bench.md against the command: its flags, and what it says of them."""

import dataclasses
import re
import shlex
from pathlib import Path

from distill_jax.cli.bench import Bench
from distill_jax.cli.run import parse_flags
from distill_jax.export.bench import SHAPES

PAGE = (Path(__file__).parents[2] / "docs/bench.md").read_text(encoding="utf-8")


def test_its_command_is_read():
    (line,) = re.findall(r"^distill-jax bench (.*)$", PAGE, flags=re.M)
    arguments = shlex.split(line.replace("[HASH ...]", "more"))
    args = parse_flags(Bench, arguments, "bench")
    assert len(args.runs) == 2 and args.output == Path("bench.md")


def test_its_flags_are_flags():
    named = set(re.findall(r"--([a-z][a-z-]+)", PAGE))
    known = {field.name.replace("_", "-") for field in dataclasses.fields(Bench)}
    assert named <= known and {"sentences", "batches", "warmup", "repeats", "input"} <= named


def test_its_numbers_and_runtimes_are_those_of_the_code():
    assert f"one of at most {SHAPES} lengths" in PAGE
    assert f"`--runtimes {Bench(runs=()).runtimes}`" in PAGE
