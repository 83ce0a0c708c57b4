"""Ways of distilling a recommender, on MovieLens-100K: a text-reading SASRec teaches a small one.

    python experiments/recommendation.py
    python experiments/recommendation.py --preset smoke
    python experiments/recommendation.py --preset ml-1m --data files:FOLDER   # SASRec's form
    python experiments/recommendation.py --preset cold    # a split in time, items nobody has seen
    python experiments/recommendation.py --rows labels kl "shuffled teacher" --seeds 0
    python experiments/recommendation.py --teacher lightgcn-2x32 --students bpr_mf-16   # a graph
    python experiments/recommendation.py --data files:FOLDER --references popularity,item_knn \\
      --labels "sampled_softmax(n=256)" --min-rating 4 --k-core 5      # a large catalogue

Rows: the student on labels alone, with label smoothing, with the teacher's item vectors as its
start but nothing else of the teacher; then each loss beside the labels' own; last the placebo, a
teacher whose words are dealt to other positions. All take the same steps. What matters is the
distance from the first row to a loss, and from the placebo to it: what the placebo gains is what
any soft label gives. Beside the teacher stand its like that know items by number or by text alone,
popularity and EASE. Tail: targets outside the most popular fifth of the items. Histories longer
than the models look back are learned from in windows; --no-windows takes the newest alone, as most
published figures do.

Leave-one-out leaks the future of other users, see the protocol under the table.

Run time: an hour of one CPU core, as committed, beside other work.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from distill_jax.cli.interaction_flags import InteractionFlags
from distill_jax.cli.run import parse_flags, run

if TYPE_CHECKING:
    from distill_jax.engine.sweep import Sweep
    from distill_jax.tasks.recommendation.cells import RecModel, RecommenderSetup


@dataclass(frozen=True)
class Recommendation(InteractionFlags):
    """Compare ways of distilling a recommender."""

    preset: Literal["default", "smoke", "cold", "ml-1m"] = "default"
    """default: as committed. smoke: the whole path in a few minutes. cold: a split in time, with a
    student that reads texts beside one that knows numbers. ml-1m: for --data of that."""
    split: str | None = None
    """leave-one-out, temporal, temporal:0.8,0.1,all or files; by default the data's own."""
    teacher: str | None = None
    """sasrec-2x64-both by default; -text reads texts alone, without an ending items are numbers;
    -vectors and +vectors (sasrec-2x64-text+vectors) read those of --item-vectors, +features
    (sasrec-2x64-id+features) --item-features; lightgcn-3x64 knows the graph of who took what."""
    students: tuple[str, ...] = ()
    """sasrec-1x16 by default; gru4rec-1x16, bpr_mf-16, sasrec-1x16-text ..."""
    rows: tuple[str, ...] = ()
    """Of the table, by their names; by default the preset's."""
    item_vectors: str | None = None
    """Vectors of items: FILE.npy with FILE.csv beside it (columns row, id), or .safetensors."""
    item_features: str | None = None
    """Fields of items: a table with a column item and one a field (category, price)."""
    privileged: str | None = None
    """Columns of files:FOLDER that say more of each event (dwell,returned), for a teacher whose
    name ends with +privileged (sasrec-2x64-id+privileged); its students do not read them."""
    references: str = "popularity,ease"
    """What stands beside the students without training: popularity, item_knn, ease; "" for none."""
    labels: str | None = None
    """The loss of the labels in every row and of the teacher, instead of full_softmax:
    sampled_softmax(n=256), sampled_bce(n=1), bpr(n=1)."""
    taught: int | None = None
    """The teacher speaks of so many users' histories at most, drawn once; by default of all."""
    max_length: int | None = None
    """How many items of a history the models look back; 50 by default."""
    windows: bool = True
    """Longer histories are learned from as a whole, in windows of that length."""
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int | None = None
    """Of the students."""
    teacher_epochs: int | None = None
    output_dir: Path | None = None
    """Default: results/recommendation, with -PRESET behind it for the other presets, and -vectors
    or -features where items have them."""


ROWS = {
    "labels": "full_softmax",
    "label smoothing": "full_softmax(label_smoothing=0.1)",
    "teacher's item vectors": "full_softmax",
    "kl": "0.5*full_softmax + 0.5*kl(T=2)",
    "kl, popularity strata": "0.5*full_softmax + 0.5*kl(T=2, strata=4)",
    "mse_logits": "full_softmax + 0.05*mse_logits",
    "listmle": "full_softmax + 0.02*listmle",
    "relaxed_ranking": "full_softmax + 0.02*relaxed_ranking",
    "ranking_distillation": "full_softmax + 0.5*ranking_distillation",
    "margin_mse": "full_softmax + 0.02*margin_mse",
    "hidden_mse": "full_softmax + hidden_mse",
    "expert_hints": "full_softmax + expert_hints(T=linear(1, 0.1))",
    "hierarchical_topology": "full_softmax + hierarchical_topology",
    "shuffled teacher": "0.5*full_softmax + 0.5*kl(T=2)",
}
CONTROLS: dict[str, dict[str, object]] = {
    "teacher's item vectors": {"start": "teacher_items"},
    "shuffled teacher": {"placebo": True},
}
RATES = {"lightgcn": 2e-2}
"""Of teachers that need another one than the preset's: means over layers and neighbours move little
when one vector does."""
SMOKE = ("labels", "kl", "relaxed_ranking", "hidden_mse", "shuffled teacher")
SOFTMAX = "full_softmax"
SAMPLED, NO_REST = ("sampled_", "bpr"), "kl(T=2, tail=False)"
"""With labels among sampled items no loss makes the logits of all: classes are the teacher's
likeliest items alone."""
TRAINED = f"{SOFTMAX}(items='trained')"
COLD = {
    "labels": "full_softmax",
    "labels, trained items": TRAINED,
    "kl": f"0.5*{TRAINED} + 0.5*kl(T=2)",
    "shuffled teacher": f"0.5*{TRAINED} + 0.5*kl(T=2)",
}
"""Items without a training interaction do not compete in training, so texts are not unlearned."""


@dataclass(frozen=True)
class Preset:
    """What flags that are not given stand for."""

    teacher: str = "sasrec-2x64-both"
    peers: tuple[str, ...] = ("sasrec-2x64", "sasrec-2x64-text", "sasrec-2x64-both")
    labels: str = "full_softmax"
    """The teacher's objective."""
    students: tuple[str, ...] = ("sasrec-1x16",)
    rows: Mapping[str, str] = field(default_factory=lambda: ROWS)
    split: str | None = None
    max_length: int = 50
    epochs: int = 30
    teacher_epochs: int = 40
    eval_every: int = 3
    batch_size: int = 32
    teacher_rate: float = 2e-3


PRESETS = {
    "default": Preset(),
    "smoke": Preset(
        teacher="sasrec-2x16",
        peers=(),
        students=("sasrec-1x8",),
        rows={label: ROWS[label] for label in SMOKE},
        epochs=2,
        teacher_epochs=2,
        eval_every=1,
    ),
    "cold": Preset(
        teacher="sasrec-2x64-text",
        labels=TRAINED,
        students=("sasrec-1x16", "sasrec-1x16-text"),
        rows=COLD,
        split="temporal:0.6,0.1,all",
    ),
    "ml-1m": Preset(max_length=200, epochs=40, teacher_epochs=60, batch_size=64, teacher_rate=1e-3),
}


def main(flags: Recommendation) -> None:
    """Run the table, write and print it."""
    from distill_jax.cli.results import open_console
    from distill_jax.tasks.recommendation import table as recommendation

    console = open_console()
    flags.use_plugin()
    sweep, peers = table(flags)
    folder = flags.output_dir or Path("results") / sweep.name
    flags.run(recommendation.Recommendation(sweep, peers=peers), folder, console)


def table(flags: Recommendation) -> "tuple[Sweep[RecommenderSetup], tuple[RecModel, ...]]":
    """The table that the flags ask for, and models that stand beside its teacher."""
    from distill_jax.data.kinds import kind_weights
    from distill_jax.engine.cell import Cell, Train
    from distill_jax.engine.sweep import Sweep, axis, points
    from distill_jax.models.recommenders.closed_forms import parse_references
    from distill_jax.tasks.recommendation.cells import (
        RecModel,
        RecommenderSetup,
        RecTeacher,
    )
    from distill_jax.tasks.recommendation.columns import COLD as COLD_NDCG
    from distill_jax.tasks.recommendation.columns import COLUMNS, NDCG
    from distill_jax.training.recommender import ADAM, FitConfig

    preset = PRESETS[flags.preset]
    name = flags.teacher or preset.teacher
    max_length = preset.max_length if flags.max_length is None else flags.max_length
    fast = replace(ADAM, learning_rate=3e-3, schedule="linear", warmup=0.05)
    training = FitConfig(
        epochs=flags.epochs or preset.epochs,
        eval_every=preset.eval_every,
        batch_size=preset.batch_size,
        optimizer=fast,
        windows=flags.windows,
        kind_weights=kind_weights(flags.kinds),
    )
    teacher_training = replace(
        training,
        epochs=flags.teacher_epochs or preset.teacher_epochs,
        optimizer=replace(fast, learning_rate=RATES.get(kind_of(name), preset.teacher_rate)),
    )
    teacher = RecModel(name, max_length, dropout=0.2, heads=2)
    names = flags.students or preset.students
    students = {each: RecModel(each, max_length, dropout=0.1) for each in names}
    rows = {
        label: {"objective": objective, **CONTROLS.get(label, {})}
        for label, objective in chosen_rows(flags.rows, with_labels(flags, preset.rows)).items()
    }
    (of_teacher,) = with_labels(flags, {"": preset.labels}).values()
    data, unseen = flags.rec_data(flags.split or preset.split), preset.rows is COLD
    sweep = Sweep(
        name=table_name(flags),
        title=f"Ways of distilling a recommender, {flags.data}",
        base=Cell(
            RecommenderSetup(
                replace(
                    data,
                    item_vectors=flags.item_vectors,
                    item_features=flags.item_features,
                    privileged=flags.privileged,
                ),
                teacher=RecTeacher(
                    teacher, of_teacher, training=teacher_training, users=flags.taught
                ),
            ),
            (Train("full_softmax", training),),
            precision=flags.precision,
        ),
        rows=points(rows),
        groups=axis("model", students),
        seeds=flags.seeds,
        references=parse_references(flags.references),
        columns=(*COLUMNS[:3], COLD_NDCG, *COLUMNS[3:]) if unseen else COLUMNS,
        tested=(NDCG.key, COLD_NDCG.key) if unseen else (NDCG.key,),
        row_title="training",
    )
    peers = (peer for peer in preset.peers if peer != name and kind_of(peer) == kind_of(name))
    return sweep, tuple(replace(teacher, name=peer) for peer in peers)


def table_name(flags: Recommendation) -> str:
    """Tables of other data of the items are others."""
    endings = {
        flags.preset: flags.preset != "default",
        "vectors": flags.item_vectors is not None,
        "features": flags.item_features is not None,
    }
    return "-".join(["recommendation", *(each for each, there in endings.items() if there)])


def kind_of(name: str) -> str:
    """Of a model: beside a teacher stand others of its kind alone."""
    return name.partition("-")[0]


def with_labels(flags: Recommendation, rows: Mapping[str, str]) -> dict[str, str]:
    """The objectives with the flags' loss of labels; without rows on what only a softmax has, and
    with what goes with sampled items where these are the labels'."""
    if flags.labels is None:
        return dict(rows)
    plain = {label: text for label, text in rows.items() if text != TRAINED or len(rows) == 1}
    texts = {label: text.replace(TRAINED, SOFTMAX) for label, text in plain.items()}
    if flags.labels.startswith(SAMPLED):
        texts = {label: text.replace("kl(T=2)", NO_REST) for label, text in texts.items()}
    return {
        label: text.replace(SOFTMAX, flags.labels)
        for label, text in texts.items()
        if f"{SOFTMAX}(" not in text
    }


def chosen_rows(names: tuple[str, ...], rows: Mapping[str, str]) -> dict[str, str]:
    """The rows' names and objectives, in the table's order; all where none is named."""
    from distill_jax.core.errors import unknown

    for label in names:
        if label not in rows:
            raise unknown("row", label, rows)
    return {label: text for label, text in rows.items() if not names or label in names}


if __name__ == "__main__":
    run(lambda: main(parse_flags(Recommendation, sys.argv[1:], "experiments/recommendation.py")))
