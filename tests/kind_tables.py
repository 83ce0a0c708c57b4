"""Runs a table of ``compare-losses`` in a folder, for tests."""

import io

import numpy as np
from compressed import compressed
from rich.console import Console

from distill_jax.cli.compare import sweep_of
from distill_jax.cli.main import dispatch
from distill_jax.compression.report import score_told, to_markdown
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.export.runtime import open_any
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


def made_smaller(folder, kind, steps, output):
    """Carries out the steps on the student of a table's last row; each hop has the score of its
    kind, and opens."""
    result, _ = compressed(folder, steps, output)
    first, *others = [hop.row.metrics for hop in result.hops]
    rows = Ledger(folder.parents[1] / "ledger.jsonl").rows()
    assert first[f"test/{kind.main}"] == rows[-1].metrics[f"test/{kind.main}"]
    assert len(others) == steps.count("->") + 1
    for hop in result.hops:
        at = hop.row.metrics
        assert hop.kept and np.isfinite(at[f"validation/{kind.main}"])
        assert at["test/low"] - 1e-6 <= at[f"test/{kind.main}"] <= at["test/high"] + 1e-6
        texts = ["good"], ["the good film"]
        (answer,) = open_any(hop.folder).classify(*(texts if kind.pairs else texts[1:]))
        assert isinstance(answer.label, str)
    if steps.startswith("vocabulary"):
        told = kind.head != "tokens" and "test/fidelity" in first
        assert ("test/fidelity" in others[0]) == told  # the teacher reads other tokens
        assert others[0]["test/agreement"] == 1.0  # no token went that occurs
        assert others[-1]["bytes"] < others[-2]["bytes"]
    assert f"\n{score_told(kind)} with the 95% interval" in to_markdown(result)
    again, _ = compressed(folder, steps, output)
    assert [hop.row for hop in again.hops] == [hop.row for hop in result.hops]


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
