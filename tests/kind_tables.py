"""Runs a table of ``compare-losses`` in a folder, for tests."""

import io

from rich.console import Console

from distill_jax.cli.compare import sweep_of
from distill_jax.cli.main import dispatch
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.tables.ledger import Ledger
from distill_jax.tasks.classification.table import Classification


def run(args, folder, strategy="sequential"):
    """Description and rows of the table, and what was said."""
    out = io.StringIO()
    spec, rows = run_table(
        Classification(sweep_of(args)),
        folder,
        Reporter(Console(file=out, width=300)),
        track=args.track,
        strategy=strategy,
        options=args.options,
    )
    return spec, rows, out.getvalue()


def exported(run, capsys, texts, formats="onnx"):
    """Exports a run, as the command does, and asks the first one: what was printed of it. It
    answers as the run does."""
    capsys.readouterr()
    dispatch(["export", str(run), "--format", formats])
    told = capsys.readouterr()
    said = []
    for folder in (run, run / "export" / formats.split(",")[0]):
        dispatch(["predict", str(folder), *texts])
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    return told.out + told.err


def numbers(folder):
    """What a run must reproduce: everything measured but times."""
    return {
        (row.row, row.seed): (
            {k: v for k, v in row.metrics.items() if not k.startswith("latency/")},
            dict(row.test_scores),
            (folder / "runs" / row.hash / "model/model.safetensors").read_bytes(),
        )
        for row in Ledger(folder / "ledger.jsonl").rows()
    }
