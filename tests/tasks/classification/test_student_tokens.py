"""Students with tokens of their own: fewer embeddings, a teacher that reads its own, refusals."""

import io

import numpy as np
import pytest
from rich.console import Console
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from distill_jax.cli.compare import sweep_of
from distill_jax.core.errors import UserError
from distill_jax.engine.options import RunOptions
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.evaluation.open_classifier import open_classifier
from distill_jax.models.huggingface import load_pretrained
from distill_jax.models.vocabularies import transferred_embeddings
from distill_jax.tasks.classification import supplies as supplies_module
from distill_jax.tasks.classification.cells import ClassifierSetup
from distill_jax.tasks.classification.table import Classification
from distill_jax.teachers.cached import TeacherCache


def run(args, folder, **how):
    out = io.StringIO()
    how = {"strategy": "sequential", "options": args.options, **how}
    task = Classification(sweep_of(args))
    spec, rows = run_table(task, folder, Reporter(Console(file=out, width=400)), **how)
    return spec, rows, out.getvalue()


@pytest.mark.parametrize(("vocabulary", "student"), [("occurring", "l1"), ("64", "1x8x2")])
def test_a_student_reads_tokens_of_its_own(small_table, toy_teacher, tmp_path, vocabulary, student):
    """As a population; and what is finished is found again."""
    args = small_table(student_vocab=vocabulary, students=(student,), objectives=("kl",))
    spec, rows, said = run(args, tmp_path / "out", strategy="vmap")
    _, _, again = run(args, tmp_path / "out", options=RunOptions(resume="must"))
    assert "2 of 2 runs are finished already" in again
    assert f"--student-vocab {vocabulary}: a vocabulary of its own" in said
    assert "student and teacher see the same examples" in said
    teacher = load_pretrained(toy_teacher)
    for place in spec.places:
        folder = tmp_path / "out/runs" / place.hash
        opened = open_classifier(folder)
        own = Tokenizer.from_file(str(opened.tokenizer_file))
        assert opened.model.config.vocab_size == own.get_vocab_size()
        row = next(row for row in rows if row.hash == place.hash)
        assert row.config["vocabulary"] == vocabulary
        assert np.isfinite(row.metrics["test/fidelity"])
        if vocabulary == "occurring":
            assert own.get_vocab_size() <= teacher.config.vocab_size
        else:  # trained on texts that hold numbers, which the teacher does not know
            assert row.metrics["test/unknown"] < rows[0].metrics["test/unknown"]


def test_its_teacher_is_asked_about_the_teacher_s_tokens(small_table, tmp_path, monkeypatch):
    """Whatever a student reads, it is told the same of an example."""
    told = {}

    class Heard(supplies_module.Supplies):
        def outputs(self, run):
            heard = super().outputs(run)
            if run.fitted[-1].needs_teacher:
                assert isinstance(heard, TeacherCache)
                table = run.splits.everything
                rows = np.arange(len(table))
                batch = table.batch(rows, int(table.lengths_N.max()), len(rows))
                logits = heard(batch).logits_BC
                told[run.cell.setup.vocabulary] = dict(zip(table.ids, logits, strict=True))
            return heard

    monkeypatch.setattr("distill_jax.tasks.classification.table.Supplies", Heard)
    for vocabulary in ("", "64"):
        args = small_table(student_vocab=vocabulary, objectives=("kl",), seeds=(0,))
        run(args, tmp_path / f"out-{vocabulary}")
    first = told.pop("")
    own = told.pop("64")
    assert own.keys() == first.keys()
    for example, logits_C in own.items():
        np.testing.assert_array_equal(logits_C, first[example])


def test_an_objective_that_compares_tokens_is_refused_by_name(small_table, tmp_path):
    args = small_table(student_vocab="64", objectives=("hidden_mse + attention_kl + kl",))
    with pytest.raises(UserError, match=r"hidden_mse, attention_kl of .* compares tokens"):
        run(args, tmp_path / "out")
    live = small_table(student_vocab="occurring", objectives=("kl",), teacher_outputs="live")
    with pytest.raises(UserError, match="needs --teacher-outputs cache"):
        run(live, tmp_path / "out")
    labels = small_table(student_vocab="occurring", objectives=("ce",), seeds=(0,))
    run(labels, tmp_path / "labels")  # hears nothing, compares nothing


@pytest.mark.parametrize("given", ["all", "10", "-64", "64.0"])
def test_what_is_no_vocabulary_is_said(given):
    with pytest.raises(UserError, match="occurring or from 64 to"):
        ClassifierSetup(vocabulary=given)


def test_embeddings_are_taken_along_by_the_pieces_of_a_token(tmp_path):
    def write(name, tokens):
        made = Tokenizer(models.WordPiece({t: n for n, t in enumerate(tokens)}, unk_token="[UNK]"))
        made.normalizer = normalizers.BertNormalizer()
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.save(str(tmp_path / name))
        return tmp_path / name

    old = write("old.json", ["[UNK]", "play", "##ing", "un", "##play"])
    new = write("new.json", ["[UNK]", "playing", "##ing", "unplay", "zzz"])
    table = np.arange(10, dtype=np.float32).reshape(5, 2)
    made = transferred_embeddings(table, old, new)
    np.testing.assert_array_equal(made[0], table[0])
    np.testing.assert_array_equal(made[1], table[[1, 2]].mean(axis=0))
    np.testing.assert_array_equal(made[2], table[2])
    np.testing.assert_array_equal(made[3], table[[3, 4]].mean(axis=0))
    np.testing.assert_array_equal(made[4], table[0])  # unknown to the old one too
