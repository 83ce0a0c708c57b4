"""The PyTorch side of the benchmarks computes what ours does. Runs where PyTorch is installed."""

import dataclasses
import json

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benches import bench_module  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from distill_jax.core.mesh import make_mesh  # noqa: E402
from distill_jax.data.tokenise import TokenTable  # noqa: E402
from distill_jax.models.bert import Bert  # noqa: E402
from distill_jax.models.huggingface import load_pretrained  # noqa: E402
from distill_jax.objectives.resolve import resolve  # noqa: E402
from distill_jax.teachers.live import LiveTeacher  # noqa: E402
from distill_jax.training.layout import Layout  # noqa: E402
from distill_jax.training.loop import step_numbers  # noqa: E402
from distill_jax.training.optimizer import OptimizerConfig, learning_rate, make_optimizer  # noqa: E402
from distill_jax.training.step import make_step  # noqa: E402

OBJECTIVES = ("ce", "kl", "mse_logits", "hidden_mse + kl")


@pytest.fixture(scope="module")
def ours(toy_teacher, toy_reviews, tmp_path_factory):
    """The folder that the PyTorch script reads."""
    folder = tmp_path_factory.mktemp("bench") / "inputs"
    flags = bench_module("tiny").flags_for(toy_reviews, toy_teacher)
    bench_module("export").export(flags, folder)
    return folder


@pytest.fixture(scope="module")
def theirs():
    """What the PyTorch script trains."""
    return bench_module("torch_model")


@pytest.fixture(scope="module")
def batches(ours, theirs):
    """The same twelve sentences for both, half of them without a label."""
    arrays = {name: each.numpy() for name, each in load_file(ours / "tokens.safetensors").items()}
    labels = arrays["train.labels"]
    rows = np.sort(np.r_[np.flatnonzero(labels < 0)[:6], np.flatnonzero(labels >= 0)[:6]])
    table = TokenTable(
        ids=tuple(map(str, range(len(labels)))),
        tokens_S=arrays["train.tokens"],
        token_types_S=np.zeros(len(arrays["train.tokens"]), np.int8),
        offsets_N1=arrays["train.offsets"],
        labels_N=labels,
    )
    own = table.batch(rows, int(table.lengths_N[rows].max()), len(rows))
    tokens = torch.tensor(np.asarray(own.input_ids_BT)).long()
    mask = torch.tensor(np.asarray(own.where_BT)).long()
    labels = torch.tensor(labels[rows]).long()
    return own, theirs.Batch(tokens, mask, labels, torch.tensor(rows))


def loaded(folder):
    """A model of ours that drops nothing."""
    model = load_pretrained(folder)
    config = dataclasses.replace(model.config, dropout=0.0, attention_dropout=0.0)
    return config, model.params


def objective_of(theirs, folder, text):
    """The PyTorch objective of the exported table, with its projections."""
    runs = json.loads((folder / "plan.json").read_text())["runs"]
    run = next(run for run in runs if run["objective"] == text)
    maps = torch.nn.ModuleList()
    if run["pairs"]:
        maps = theirs.projections_of(load_file(folder / run["projections"]))
    return theirs.Objective(text, run["pairs"], maps)


def test_a_students_logits_are_the_same(ours, theirs, batches):
    own, their = batches
    config, params = loaded(ours / "student-0")
    said = Bert(config).apply({"params": params}, own)
    model = theirs.Classifier.load(ours / "student-0").eval()
    with torch.no_grad():
        heard = model(their.ids, their.mask, hidden=True)
    np.testing.assert_allclose(heard.logits, said.logits_BC, atol=1e-4)
    where = np.asarray(own.where_BT)
    for layer, hidden in enumerate(heard.hidden):
        np.testing.assert_allclose(hidden[where], said.hidden_states[layer][where], atol=1e-4)


@pytest.mark.parametrize("text", OBJECTIVES)
def test_a_step_is_the_same(ours, theirs, batches, text):
    """Loss, gradients, clipping, decay and Adam, twice."""
    own, their = batches
    config, params = loaded(ours / "student-0")
    teacher_config, teacher_params = loaded(ours / "teacher")
    resolved = resolve(text, config.shape, teacher_config.shape)
    settings = OptimizerConfig(learning_rate=1e-3, clip_norm=0.1, warmup=0.0)
    optimizer = make_optimizer(settings)
    layout = Layout(make_mesh(jax.devices()[:1]))
    state = layout.new_state(params, resolved.init_params(jax.random.key(0)), optimizer)
    step = layout.compile(make_step(Bert(config), resolved, optimizer))
    speaker = LiveTeacher(Bert(teacher_config), teacher_params, resolved.teacher_capture)
    said = speaker(own) if resolved.needs_teacher else None

    model = theirs.Classifier.load(ours / "student-0").eval()
    teacher = theirs.Classifier.load(ours / "teacher").eval()
    objective = objective_of(theirs, ours, text)
    their_optimizer = theirs.adamw([model, objective.projections], settings.weight_decay)
    with torch.no_grad():
        heard = teacher(their.ids, their.mask, objective.reads_hidden)
    for number in range(2):
        numbers = layout.put_numbers(step_numbers(resolved, settings, 0, number, 10))
        state, metrics = step(state, *layout.put_batch(own, said), numbers)
        loss = theirs.take_step(
            model,
            objective,
            their_optimizer,
            their,
            heard if said is not None else None,
            rate=learning_rate(settings, number, 10),
            clip_norm=settings.clip_norm,
            precision="f32",
        )
        assert loss.item() == pytest.approx(float(metrics.loss), abs=1e-5)
    moved = np.asarray(state.params["classifier"]["kernel"]).T
    np.testing.assert_allclose(model.classifier.weight.detach(), moved, atol=1e-5)
    words = np.asarray(state.params["embeddings"]["word"]["embedding"])
    theirs_words = model.backbone.embeddings.word_embeddings.weight.detach()
    np.testing.assert_allclose(theirs_words, words, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 7, 81, 266])
def test_rates_are_the_same(steps):
    table = bench_module("torch_table")
    config = OptimizerConfig(learning_rate=1e-3)
    training = {"learning_rate": 1e-3, "steps": steps, "warmup": config.warmup}
    rates = [table.rate_at(training, step) for step in range(steps)]
    assert rates == pytest.approx([learning_rate(config, step, steps) for step in range(steps)])


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("teacher", ["live", "cached"])
def test_the_whole_table(ours, precision, teacher):
    table = bench_module("torch_table")
    made = table.main(table.Arguments(ours, precision=precision, teacher=teacher))
    assert len(made["runs"]) == 1 + 4 * 2
    assert all(0.2 <= run["accuracy"] <= 1 for run in made["runs"])
    parts = sum(seconds for name, seconds in made["seconds"].items() if name != "total")
    assert {"fine-tuning the teacher", "asking the teacher", "steps"} <= made["seconds"].keys()
    assert parts <= made["seconds"]["total"]


def test_an_epoch_has_every_sentence_once_in_batches_of_like_length(ours):
    table_module = bench_module("torch_table")
    table = table_module.read_table(load_file(ours / "tokens.safetensors"), "train")
    batches = table.epoch(8, torch.Generator().manual_seed(0))
    assert sorted(torch.cat(batches).tolist()) == list(range(len(table)))
    padding = [(1 - table.batch(rows).mask.double()).mean() for rows in batches]
    assert np.mean(padding) < 0.15
