"""What pre-training on a shop's own texts is worth: Chinese reviews, and an English teacher beside.

    python experiments/pretraining_zh.py
    python experiments/pretraining_zh.py --preset smoke

A tokeniser and a BERT are trained on the training texts of the shopping reviews, labels unread, as
``distill-jax pretrain`` does. Three teachers are then fine-tuned on a tenth of the labels: that
BERT before any step (*from scratch*), after it (*pretrained*), and MiniLM-L6, which is English and
reads most of the texts' tokens as [UNK]. Students of each learn from the labels alone, or from what
their teacher says of all training texts; they read their teacher's tokens.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distill_jax.cli.experiment import TableFlags
from distill_jax.cli.precision import computing_in
from distill_jax.cli.run import parse_flags, run
from distill_jax.engine.options import Precision

if TYPE_CHECKING:
    from distill_jax.engine.sweep import Sweep

NAME = "pretraining_zh"
SCRATCH, PRETRAINED, ENGLISH = "from scratch", "pretrained", "MiniLM-L6 (English)"
SIZE, VOCABULARY, MAX_LENGTH, STEPS = "4x128", 8000, 48, 3000


@dataclass(frozen=True)
class PretrainingZh(TableFlags):
    """Teachers from scratch, pretrained on the texts, and pretrained on English; students of
    each."""

    preset: Literal["default", "smoke"] = "default"
    """default: as committed under experiments/results. smoke: the whole path in a minute."""
    data: str = "shopping_reviews_zh"
    """Another data set: files:FOLDER, tfds:NAME ..."""
    english: str = "minilm-l6"
    """The teacher that was pretrained on other texts."""
    steps: int = 0
    """Of the pre-training, instead of the experiment's own."""
    seeds: tuple[int, ...] = ()
    """0 1 2 by default."""
    precision: Precision = "bf16"
    """bf16: students and teacher compute in bfloat16. bf16-params: students' parameters are
    bfloat16 too. f32: in float32."""
    output_dir: Path = Path("results")
    """Everything goes to folders under this one: pretraining_zh, and pretraining_zh-mlm for the
    pre-training; with -smoke behind them for that preset."""

    @property
    def small(self) -> bool:
        return self.preset == "smoke"

    def folder(self, what: str = "") -> Path:
        """Of results."""
        suffix = "-smoke" if self.small else ""
        return self.output_dir / f"{NAME}{what}{suffix}"


def pretraining(flags: PretrainingZh) -> "Sweep[Any]":
    """The model of one cell that becomes the pretrained teacher."""
    from distill_jax.engine.cell import Cell, Train
    from distill_jax.engine.sweep import Sweep, axis
    from distill_jax.tasks.language.cells import (
        LanguageDataConfig,
        LanguageSetup,
        LanguageTraining,
    )
    from distill_jax.tasks.language.columns import COLUMNS, NLL
    from distill_jax.training.optimizer import OptimizerConfig

    size = "1x16x2" if flags.small else SIZE
    data = LanguageDataConfig(
        flags.data, max_length=MAX_LENGTH, vocab_size=300 if flags.small else VOCABULARY
    )
    training = LanguageTraining(
        steps=flags.steps or (4 if flags.small else STEPS),
        evaluations=2 if flags.small else 6,
        batch_size=32,
        optimizer=OptimizerConfig(learning_rate=1e-3),
    )
    return Sweep(
        name=f"{NAME}-mlm",
        title=f"{flags.data}: hidden words of the training texts",
        base=Cell(
            LanguageSetup(data, student=size),
            (Train("ce", training),),
            precision=flags.precision,
        ),
        rows=axis("objective", ("ce",)),
        groups=axis("student", (size,)),
        seeds=(0,),
        columns=COLUMNS,
        tested=(NLL.key,),
        group_title="model",
        protocol=(f"{training.steps} steps of {training.batch_size} texts.",),
    )


def table(flags: PretrainingZh, scratch: Path, pretrained: Path) -> "Sweep[Any]":
    """Objectives x teachers x seeds.

    Args:
      scratch, pretrained: folders of the two teachers.
    """
    from distill_jax.engine.cell import Cell, Train
    from distill_jax.engine.sweep import Sweep, axis
    from distill_jax.tables.columns import ACCURACY, COLUMNS, Column
    from distill_jax.tables.names import YARDSTICK
    from distill_jax.tables.trends import difference
    from distill_jax.tasks.classification.cells import (
        ClassifierSetup,
        DataConfig,
        TeacherConfig,
        TrainingConfig,
    )
    from distill_jax.training.optimizer import OptimizerConfig

    training = TrainingConfig(
        epochs=2.0,
        steps=6 if flags.small else 0,
        evaluations=2 if flags.small else 4,
        max_shapes=1 if flags.small else 3,
        optimizer=OptimizerConfig(learning_rate=2e-3),
    )
    tuning = TrainingConfig(
        steps=4 if flags.small else 120,
        evaluations=1 if flags.small else 3,
        batch_size=32,
        optimizer=OptimizerConfig(learning_rate=1e-4),
    )
    own = TeacherConfig(training=tuning, rates=() if flags.small else (1e-4, 5e-4))
    teachers = {
        SCRATCH: replace(own, name=str(scratch)),
        PRETRAINED: replace(own, name=str(pretrained)),
        ENGLISH: TeacherConfig(flags.english, training=tuning),
    }
    data = DataConfig(flags.data, label_fraction=0.1, max_length=MAX_LENGTH)
    student = "1x16x2" if flags.small else "2x64x2"
    columns = (
        ACCURACY,
        *(each for each in COLUMNS if each.key in ("test/fidelity", "parameters")),
        Column("test/unknown", "[UNK] %", 100, 1, kind="value"),
    )
    sweep = Sweep(
        name=NAME,
        title=f"{flags.data}: teachers with and without pre-training on the texts",
        base=Cell(ClassifierSetup(data, own, student), (Train("ce", training),)),
        rows=axis("objective", ("ce", "kl")),
        groups=axis("teacher", teachers),
        seeds=flags.seeds or ((0, 1) if flags.small else (0, 1, 2)),
        baseline="ce",
        columns=columns,
        references=() if flags.small else (YARDSTICK,),
        group_title="teacher",
        trends=(
            difference(
                "a student of the pretrained teacher is better than one of that from scratch",
                ("kl", PRETRAINED),
                ("kl", SCRATCH),
            ),
            difference(
                "a student of the pretrained teacher is better than one of the English teacher",
                ("kl", PRETRAINED),
                ("kl", ENGLISH),
            ),
        ),
        protocol=(
            "10% of the labels; on the other training texts only the teacher speaks. Students (2 "
            "layers, width 64) start at random and take the same steps; the step is chosen on "
            "validation, the test split is read once.",
            f"Texts are cut at {MAX_LENGTH} tokens. {SCRATCH} and {PRETRAINED} are one BERT "
            f"({SIZE}) with one tokeniser, of which the second has been trained on the training "
            "texts, without labels, to say hidden characters.",
            f"Each teacher is fine-tuned for {tuning.steps} steps of {tuning.batch_size}: the "
            "English one at 1e-4, the others at 1e-4 or 5e-4, whichever is better on validation.",
        ),
    )
    return computing_in(sweep, flags.precision)


def main(flags: PretrainingZh) -> None:
    """Pre-train, keep the model and what it began as, run the table."""
    import jax

    from distill_jax.cli.pretrain import keep
    from distill_jax.cli.results import open_console
    from distill_jax.models.build import language_family
    from distill_jax.tasks.classification.table import Classification
    from distill_jax.tasks.language.table import Language

    console = open_console()
    flags.use_plugin()
    sweep, folder = pretraining(flags), flags.folder("-mlm")
    spec, rows = flags.run(Language(sweep), folder, console)
    [row] = [row for row in rows if row.hash == spec.places[0].hash]
    pretrained, scratch = folder / PRETRAINED, folder / SCRATCH.replace(" ", "-")
    keep(folder / "runs" / row.hash / "model", pretrained, row.hash, row.metrics)
    if not scratch.is_dir():
        family = language_family("masked")
        loaded = family.load(str(pretrained))
        first = family.init(loaded.config, jax.random.key(0))
        family.save(scratch, loaded.config, first, pretrained / "tokenizer.json", MAX_LENGTH)
    flags.run(Classification(table(flags, scratch, pretrained)), flags.folder(), console)


if __name__ == "__main__":
    run(lambda: main(parse_flags(PretrainingZh, sys.argv[1:], "experiments/pretraining_zh.py")))
