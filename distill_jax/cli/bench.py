"""``distill-jax bench``: what finished models cost where they run, beside their teacher."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from distill_jax.cli.run import parse_flags
from distill_jax.core.errors import UserError, unknown
from distill_jax.core.files import write_atomic

if TYPE_CHECKING:
    import numpy as np

    from distill_jax.evaluation.answers import Form
    from distill_jax.export.bench import Measured
    from distill_jax.export.contenders import Entrant
    from distill_jax.export.plan import BenchPlan

ENDINGS = (".json", ".md")


@dataclass(frozen=True)
class Bench:
    """Size, memory, latency and throughput of finished models on the CPU, in one table.

    The teacher stands first, and every figure has beside it what it is times the teacher's.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of runs (results/compare_losses/runs/HASH), or exported ones."""
    teacher: Path | None = None
    """The run that is 1.0; by default the teacher of the first run, else the first folder."""
    runtimes: str = "jax,onnx,onnx-int8"
    """Under which runs are measured, with commas between; an exported folder is measured as it
    is."""
    input: Path | None = None
    """A file of texts, one a line, instead of the test split that the runs were trained beside;
    for models that read two, a file with the columns text and text_b, or question and context."""
    sentences: int = 100
    """How many are asked one at a time."""
    batches: int = 10
    """Of --batch-size texts, for the throughput."""
    batch_size: int = 32
    warmup: int = 2
    """Rounds that do not count."""
    repeats: int = 7
    """Rounds that count: each text, and each batch, stands with its median over them."""
    output: Path | None = None
    """Where the table goes too: FILE.md, or FILE.json with every figure."""


def main(arguments: Sequence[str]) -> None:
    """Open everything, measure in rounds, print the table."""
    args = parse_flags(Bench, arguments, "distill-jax bench")
    if not args.runs:
        raise UserError("no run: name folders, distill-jax bench results/compare_losses/runs/HASH")
    if args.output is not None and args.output.suffix not in ENDINGS:
        raise unknown("ending of --output", args.output.suffix, ENDINGS)

    from rich.console import Console

    from distill_jax.engine.progress import Reporter
    from distill_jax.export.bench import lengths_of, measure
    from distill_jax.export.contenders import check_runtimes, contenders_of
    from distill_jax.export.plan import BenchPlan
    from distill_jax.tables.bench import bench_markdown

    plan = BenchPlan(args.sentences, args.batches, args.batch_size, args.warmup, args.repeats)
    runtimes = tuple(name.strip() for name in args.runtimes.split(",") if name.strip())
    check_runtimes(runtimes)
    entrants = entrants_of(args)
    columns = columns_of(args, entrants)
    reporter = Reporter(Console(stderr=True))  # the table alone is the output
    with tempfile.TemporaryDirectory() as scratch:
        contenders = [
            contender
            for entrant in entrants
            for contender in contenders_of(entrant, runtimes, Path(scratch), reporter.say)
        ]
        lengths = lengths_of(contenders[0], columns, plan)
        passes = len(contenders) * (plan.warmup + plan.repeats)
        with reporter.stage("timing", passes) as bar:
            measured = measure(
                contenders, columns, plan, lambda done, _: bar.update(done, batch_size=plan.texts)
            )
    rows = [each.as_row() for each in measured]
    facts = _facts(plan, lengths, measured[0])
    table = bench_markdown(rows, facts["about"])
    print(table, end="")
    if args.output is not None:
        whole = json.dumps({**facts, "rows": rows}, indent=1, ensure_ascii=False) + "\n"
        write_atomic(args.output, whole if args.output.suffix == ".json" else table)


def entrants_of(args: Bench) -> list[Entrant]:
    """The teacher, and after it the others."""
    from distill_jax.export.contenders import check_same, enter, teacher_of

    entrants = [enter(run) for run in dict.fromkeys(args.runs)]
    teacher = args.teacher or teacher_of(entrants)
    if teacher is not None:
        first = enter(teacher)
        others = [each for each in entrants if each.folder.resolve() != first.folder.resolve()]
        entrants = [first, *others]
    if args.input is None:
        check_same(entrants)
    return entrants


def columns_of(args: Bench, entrants: Sequence[Entrant]) -> tuple[tuple[str, ...], ...]:
    """The texts that all are asked about."""
    from distill_jax.data.separated import open_text
    from distill_jax.export.contenders import test_texts

    if args.input is None:
        return test_texts(entrants)
    reads = {entrant.columns: entrant for entrant in entrants}
    if len(reads) > 1:
        told = " and ".join(f"{each.folder} {', '.join(names)}" for names, each in reads.items())
        raise UserError(f"--input is one file for all, and {told}: they do not read the same")
    ((names, first),) = reads.items()
    if len(names) > 1:
        return _columns_of_file(args.input, names, first.form)
    if not args.input.is_file():
        raise UserError(f"no file {args.input}")
    with open_text(args.input) as file:
        texts = tuple(line.strip() for line in file)
    if not any(texts):
        raise UserError(f"{args.input} has no text")
    return (tuple(filter(None, texts)),)


def _columns_of_file(path: Path, names: Sequence[str], form: Form) -> tuple[tuple[str, ...], ...]:
    """The texts of a file, column by column."""
    from distill_jax.cli.predict import rows_of_file

    if path.suffix == ".txt":
        raise UserError(f"{path} is a text a line; a file with columns {', '.join(names)} is due")
    rows = list(rows_of_file(path, *names).rows())
    if not rows:
        raise UserError(f"{path} has no text")
    return tuple(tuple(form.text_of(row, name) for row in rows) for name in names)


def _facts(plan: BenchPlan, lengths_NW: np.ndarray, first: Measured) -> dict[str, Any]:
    """What was measured how, for the file and for people."""
    import numpy as np

    from distill_jax.export.bench import SHAPES
    from distill_jax.tables.provenance import cpu_description, package_versions

    own_N, windows = lengths_NW.sum(axis=1), int((lengths_NW > 0).sum())
    tokens = {"median": float(np.median(own_N)), "longest": int(own_N.max())}
    read = ""
    if windows > len(own_N):
        tokens["windows"] = windows
        read = f", read in {windows} windows"
    machine = cpu_description()
    about = [
        f"In brackets: times {first.name} under {first.runtime}. {machine}.",
        f"p50 and p95 are over {len(own_N)} texts of {tokens['median']:.0f} tokens in the median "
        f"and {tokens['longest']} at most{read}, one at a time, from tokens to logits; texts/s "
        f"over {plan.batches} batches of {plan.batch_size}. Each text and each batch stands with "
        f"the median of {plan.repeats} rounds, after {plan.warmup} that do not count. Under jax "
        f"texts are padded to {SHAPES} lengths at most, else to the longest of their batch.",
        "Peak memory is that of a process which loads the model and answers; on disk are the "
        "model and its tokeniser.",
    ]
    return {
        "about": about,
        "machine": machine,
        "packages": package_versions(),
        "plan": dataclasses.asdict(plan),
        "tokens": tokens,
    }
