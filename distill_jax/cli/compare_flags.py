"""The flags of ``compare-losses``, and its presets."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from distill_jax.cli.run import parse_flags
from distill_jax.cli.task_flags import objectives_of
from distill_jax.core.errors import UserError, unknown
from distill_jax.engine.options import DEFAULTS, Pooling, RunOptions

FIRST_ROWS = ("ce", "kl", "mse_logits", "hidden_mse + kl")
VALIDATION = "validation"
"""Of ``--teacher-weights``."""


@dataclass(frozen=True)
class CompareLosses:
    """Compare ways of distilling a teacher, on your data or on the reviews that come with it.

    The teacher is fine-tuned on the training examples whose labels are used; where a share of them
    is not (--label-fraction), those are the transfer set, on which only the teacher speaks. Every
    row of the table is an objective; all get the same number of optimiser steps. The step is
    chosen on the validation split, the test split is read once. What is finished is never trained
    again; after Ctrl-C the same command goes on.
    """

    preset: Literal["default", "full", "controls", "smoke"] = "default"
    """default: 4 objectives, tiny student, 3 seeds. full: 5 objectives, 2 students, 5 seeds.
    controls: ce, kl and the rows of --controls, tiny student, 5 seeds. smoke: the whole path, on
    little data, in a minute or two. Other flags change a preset."""

    data: str = "review_snippets/movie"
    """review_snippets/{movie,product,news,tweet}, shopping_reviews_zh, files:FOLDER, tfds:NAME; of
    images digits, images:FILE.npz, images:tfds:NAME."""
    text: str = "sentence"
    """Column of the text (files: and tfds: only)."""
    text_b: str | None = None
    """Column of the second text, for pairs (files: and tfds: only)."""
    label: str = "label"
    """Column of the label (files: and tfds: only)."""
    task: str = "classes"
    """What is predicted: classes (one a text), number (a score; regression), labels (several a
    text), tags (one a word), intent_slots (a class a text and a tag a word), spans (answers to
    questions), relations (a class of two marked entities). See docs/data.md."""
    label_separator: str = ","
    """Between the labels of a cell, with --task labels."""
    label_fraction: float | None = None
    """Share of the training labels that is used, in (0, 1]; default: 1 of files: and tfds:, 0.1 of
    what is built in."""
    max_length: int = 128
    """Tokens after which a text is cut."""
    transfer: Literal["rest", "none", "only"] = "rest"
    """What becomes of the training texts whose labels are not used: the teacher speaks of them too
    (rest), they are left out (none), or it speaks of them alone (only)."""
    more_texts: tuple[str, ...] = ()
    """Data sets whose training texts join those, without their labels: as --data."""
    client: str = ""
    """K/N: of the labels that are used, the part of the K-th of N clients who share nothing."""
    client_alpha: float = 0.0
    """How unlike clients are: their shares of each class are drawn from a Dirichlet distribution of
    this concentration; 0: alike."""

    teacher: tuple[str, ...] = ("minilm-l6",)
    """minilm-l6 (comes as a package), a folder with a BERT checkpoint, or a hub id; run:HASH, a
    finished student of a table; file:PREDICTIONS, what somebody said of the examples (CSV, JSONL,
    npz: docs/teachers.md); none: nobody. Several teach together: every term listens to all of them,
    kl(teacher=1) to the second alone, and kl(teachers='mean_probabilities') or 'mean_logits' to one
    word of them all."""
    teacher_weights: tuple[float, ...] | Literal["validation"] = ()
    """Of several teachers, in terms that listen to all and do not say so themselves; validation:
    those at which their mean probabilities fit its labels best."""
    tokenizer: str = ""
    """With file:PREDICTIONS or none: whose tokeniser students have, and whose layers copied ones
    start from; default: minilm-l6."""
    teacher_tail: Literal["spread", "drop"] = "spread"
    """Of a file that names the likeliest classes alone: the probability that is left over is spread
    evenly over the others, or dropped."""
    teacher_gaps: float = 0.5
    """Share of the training examples that a file may say nothing of; nobody listens there."""
    assistants: tuple[str, ...] = ()
    """Students who learn one from another, the first from the teacher, the last of whom teaches:
    4x192x4, or with an objective other than kl 'tiny: kl + ce'."""
    peers: int = 0
    """So many students at a time teach each other, in the teacher's place (deep mutual learning):
    kl is then against what the others say. 0: none."""
    fine_tune: bool = True
    """Fine-tune the teacher first; --no-fine-tune for one whose head is trained already."""
    teacher_pooling: Literal["auto", "pooler", "mean", "cls"] = "auto"
    """What the teacher's head reads; auto: what its checkpoint says. A pooler that the checkpoint
    lacks (one saved as a masked language model, say) is drawn at random and fine-tuned."""
    label_map: str | None = None
    """With --no-fine-tune: which class of the teacher (by name or number) is which of the data,
    'NEGATIVE=0,POSITIVE=1', or as a JSON object; classes not named are left out. By default the
    same names, whatever their case and order."""
    teacher_epochs: float | None = None
    """Passes of the teacher over the labelled examples; default: 3, and of data of your own
    (files:, tfds:) as many more as --teacher-min-steps ask for."""
    teacher_min_steps: int | None = None
    """The least steps of the teacher's fine-tuning, however few the labels; default: 300 of data of
    your own where --teacher-epochs is not given, else 0."""
    teacher_patience: int | None = None
    """The teacher's fine-tuning ends when so many evaluations in a row were no better; 0: never.
    Default: 3 (of 10) of data of your own, else 0."""
    teacher_jitter: int = 0
    """Of images: pixels by which each is moved at most while the teacher is trained, anew in every
    epoch."""
    teacher_batch_size: int = 32
    teacher_learning_rate: float | None = None
    """Default: 1e-4, or chosen as --teacher-rates says."""
    teacher_rates: tuple[float, ...] = ()
    """Learning rates that the teacher is fine-tuned at, each from the start; the one of the best
    score on validation teaches. Default: 1e-4 and 2e-4 of data of your own where that takes 1,000
    steps each at most, unless --teacher-learning-rate is given; else one."""

    students: tuple[str, ...] = ("tiny",)
    """tiny, l2, l3, LAYERSxWIDTHxHEADS such as 3x256x4, bilstm or static; of images cnn-4-8-16 or
    mlp-800-800 (docs/students.md)."""
    student_start: str = "usual"
    """Where students start: usual (as docs/students.md says of each), random, embeddings (the
    teacher's, narrower), truncated (the most important units of the teacher's layers), or, of the
    fine-tuned teacher or of its checkpoint before, a share, 0.5*teacher, 0.5*checkpoint."""
    student_pooling: Literal["auto", Pooling] = "auto"
    """What a student's head reads: pooler (BERT's own, on [CLS]), mean (of all tokens) or cls, or
    what the teacher's reads. auto: pooler for students that start at random on data of your own
    (files:, tfds:), so that transformers runs their folders as they are; else the teacher's."""
    student_vocab: str = ""
    """Tokens of the students, where they are not the teacher's: occurring (those that the training
    texts hold), or a number (a tokeniser of so many, trained on those texts). For objectives that
    compare no tokens."""
    objectives: tuple[str, ...] = FIRST_ROWS
    """Objectives as text, e.g. 'ce' '0.9*kl(T=4) + 0.1*ce'; each is a row. Stages are joined by ->:
    'hidden_mse for 0.5 freezing classifier -> kl' (docs/recipes.md)."""
    controls: bool = False
    """Further rows that split what a teacher is worth: kl without the transfer set, hard
    pseudo-labels, a placebo, and ce with its rate and length chosen on validation."""
    yardsticks: bool = True
    """Rows of what the same labels give without a teacher: the commonest class, and logistic
    regression on TF-IDF (of digits, on the pixels)."""
    baseline: str | None = None
    """The row that the others are tested against; by default ce, or the first without ce."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each changes initialisation, dropout and the order of the data."""
    teacher_seeds: tuple[int, ...] = ()
    """Seeds of the teacher's fine-tuning: the i-th of --seeds hears the i-th of these teachers,
    from the start again when they run out; by default one teacher (seed 0) for all seeds."""
    label_seeds: tuple[int, ...] = ()
    """The same for the draw of the labels that are used; by default one draw for all seeds."""

    epochs: float | None = None
    """Passes over all training sentences; decides the steps of every row, with labels or not.
    Default: 2, and of data of your own (files:, tfds:) as many more as --min-steps ask for."""
    copied_epochs: float | None = None
    """The same for students made of the teacher's layers (l2, l3): they know more at the start.
    Default: 1."""
    min_steps: int | None = None
    """The least steps of students, however few the sentences; default: 600 of data of your own (300
    for l2, l3) where neither --epochs nor --steps is given, else 0."""
    steps: int = 0
    """Optimiser steps of every row; 0 leaves it to --epochs."""
    batch_size: int = 64
    max_shapes: int | None = None
    """The most lengths that batches are padded to (each is a compilation); as many are used as
    keep the padding under a tenth. Default: 5 in the default preset on its own texts, where
    compiling more costs more than padding; else 16."""
    learning_rate: float = 1e-3
    """For students that start at random."""
    copied_learning_rate: float = 3e-4
    """For students made of the teacher's layers (l2, l3)."""
    recipe: str = ""
    """What students' training does beside the objective: rdrop, fgm, freelb, lora or bitfit, e.g.
    'rdrop(2.0) + lora(rank=4)' (docs/recipes.md)."""
    freeze: tuple[str, ...] = ()
    """Regular expressions; parameters of students in whose path one is found stay as they are."""
    rate: tuple[str, ...] = ()
    """REGEX=FACTOR: such parameters of students learn at so many times the learning rate."""
    layer_decay: float = 1.0
    """Factor of students' learning rate from each layer to the one below it; 1: none."""
    augment: str = ""
    """Altered copies of the training sentences on which only the teacher speaks, e.g.
    'mask(0.1) + ngram(copies=5)' (docs/augmentation.md)."""
    clip_apart: bool = False
    """Clip the gradients of students and of the losses' own parameters by a norm each."""
    evaluations: int = 4
    """How often the validation split is looked at."""
    patience: int = 0
    """Students' training ends when so many evaluations in a row were no better; 0: never."""
    class_weights: str | None = None
    """How much a label of each class counts in the ce and focal terms of students: balanced (every
    class as much in all) or a JSON file, {"class": weight}. By hand:
    'ce(class_weights=[1, 19])'."""
    select: str | None = None
    """What decides on validation which step is kept, of the teacher and of students: of classes
    accuracy (the default), macro_f1 (where classes are unequal), or loss; of a number pearson,
    spearman or mse; of labels micro_f1, macro_f1, map or loss; of tags f1, accuracy or loss; of
    intent_slots frames (all right), f1, accuracy (of intents) or loss; of spans f1, exact_match or
    loss. On data of your own (files:, tfds:) the lower loss decides between steps that are equal in
    it; of what is built in, the earlier step."""
    teacher_outputs: Literal["cache", "live"] = "cache"
    """Ask the teacher once and keep its answers, or ask it at every step."""
    cache_dtype: Literal["bfloat16", "float16", "float32"] = "float16"
    """How token-level answers are kept; logits are always float32."""
    teacher_precision: Literal["auto", "f32", "bf16"] = "auto"
    """In which the teacher speaks. auto: as students compute."""
    teacher_training_precision: Literal["auto", "f32", "bf16"] = "auto"
    """In which the teacher is fine-tuned. auto: as students compute."""
    precision: Literal["auto", "f32", "bf16", "bf16-params"] = "auto"
    """f32. bf16: students compute in bfloat16. bf16-params: their parameters are bfloat16 too.
    auto: bf16 in the default preset on its own texts, else f32."""

    plugin: Path | None = None
    """A Python file of yours with more losses; it is run."""
    strategy: Literal["auto", "sequential", "vmap", "sharded"] = "sequential"
    """One after another, or many students in one step; auto times both, takes the faster."""
    track: Literal["none", "tensorboard", "wandb"] = "tensorboard"
    """Where learning curves go."""
    options: Annotated[RunOptions, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="run")] = DEFAULTS
    output_dir: Path | None = None
    """Default: results/compare_losses, with -PRESET behind it for the other presets."""

    def __post_init__(self) -> None:
        if isinstance(self.teacher, str):
            object.__setattr__(self, "teacher", (self.teacher,))
        if not self.teacher or len(set(self.teacher)) < len(self.teacher):
            raise UserError(f"--teacher needs names, each once, not {' '.join(self.teacher)!r}")
        given = () if self.teacher_weights == VALIDATION else self.teacher_weights
        if given and len(given) != len(self.teacher):
            raise UserError(
                f"--teacher-weights needs a number for each of {len(self.teacher)} teachers, not "
                f"{len(given)}"
            )
        if self.teacher_weights and len(self.teacher) == 1:
            raise UserError("--teacher-weights has no meaning with one teacher")


PRESETS = {
    "default": CompareLosses(),
    "full": CompareLosses(
        preset="full",
        students=("tiny", "l2"),
        objectives=(*FIRST_ROWS, "attention_kl + kl"),
        seeds=(0, 1, 2, 3, 4),
    ),
    "controls": CompareLosses(
        preset="controls",
        objectives=("ce", "kl"),
        controls=True,
        seeds=(0, 1, 2, 3, 4),
        steps=266,  # of the default preset: two passes over the movie reviews
    ),
    "smoke": CompareLosses(
        preset="smoke",
        data="review_snippets/product",
        max_length=40,
        teacher_epochs=2,
        teacher_learning_rate=1e-4,
        objectives=("ce", "kl", "hidden_mse + kl"),
        steps=60,
        evaluations=2,
        max_shapes=2,
    ),
}


def parse_arguments(arguments: Sequence[str], prog: str) -> CompareLosses:
    """The preset that the arguments name, changed by the other arguments."""
    preset = _preset_of(arguments)
    args = parse_flags(CompareLosses, arguments, prog, default=PRESETS[preset])
    return replace(args, objectives=objectives_of(args, arguments))


def _preset_of(arguments: Sequence[str]) -> str:
    preset = "default"
    for position, argument in enumerate(arguments):
        if argument.startswith("--preset="):
            preset = argument.removeprefix("--preset=")
        elif argument == "--preset" and position + 1 < len(arguments):
            preset = arguments[position + 1]
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    return preset
