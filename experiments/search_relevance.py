"""Search: a cross-encoder teaches two-tower students (Margin-MSE, KL over lists).

    python experiments/search_relevance.py
    python experiments/search_relevance.py --preset smoke
    python experiments/search_relevance.py --data esci:FOLDER

"Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge Distillation"
(Hofstätter et al. 2020). The data travel in a package: the catalogue of Font Awesome Free, 1,393
icons as text, and the 3,345 search terms that its makers gave them. They are real search terms of
a real catalogue, though no shoppers' queries. Judgements of half of the training terms are used;
the other half is the transfer set, on which only the teacher speaks.
"""

from pathlib import Path

from distill_jax.cli.experiment import Flags
from distill_jax.cli.run import parse_flags, run
from distill_jax.sweeps.search.cells import (
    SearchCell,
    SearchDataConfig,
    SearchSweep,
    SearchTeacherConfig,
    SearchTraining,
)
from distill_jax.training.optimizer import OptimizerConfig

ROWS = {
    "labels": {"objective": "ce"},
    "labels + Margin-MSE": {"objective": "ce + 0.1*margin_mse"},
    "labels + KL": {"objective": "ce + kl"},
    "KL": {"objective": "kl"},
    "labels + KL, no transfer set": {"objective": "ce + kl", "transfer": False},
    "labels + KL, shuffled teacher": {"objective": "ce + kl", "hears": "shuffled"},
}


def declare(flags: Flags) -> SearchSweep:
    """Objectives x seeds, one student."""
    smoke = flags.preset == "smoke"
    teacher = SearchTeacherConfig(
        training=SearchTraining(
            steps=8 if smoke else 120,
            evaluations=1 if smoke else 3,
            batch_size=4 if smoke else 16,
            list_size=4 if smoke else 6,
            optimizer=OptimizerConfig(learning_rate=1e-4),
        ),
        candidates=4 if smoke else 16,
    )
    base = SearchCell(
        data=SearchDataConfig(flags.data or "icon_search"),
        teacher=teacher,
        student="2x64x2",
        training=SearchTraining(
            steps=20 if smoke else 300,
            evaluations=2 if smoke else 3,
            list_size=4 if smoke else 8,
            optimizer=OptimizerConfig(learning_rate=3e-3),
        ),
    )
    names = ("labels", "labels + KL") if smoke else tuple(ROWS)
    return SearchSweep(
        name="search_relevance",
        title=f"{base.data.name}: a cross-encoder teaches two towers",
        base=base,
        rows={name: ROWS[name] for name in names},
        groups={base.student: {}},
        seeds=flags.seeds or ((0,) if smoke else (0, 1, 2)),
        protocol=(
            f"Students: one tower for queries and products (2 layers, width 64), embeddings from "
            f"the encoder's in every row, the rest at random; {base.training.steps} steps of "
            f"{base.training.batch_size} queries with {base.training.list_size} products each, "
            "which go on with the batch's other relevant products.",
            f"{100 * base.data.label_fraction:g}% of the training queries keep their judgements; "
            "the others are the transfer set of the rows that hear a teacher.",
            "The teacher is MiniLM-L6 as cross-encoder; its output is added to the cosine (times "
            "20) of the MiniLM that it starts from. It is trained for "
            f"{teacher.training.steps} steps of {teacher.training.batch_size} on the same "
            f"judgements. Its row reorders the {teacher.candidates} products that MiniLM finds as "
            "it came: it finds no others.",
        ),
    )


def main() -> None:
    """Parse, run, write and print."""
    import sys

    flags = parse_flags(Flags, sys.argv[1:], Path(sys.argv[0]).name)

    from distill_jax.cli.results import conclude, open_console
    from distill_jax.sweeps.progress import Reporter
    from distill_jax.sweeps.search.run import run_search

    sweep = declare(flags)
    console = open_console()
    reporter = Reporter(console)
    suffix = "" if flags.preset == "default" else f"-{flags.preset}"
    folder = (flags.output_dir or Path("results")) / f"{sweep.name}{suffix}"
    reporter.say(f"{sweep.name}: {sweep.title}")
    spec, rows = run_search(sweep, folder, reporter, options=flags.options)
    conclude(spec, rows, folder, console)


if __name__ == "__main__":
    run(main)
