"""Every loss of the library on real reviews, through the step that the experiment takes.

Models are small and random so that forty-odd programs compile in a minute; sentences, labels,
batches, teacher outputs and step are those of ``experiments/compare_losses.py``.
"""

import dataclasses

import jax
import pytest

from distill_jax.cli.compare import CompareLosses, sweep_of
from distill_jax.core.mesh import make_mesh, replicate, shard_batch
from distill_jax.core.types import Capture
from distill_jax.models.bert import Bert, BertConfig, init_bert
from distill_jax.objectives.registry import names
from distill_jax.objectives.resolve import resolve
from distill_jax.tasks.classification.cells import DataConfig, TrainingConfig
from distill_jax.tasks.classification.models import check_student
from distill_jax.tasks.classification.splits import prepare_texts
from distill_jax.teachers.live import LiveTeacher
from distill_jax.training.feed import Feed
from distill_jax.training.loop import step_numbers
from distill_jax.training.optimizer import OptimizerConfig, make_optimizer
from distill_jax.training.state import init_state
from distill_jax.training.step import CompiledStep, make_step

STUDENT = BertConfig(30522, 8, 2, 2, 16, max_positions=128, pooling="mean")
TEACHER = BertConfig(30522, 12, 2, 3, 24, max_positions=128, pooling="mean", initializer_range=0.5)
OPTIMIZER = OptimizerConfig(learning_rate=5e-3, warmup=0.0, schedule="constant")
STEPS = 12


@pytest.fixture(scope="module")
def task(review_dataset, minilm_folder):
    """Product reviews: a fifth has labels, the rest is the transfer set."""
    return prepare_texts(
        DataConfig("review_snippets/product", label_fraction=0.2, max_length=24),
        review_dataset("product"),
        minilm_folder / "tokenizer.json",
    )


@pytest.fixture(scope="module")
def speaker():
    """A teacher that says everything, so that it compiles once."""
    layers = (1, 2)
    everything = Capture((0, *layers), layers, layers, layers, layers, layers)
    return LiveTeacher(Bert(TEACHER), init_bert(TEACHER, jax.random.key(1)), everything)


@pytest.mark.long
@pytest.mark.parametrize("name", names("classes"))
def test_it_falls_on_real_reviews_and_numbers_do_not_recompile(name, task, speaker):
    objective = resolve(f"0.5*{name}", STUDENT.shape, TEACHER.shape)
    lengths = task.training_lengths(TrainingConfig(batch_size=16, max_shapes=1))
    feed = Feed(task.everything, lengths, 16, 0, speaker)
    optimizer = make_optimizer(OPTIMIZER)
    student = dataclasses.replace(STUDENT, dropout=0.0, attention_dropout=0.0)
    step = CompiledStep(make_step(Bert(student), objective, optimizer))
    mesh = make_mesh(jax.devices()[:1])
    params = init_bert(student, jax.random.key(0))
    state = replicate(init_state(params, objective.init_params(jax.random.key(2)), optimizer), mesh)

    batch = next(b for b in map(feed, range(99)) if b[0].label_where_B.sum() > 3)
    losses = []
    for number in range(STEPS):
        numbers = step_numbers(objective, OPTIMIZER, 0, number, STEPS)
        state, metrics = step(state, *shard_batch(batch, mesh), numbers)
        losses.append(float(metrics.loss))
    assert losses[-1] < losses[0], losses

    other = resolve(f"linear(3, 1)*{name}", STUDENT.shape, TEACHER.shape)
    assert other.structure == objective.structure
    step(state, *shard_batch(feed(50), mesh), step_numbers(other, OPTIMIZER, 9, 7, STEPS))
    assert step.traces == 1


def test_the_experiment_takes_every_name():
    """Every loss fits the default students and teacher, before any step."""
    teacher = BertConfig(30522, 384, 6, 12, 1536, pooling="mean")
    args = CompareLosses(objectives=names("classes"), students=("tiny", "l2", "l3"))
    for entry in sweep_of(args).entries():
        student = check_student(entry.cell, teacher)
        assert resolve(entry.cell.objective, student.shape, teacher.shape).terms
