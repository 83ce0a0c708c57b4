"""Distillation from top to bottom, in one file: no table, no engine, nothing to resume.

    python experiments/minimal.py             # --help lists the flags

A teacher is fine-tuned on a tenth of the labels and then heard on all sentences; a small student
learns from what it says, and from the labels where there are any. ``compare_losses.py`` is the same
with seeds, selection on validation, significance tests, checkpoints and a cache of what was said.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from distill_jax.cli.run import parse_flags, run
from distill_jax.data.assets import fetch
from distill_jax.data.load import load_dataset
from distill_jax.data.plan import choose_lengths
from distill_jax.data.subsets import labelled_rows
from distill_jax.data.tokenise import tokenise_dataset
from distill_jax.evaluation.metrics import classification_metrics
from distill_jax.evaluation.predict import logits_of, predict_logits
from distill_jax.models.bert import Bert
from distill_jax.models.huggingface import TextInputs, load_pretrained, save_pretrained
from distill_jax.models.students import init_student, student_config
from distill_jax.objectives.resolve import resolve
from distill_jax.teachers.live import LiveTeacher
from distill_jax.training.feed import Feed
from distill_jax.training.optimizer import OptimizerConfig, learning_rate, make_optimizer
from distill_jax.training.state import init_state
from distill_jax.training.step import StepNumbers, make_step


@dataclass(frozen=True)
class Minimal:
    """Fine-tune a teacher on some labels, distil it on all sentences, save the student."""

    teacher: str = "minilm-l6"
    """minilm-l6 (comes as a package), a folder with a BERT checkpoint, or a hub id."""
    data: str = "review_snippets/product"
    """See compare-losses."""
    label_fraction: float = 0.1
    """Share of the training labels that is used; the other sentences are the transfer set."""
    student: str = "tiny"
    objective: str = "0.9*kl(T=2) + 0.1*ce"
    teacher_steps: int = 24
    steps: int = 120
    output: Path = Path("results/minimal")
    """The student's Hugging Face folder."""


def train(model, params, objective, feed, steps, peak):
    """The parameters after ``steps`` steps of AdamW with this peak learning rate."""
    settings = OptimizerConfig(learning_rate=peak)
    optimizer = make_optimizer(settings)
    state = init_state(params, objective.init_params(jax.random.key(0)), optimizer)
    step = jax.jit(make_step(model, objective, optimizer), donate_argnums=0)
    for number in range(steps):
        batch, teacher_output = feed(number)  # a function of seed and step; so is dropout's key
        numbers = StepNumbers(
            objective=objective.numbers(number, steps),
            learning_rate=np.float32(learning_rate(settings, number, steps)),
            seed=np.uint32(0),
        )
        state, metrics = step(state, batch, teacher_output, numbers)
        if number % 20 == 0 or number == steps - 1:
            print(f"  step {number + 1}/{steps}  loss {metrics.loss:.3f}")
    return state.params


def main(args: Minimal) -> None:
    # Data: texts, their tokens, and which of the labels may be used.
    texts = load_dataset(args.data)
    checkpoint = load_pretrained(
        fetch(args.teacher) if args.teacher == "minilm-l6" else args.teacher,
        pooling="mean",
        num_labels=len(texts.label_names),
        fresh_classifier=True,
    )
    config, tokenizer = checkpoint.config, checkpoint.tokenizer_file
    max_length = min(64, config.max_positions)
    splits = tokenise_dataset(texts, tokenizer, max_length=max_length).splits
    chosen = labelled_rows(splits["train"], args.label_fraction)
    others = np.setdiff1d(np.arange(len(splits["train"])), chosen)
    labelled, everything = splits["train"].take(chosen), splits["train"].without_labels(others)
    lengths = choose_lengths(np.concatenate([x.lengths_N for x in splits.values()]), max_shapes=3)

    def accuracy(model, params):
        logits_NC = predict_logits(
            logits_of(model), params, splits["test"], shape_lengths=lengths, batch_size=64
        )
        return classification_metrics(logits_NC, splits["test"].labels_N)["accuracy"]

    # Teacher: a new head on the checkpoint, fine-tuned on the labels alone.
    print(f"teacher {args.teacher}, {len(labelled)} labels")
    teacher, labels_only = Bert(config), resolve("ce", config.shape, None)
    feed = Feed(labelled, lengths, batch_size=32, seed=0)
    taught = train(teacher, checkpoint.params, labels_only, feed, args.teacher_steps, 1e-4)

    # Student: what the objective reads of the teacher is computed batch by batch, nothing else.
    print(f"student {args.student}, {args.objective}, {len(everything)} sentences")
    small = student_config(args.student, config)
    objective = resolve(args.objective, small.shape, config.shape)
    speaker = LiveTeacher(teacher, taught, objective.teacher_capture)
    feed = Feed(everything, lengths, batch_size=64, seed=0, teacher=speaker)
    start = init_student(args.student, config, checkpoint.params, jax.random.key(0))
    student = train(Bert(small), start, objective, feed, args.steps, 1e-3)

    # The test split, once, and the folder.
    print(f"test accuracy: teacher {accuracy(teacher, taught):.4f}", end=", ")
    print(f"student {accuracy(Bert(small), student):.4f}")
    inputs = TextInputs(max_length, pairs=False)
    save_pretrained(args.output, small, student, tokenizer, texts.label_names, inputs)
    print(args.output)


if __name__ == "__main__":
    run(lambda: main(parse_flags(Minimal, sys.argv[1:], "experiments/minimal.py")))
