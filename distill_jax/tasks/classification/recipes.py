"""The published recipes for distilling BERT on GLUE's SST-2, as data.

What a recipe says was read in the paper's released code or notes (``verified``); what could not
be read anywhere and was filled in is said too (``unverified``), and so is what differs here
(``departures``). Objectives are in this library's grammar; where the released code takes a mean
over classes or a sum over layers, the weight has the factor. Without padding they equal the
released code, unless a departure says otherwise. Importing this module does not import JAX.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from distill_jax.core.errors import unknown

if TYPE_CHECKING:
    from distill_jax.tasks.classification.cells import TrainingConfig

SST2_EXAMPLES = 67_349
"""Sentences of SST-2's training split."""
VOCABULARY = 30_522
"""Word pieces of bert-base-uncased, which all of these students share."""


@dataclass(frozen=True)
class Size:
    """A BERT by its sizes.

    Attributes:
      intermediate_size: of the feed-forward blocks; 0 for 4 * hidden_size.
    """

    num_layers: int
    hidden_size: int
    num_heads: int
    intermediate_size: int = 0

    def __str__(self) -> str:
        return f"{self.num_layers}x{self.hidden_size}"


@dataclass(frozen=True)
class Start:
    """Where a student's weights come from.

    Attributes:
      layers: of the pre-trained (not fine-tuned) teacher, from 1, that it is copied from; () for
        a student that starts at random.
      weights: hub id of a checkpoint instead.
    """

    layers: tuple[int, ...] = ()
    weights: str | None = None

    def __str__(self) -> str:
        if self.weights or not self.layers:
            return self.weights or "random weights"
        return f"teacher's layers {', '.join(map(str, self.layers))}"


@dataclass(frozen=True)
class RecipeStage:
    """A stage of training.

    Attributes:
      name: for people.
      objective: in the grammar of objectives.
      epochs: passes over the training sentences.
      learning_rate, schedule, warmup, weight_decay: AdamW's; warmup is a part of all steps.
    """

    name: str
    objective: str
    epochs: float
    batch_size: int
    learning_rate: float
    schedule: Literal["linear", "constant"] = "linear"
    warmup: float = 0.1
    weight_decay: float = 0.01

    def steps(self, examples: int = SST2_EXAMPLES) -> int:
        """Optimiser steps over so many training examples."""
        return self.training().total_steps(examples)

    def training(self) -> TrainingConfig:
        """The stage as the engine takes it."""
        from distill_jax.tasks.classification.cells import TrainingConfig
        from distill_jax.training.optimizer import OptimizerConfig

        optimizer = OptimizerConfig(
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            warmup=self.warmup,
            weight_decay=self.weight_decay,
        )
        return TrainingConfig(epochs=self.epochs, batch_size=self.batch_size, optimizer=optimizer)


@dataclass(frozen=True)
class Teacher:
    """A teacher and its fine-tuning.

    Attributes:
      weights: hub id.
    """

    weights: str
    size: Size
    stage: RecipeStage


@dataclass(frozen=True)
class Recipe:
    """One published way to a student.

    Attributes:
      name: of the recipe, as the command line takes it.
      paper: authors, year, title.
      student: sizes.
      start: where the student's weights come from.
      stages: of training on the task, in order.
      verified: where the settings were read.
      unverified: settings that could not be read anywhere and are ours.
      departures: what differs from the paper when it is run here.
      published: the row of the published numbers ``glue_sst2`` to compare with, if there is one.
      max_length: tokens after which a sentence is cut.
    """

    name: str
    paper: str
    teacher: Teacher
    student: Size
    start: Start
    stages: tuple[RecipeStage, ...]
    verified: tuple[str, ...]
    unverified: tuple[str, ...] = ()
    departures: tuple[str, ...] = ()
    published: str | None = None
    max_length: int = 128

    @property
    def weights(self) -> tuple[str, ...]:
        """Every checkpoint that it needs, by hub id."""
        return (self.teacher.weights, *([self.start.weights] if self.start.weights else []))


BERT_BASE = Teacher(
    "google-bert/bert-base-uncased",
    Size(12, 768, 12),
    RecipeStage("fine-tuning", "ce", epochs=4, batch_size=32, learning_rate=2e-5),
)
"""Fine-tuned as PKD's code does (teacher_12layer_mean.csv: learning rate 2e-5, batch 32, 4 epochs
on SST-2), the one whose settings for SST-2 were found released; all recipes share it."""

_OUR_TEACHER = "the teacher's fine-tuning: PKD's, the paper's own was not found for SST-2"
_NO_AUGMENTATION = (
    "trained on the plain sentences, not on those augmented with BERT and GloVe: give the augmented"
    " ones as a transfer file to have them"
)
_PKD_TRAINING = (
    "shuffled sentences in float32, Adam with bias correction; the released code takes them in the "
    "file's order, in half precision, with an Adam (apex's FusedAdam) that does not correct"
)
_MINILM_FINE_TUNING = RecipeStage("fine-tuning", "ce", epochs=5, batch_size=32, learning_rate=3e-5)
_MINILM_GRID = (
    "bloomberg/minilmv2.bb, a re-implementation: README.md (fine-tuning: rates 1e-5 to 4e-5; 3, 5 "
    "or 10 epochs)"
)
_MINILM_CHOICE = "fine-tuning with rate 3e-5, 5 epochs and batch 32: within the grid found"


def _tinybert(
    size: Size, weights: str, intermediate: str, published: str, *unverified: str
) -> Recipe:
    return Recipe(
        name=f"tinybert-{size.num_layers}",
        paper="Jiao et al. 2020, TinyBERT, arXiv:1909.10351",
        teacher=BERT_BASE,
        student=size,
        start=Start(weights=weights),
        stages=(
            RecipeStage(
                "intermediate",
                intermediate,
                epochs=10,
                batch_size=32,
                learning_rate=5e-5,
                schedule="constant",
                warmup=0.0,
            ),
            RecipeStage(
                "prediction",
                "soft_ce(variant='as_released')",
                epochs=3,
                batch_size=32,
                learning_rate=3e-5,
            ),
        ),
        verified=(
            "huawei-noah/Pretrained-Language-Model: TinyBERT/README.md (epochs, batch, rates, "
            "length)",
            "huawei-noah/Pretrained-Language-Model: TinyBERT/task_distill.py (losses, schedule, "
            "weight decay; sums over layers are the weights here)",
        ),
        unverified=(_OUR_TEACHER, *unverified),
        departures=(
            _NO_AUGMENTATION,
            "scores and hidden states are averaged over the tokens of a sentence, then over "
            "sentences; the released code averages over all 128 places, padding among them, and "
            "counts masked keys as 0: with n tokens attention weighs about n/128 as much there",
            "AdamW with bias correction, epsilon 1e-8 and one norm by which all gradients are "
            "clipped; the released code's BertAdam does not correct, has epsilon 1e-6, and clips "
            "each parameter's gradient by itself",
            "the teacher speaks without dropout; the released code never turns it off",
            "a head with dropout on the pooled output; the released code's takes the relu of it, "
            "without dropout",
            "a projection for each layer; the released code shares one",
            "the released code's own defaults for SST-2 (64 tokens, 10 epochs) are written to "
            "names it never reads, so that its command line decides",
        ),
        published=published,
    )


def _turc(name: str, size: Size, published: str) -> Recipe:
    return Recipe(
        name=f"turc-{name}",
        paper="Turc et al. 2019, Well-Read Students Learn Better, arXiv:1908.08962",
        teacher=BERT_BASE,
        student=size,
        start=Start(
            weights=f"google/bert_uncased_L-{size.num_layers}_H-{size.hidden_size}"
            f"_A-{size.num_heads}"
        ),
        stages=(
            RecipeStage("distillation", "soft_ce", epochs=4, batch_size=64, learning_rate=1e-4),
        ),
        verified=(
            "huggingface/transformers: model_cards/iuliaturc/bert_uncased_L-2_H-128_A-2/README.md "
            "(weights; 4 epochs, batch 8 to 128, rates 3e-5 to 3e-4 for fine-tuning)",
        ),
        unverified=(
            "batch 64 and rate 1e-4: within the grid of fine-tuning, that of distillation was not "
            "found",
            _OUR_TEACHER,
        ),
        departures=(
            "the published number is of fine-tuning on labels; the soft labels here are those of "
            "the training sentences, unless a transfer file gives more",
        ),
        published=published,
    )


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        name="distilbert",
        paper="Sanh et al. 2019, DistilBERT, arXiv:1910.01108, section 4.1 (second distillation)",
        teacher=BERT_BASE,
        student=Size(6, 768, 12),
        start=Start(layers=(1, 3, 5, 8, 10, 12)),
        stages=(
            RecipeStage(
                "distillation",
                "0.5*kl(T=2) + 0.5*ce",
                epochs=3,
                batch_size=32,
                learning_rate=1e-5,
                warmup=0.095,
                weight_decay=0.0,
            ),
        ),
        verified=(
            "huggingface/transformers: examples/research_projects/distillation/"
            "run_squad_w_distillation.py (weights of the losses, T, weight decay)",
            "huggingface/transformers: examples/research_projects/distillation/scripts/"
            "extract_distilbert.py (layers 0, 2, 4, 7, 9, 11 counted from 0)",
            "model card of distilbert-base-uncased-finetuned-sst-2-english (rate 1e-5, batch 32, "
            "600 steps of warm-up, 3 epochs, 128 tokens)",
        ),
        unverified=(_OUR_TEACHER,),
        departures=(
            "the paper distils on a task for SQuAD only; rates, batch and epochs are those of "
            "its fine-tuning on SST-2, which made the published number",
            "no pre-training between the copied layers and the task: a checkpoint of DistilBERT "
            "is no BERT checkpoint and is not imported",
        ),
        published="DistilBERT 6x768",
    ),
    Recipe(
        name="pkd-6",
        paper="Sun et al. 2019, Patient Knowledge Distillation, arXiv:1908.09355 (PKD-Skip)",
        teacher=BERT_BASE,
        student=Size(6, 768, 12),
        start=Start(layers=(1, 2, 3, 4, 5, 6)),
        stages=(
            RecipeStage(
                "distillation",
                "0.5*ce + 0.25*kl(T=10) + 100*pkd",
                epochs=4,
                batch_size=32,
                learning_rate=5e-5,
            ),
        ),
        verified=(
            "intersun/PKD-for-BERT-Model-Compression: result/glue/result_summary/"
            "pkd_6layer_mean.csv (alpha 0.5, T 10, beta 100, rate 5e-5, batch 32, epoch 4), "
            "teacher_12layer_mean.csv",
            "intersun/PKD-for-BERT-Model-Compression: src/KD_loss.py (KL's mean over two classes: "
            "half of alpha), NLI_KD_training.py, scripts/run_student_patience.py (layers), "
            "src/utils.py (start)",
        ),
        departures=(_PKD_TRAINING,),
        published="PKD-skip 6x768",
    ),
    Recipe(
        name="pkd-3",
        paper="Sun et al. 2019, Patient Knowledge Distillation, arXiv:1908.09355",
        teacher=BERT_BASE,
        student=Size(3, 768, 12),
        start=Start(layers=(1, 2, 3)),
        stages=(
            RecipeStage(
                "distillation",
                "0.8*ce + 0.1*kl(T=20) + pkd(layers={1: -3, 2: -2})",
                epochs=4,
                batch_size=32,
                learning_rate=5e-5,
            ),
        ),
        verified=(
            "intersun/PKD-for-BERT-Model-Compression: result/glue/result_summary/"
            "pkd_3layer_mean.csv (alpha 0.2, T 20, beta 1, rate 5e-5, batch 32, epoch 4), "
            "teacher_12layer_mean.csv",
            "intersun/PKD-for-BERT-Model-Compression: src/KD_loss.py (KL's mean over two classes: "
            "half of alpha), scripts/run_student_patience.py (layers 9, 10 counted from 0: the "
            "last but the top, where the paper has PKD-Skip)",
        ),
        departures=(_PKD_TRAINING,),
        published="PKD 3x768",
    ),
    _tinybert(
        Size(4, 312, 12, 1200),
        "huawei-noah/TinyBERT_General_4L_312D",
        "4*attention_mse + 5*hidden_mse(embeddings=True)",
        "TinyBERT 4x312",
    ),
    _tinybert(
        Size(6, 768, 12),
        "huawei-noah/TinyBERT_General_6L_768D",
        "6*attention_mse + 7*hidden_mse(embeddings=True, projection=True)",
        "TinyBERT 6x768",
        "the name of the checkpoint: formed like that of the 4-layer student",
    ),
    Recipe(
        name="minilm-6x384",
        paper="Wang et al. 2021, MiniLMv2, arXiv:2012.15828",
        teacher=BERT_BASE,
        student=Size(6, 384, 12),
        start=Start(),
        stages=(
            RecipeStage(
                "relations",
                "minilm_v2(relation_heads=48)",
                epochs=30,
                batch_size=256,
                learning_rate=6e-4,
                warmup=0.01,
            ),
            _MINILM_FINE_TUNING,
        ),
        verified=(
            "bloomberg/minilmv2.bb, a re-implementation: run.sh (batch 256, rate 6e-4, 1% warm-up, "
            "48 relation heads, the teacher's last layer)",
            _MINILM_GRID,
        ),
        unverified=(_MINILM_CHOICE, "30 epochs of relations", _OUR_TEACHER),
        departures=(
            "relations on the task's sentences only, of the fine-tuned teacher; the paper's: "
            "400,000 steps on Wikipedia and BookCorpus, of the teacher before fine-tuning",
            "Adam's epsilon is 1e-8, in the re-implementation 1e-6",
        ),
    ),
    Recipe(
        name="minilm-6x384-released",
        paper="Wang et al. 2021, MiniLMv2, arXiv:2012.15828",
        teacher=BERT_BASE,
        student=Size(6, 384, 12),
        start=Start(weights="nreimers/MiniLMv2-L6-H384-distilled-from-BERT-Base"),
        stages=(_MINILM_FINE_TUNING,),
        verified=(_MINILM_GRID,),
        unverified=(_MINILM_CHOICE,),
        departures=(
            "fine-tuned as the paper's students were; the relations are in the released weights",
        ),
    ),
    _turc("tiny", Size(2, 128, 2), "BERT-Tiny 2x128"),
    _turc("mini", Size(4, 256, 4), "BERT-Mini 4x256"),
    _turc("small", Size(4, 512, 8), "BERT-Small 4x512"),
    _turc("medium", Size(8, 512, 8), "BERT-Medium 8x512"),
)


def find_recipe(name: str) -> Recipe:
    """A recipe by its name.

    Raises:
      UserError: for a name that is none.
    """
    for recipe in RECIPES:
        if recipe.name == name:
            return recipe
    raise unknown("recipe", name, [recipe.name for recipe in RECIPES])
