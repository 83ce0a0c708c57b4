"""Teachers and students of other architectures in a table: trained together, kept, asked."""

import csv
import io
from functools import partial

import jax
import numpy as np
import pytest
from rich.console import Console

from distill_jax.cli.compare import CompareLosses, sweep_of
from distill_jax.core.errors import UserError
from distill_jax.core.mesh import make_mesh
from distill_jax.engine import run as run_module
from distill_jax.engine.engine import Engine
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.evaluation.open_classifier import open_classifier
from distill_jax.models.bert import init_bert
from distill_jax.models.bert_kin import BERT_KIN, BertKinConfig
from distill_jax.models.build import family_of, load_model
from distill_jax.tasks.classification.models import check_student
from distill_jax.tasks.classification.table import Classification


@pytest.fixture
def run(toy_reviews, tmp_path, monkeypatch):
    """(teacher, students, changes) -> a table of ``compare-losses``, its rows, its folder."""
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    one_device = partial(Engine, mesh=make_mesh(jax.devices()[:1]))
    monkeypatch.setattr(run_module, "Engine", one_device)

    def run(teacher, *students, objective="kl", **changes):
        args = CompareLosses(
            data=f"files:{toy_reviews}", teacher=(str(teacher),), students=students,
            objectives=(objective,), seeds=(0, 1), label_fraction=0.5, steps=6, evaluations=1,
            yardsticks=False, teacher_epochs=1, teacher_min_steps=0, max_shapes=1, max_length=16,
            batch_size=16, teacher_rates=(1e-3,), **changes,
        )  # fmt: skip
        reporter = Reporter(Console(file=io.StringIO(), width=200))
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        spec, rows = run_table(
            Classification(sweep_of(args)), out, reporter, track="none", strategy="vmap"
        )
        return spec, rows, out

    return run


@pytest.fixture
def roberta(toy_teacher, tmp_path):
    """A RoBERTa that reads the toy reviews' words."""
    config = BertKinConfig(
        17, 16, 2, 2, 32, max_positions=34, type_vocab_size=1, num_labels=2,
        architecture="roberta", first_position=2,
    )  # fmt: skip
    params = init_bert(config, jax.random.key(0))
    tokenizer = load_model(toy_teacher).tokenizer_file
    BERT_KIN.save(tmp_path / "roberta", config, params, tokenizer, ("a", "b"))
    return tmp_path / "roberta"


def asked(toy_reviews, folder):
    """What a run kept of the test split, and what its folder says of the texts."""
    with open(toy_reviews / "test.csv", encoding="utf-8") as file:
        texts = [row["sentence"] for row in csv.DictReader(file)]
    kept = np.load(folder / "test_logits.npz")
    names = kept["label_names"][kept["logits_NC"].argmax(axis=1)]
    opened = open_classifier(folder)
    return list(names), [answer.label for answer in opened.classify(texts)], opened.model.config


@pytest.mark.long
def test_students_of_new_families_learn_from_layers_and_answer_from_their_folders(
    run, toy_teacher, toy_reviews
):
    students = {"distilbert": "bert_kin", "mobilebert-1": "mobilebert"}
    _, rows, out = run(toy_teacher, *students, objective="hidden_mse + kl")
    for student, family in students.items():
        of_student = [row for row in rows if row.group == student]
        assert len(of_student) == 2
        kept, said, config = asked(toy_reviews, out / "runs" / of_student[0].hash)
        assert kept == said and family_of(config).name == family


@pytest.mark.long
def test_a_roberta_teaches_students_of_its_own_kind_from_where_the_flag_says(
    run, roberta, toy_reviews
):
    """Attention and hidden states too; from the whole fine-tuned teacher no step is needed to agree
    with it. Folders say what they are."""
    _, rows, out = run(
        roberta,
        "l2",
        objective="attention_kl + hidden_mse + kl",
        student_start="1*teacher",
        copied_learning_rate=1e-9,
    )
    (teacher,) = [row for row in rows if row.row == "teacher"]
    students = [row for row in rows if row.group == "l2"]
    assert {row.config["start"] for row in students} == {"1*teacher"}
    for row in students:
        assert row.metrics["test/fidelity"] == 1 and row.metrics["test/kl_to_teacher"] < 1e-6
    for row in (teacher, students[0]):
        kept, said, config = asked(toy_reviews, out / "runs" / row.hash)
        assert kept == said
        assert (config.architecture, config.first_position) == ("roberta", 2)
        assert load_model(out / "runs" / row.hash / "model").label_names == ("neg", "pos")


def test_what_no_student_can_have_is_refused_before_training(run, toy_teacher, roberta):
    with pytest.raises(UserError, match="has no start 'truncated'"):
        run(toy_teacher, "mobilebert-1", student_start="truncated")
    with pytest.raises(UserError, match=r"is made of a BERT.s layers.*take l1"):
        run(roberta, "distilbert")
    with pytest.raises(UserError, match="unknown start of a student"):
        run(toy_teacher, "tiny", student_start="nowhere")


def test_the_start_counts_in_a_run_s_name_only_where_it_is_not_usual():
    def cell(start):
        args = CompareLosses(students=("l2",), student_start=start)
        base = sweep_of(args).base
        return base.but(data_digest="d", teacher_digest="t")

    hashes = {start: cell(start).hash for start in ("usual", "random", "0.5*teacher")}
    assert len(set(hashes.values())) == 3
    assert "start" not in cell("usual").setup.identity(cell("usual"))
    told = sweep_of(CompareLosses(students=("l2",), student_start="0.5*teacher")).protocol
    assert any("every row, `ce` too, has something of the fine-tuned teacher" in x for x in told)
    assert not any("Students start" in x for x in sweep_of(CompareLosses()).protocol)
    assert check_student(cell("0.5*teacher").but(student="l2"), BertKinConfig(9, 4, 2, 2, 8))
