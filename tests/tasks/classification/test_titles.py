"""Few labels of many classes, without a flag: the teacher beats what needs no teacher."""

import csv
import dataclasses
import io
import re
from collections import Counter
from functools import partial

import jax
import pytest
from rich.console import Console
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from titles import make_small_teacher, make_titles

from distill_jax.cli.compare import CompareLosses, sweep_of
from distill_jax.core.mesh import make_mesh
from distill_jax.engine import run as run_module
from distill_jax.engine.engine import Engine
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.tasks.classification.table import Classification


def rows_of(file):
    with open(file, newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    return [row["sentence"] for row in rows], [row["label"] for row in rows]


def yardsticks(folder):
    """Accuracy on test of the majority class, and of logistic regression on TF-IDF."""
    (texts, labels), (test_texts, test_labels) = map(
        rows_of, (folder / "train.csv", folder / "test.csv")
    )
    [(majority, _)] = Counter(labels).most_common(1)
    words = TfidfVectorizer()
    model = LogisticRegression(max_iter=1000).fit(words.fit_transform(texts), labels)
    return (
        test_labels.count(majority) / len(test_labels),
        model.score(words.transform(test_texts), test_labels),
    )


@pytest.mark.slow
@pytest.mark.long
def test_the_teacher_of_product_titles_beats_its_yardsticks(minilm_folder, tmp_path, monkeypatch):
    """Slow: some hundred steps at two rates each, of one layer of MiniLM."""
    monkeypatch.setattr(run_module, "Engine", partial(Engine, mesh=make_mesh(jax.devices()[:1])))
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    titles = make_titles(tmp_path / "titles", {"train": 550, "dev": 100, "test": 300})
    teacher = make_small_teacher(minilm_folder, titles, tmp_path / "teacher")

    def accuracy(**changes):
        args = CompareLosses(
            data=f"files:{titles}",
            teacher=str(teacher),
            students=("1x8x2",),
            objectives=("ce",),
            seeds=(0,),
            steps=1,
            track="none",
        )
        out = io.StringIO()
        sweep = sweep_of(dataclasses.replace(args, **changes))
        folder = tmp_path / f"out{len(changes)}"
        _, rows = run_table(
            Classification(sweep), folder, Reporter(Console(file=out, width=200)), track="none"
        )
        [row] = [row for row in rows if row.row == "teacher"]
        return row.metrics["test/accuracy"], out.getvalue()

    of_majority, of_words = yardsticks(titles)
    assert of_majority < 0.2 < of_words < 0.95
    by_default, said = accuracy()
    assert re.search(r"teacher: rate \de-4 of 1e-4, 2e-4 by validation", said)
    assert by_default > of_words + 0.03

    three_passes, said = accuracy(
        teacher_epochs=3.0, teacher_learning_rate=1e-4, teacher_patience=0
    )
    assert three_passes < of_words
    assert "teacher: best step 54 of 54" in said
