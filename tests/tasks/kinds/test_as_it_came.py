"""Teachers of other tasks than classes whose heads were trained elsewhere, heard as they came."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from exports import noisy
from kind_tables import run

from distill_jax.cli.main import dispatch
from distill_jax.core.errors import UserError
from distill_jax.core.mesh import make_mesh
from distill_jax.evaluation.open_classifier import open_classifier
from distill_jax.export.runtime import open_any
from distill_jax.models.bert import init_bert
from distill_jax.models.hf_config import QUESTIONS, read_json, write_json
from distill_jax.models.hf_export import as_questions
from distill_jax.models.hf_weights import read_tensors
from distill_jax.models.huggingface import load_pretrained, save_pretrained
from distill_jax.tasks.classification.cells import DataConfig
from distill_jax.tasks.classification.models import load_checkpoint
from distill_jax.tasks.classification.supplies import examples_for
from distill_jax.tasks.classification.teacher import as_it_came
from distill_jax.tasks.kinds.kinds import kind_named

MOODS = {"label": "moods", "label_separator": "|"}


@pytest.fixture(scope="module")
def checkpoint(toy_teacher, tmp_path_factory):
    """(names of the outputs, kind of head, what a head reads) -> a folder as the hub has it."""
    loaded = load_pretrained(toy_teacher)

    def made(names, problem=None, pooling="pooler"):
        config = dataclasses.replace(loaded.config, num_labels=len(names), pooling=pooling)
        params = noisy(init_bert(config, jax.random.key(3)))
        folder = tmp_path_factory.mktemp("hub") / "model"
        save_pretrained(folder, config, params, loaded.tokenizer_file, names)
        if problem:
            raw = read_json(folder / "config.json")
            write_json(folder / "config.json", {**raw, "problem_type": problem})
        return folder

    return made


@pytest.fixture
def heard(toy_tasks, toy_tags, toy_questions, tmp_path, monkeypatch):
    """(task, folder of the teacher, label map) -> the examples, and what it says of test."""
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    engine = SimpleNamespace(mesh=make_mesh(jax.devices()[:1]), check_stop=lambda: None)

    def asked(task, folder, label_map=()):
        data = {"tags": toy_tags, "spans": toy_questions}.get(task, toy_tasks)
        more = {"number": {"label": "rating"}, "labels": MOODS, "tags": {"text": "tokens"}}
        config = DataConfig(f"files:{data}", max_length=28, task=task, **more.get(task, {}))
        pooling = config.pooling_of("auto")

        def load(name, num_labels, fresh, **how):
            return load_checkpoint(name, num_labels=num_labels, fresh=fresh, pooling=pooling, **how)

        splits, pretrained = examples_for(config, str(folder), False, load, label_map=label_map)
        return splits, as_it_came(splits, pretrained).answers(engine, splits, splits.test)

    return asked


def texts_of(splits):
    return [splits.test_texts[example][0] for example in splits.test.ids]


def test_a_number_is_heard_in_its_own_units(checkpoint, heard):
    """A student of ours says its scale; a regression head of others says the number itself."""
    folder, kind = checkpoint(("LABEL_0",), "regression"), kind_named("number")
    _, raw_N1 = heard("number", folder)
    kind.mark(folder, {"mean": 3.0, "deviation": 0.5})
    splits, own_N1 = heard("number", folder)
    expected_N = np.array([each.number for each in open_any(folder).classify(texts_of(splits))])
    mean, deviation = splits.fitted["mean"], splits.fitted["deviation"]
    assert own_N1[:, 0] * deviation + mean == pytest.approx(expected_N, abs=1e-4)
    raw_N = raw_N1[:, 0] * deviation + mean
    assert raw_N * 0.5 + 3.0 == pytest.approx(expected_N, abs=1e-4)
    kind.mark(folder, {"mean": "3", "deviation": None})
    with pytest.raises(UserError, match="what is kept of task number beside the model is damaged"):
        heard("number", folder)


def test_labels_are_put_in_the_data_s_order_by_their_names(checkpoint, heard):
    told = "multi_label_classification"
    folder = checkpoint(("music", "Bad", "good"), told)
    kind_named("labels").mark(folder, {"threshold": 0.5})
    splits, said_NC = heard("labels", folder)
    assert splits.label_names == ("bad", "good", "music")
    for own_C, answer in zip(said_NC, open_any(folder).classify(texts_of(splits)), strict=True):
        probs = 1 / (1 + np.exp(-own_C.astype(np.float64)))
        due = [answer.probabilities[name] for name in ("Bad", "good", "music")]
        assert probs == pytest.approx(due, abs=1e-5)
    with pytest.raises(UserError, match=r"does not name its labels: .*--label-map"):
        heard("labels", checkpoint(("LABEL_0", "LABEL_1", "LABEL_2"), told))
    other = checkpoint(("sad", "good", "music", "dance"), told)
    with pytest.raises(UserError, match=r"are not the data's.*--label-map"):
        heard("labels", other)
    pairs = (("sad", "bad"), ("good", "good"), ("music", "music"))
    assert heard("labels", other, pairs)[1].shape == said_NC.shape


def test_tags_are_put_in_the_data_s_order_by_their_names(checkpoint, heard):
    names = ("I-praise", "B-praise", "O", "I-blame", "B-blame")
    folder = checkpoint(names, pooling="tokens")
    splits, said_NTC = heard("tags", folder)
    assert splits.label_names[0] == "O" and set(splits.label_names) == set(names)
    plain = load_pretrained(folder)
    columns = [names.index(name) for name in splits.label_names]
    kernel = np.asarray(plain.params["classifier"]["kernel"])[:, columns]
    assert said_NTC.shape[-1] == 5 and kernel.shape[1] == 5
    kind_named("tags").mark(folder, {"tags": list(names)})
    tags = [each.tags for each in open_any(folder).classify(texts_of(splits))]
    form = kind_named("tags").form({"tags": list(splits.label_names)}, splits.label_names, folder)
    texts = [(text,) for text in texts_of(splits)]
    assert [each.tags for each in form.answers(said_NTC, splits.test, texts)] == tags


def test_answers_are_heard_of_a_head_for_questions(checkpoint, heard):
    """``BertForQuestionAnswering``: other names of weights, the same outputs."""
    folder = checkpoint(("start", "end"), pooling="tokens")
    with pytest.raises(
        UserError, match=r"'token_classification' .*supported .*'question_answering'"
    ):
        heard("spans", folder)
    before = load_pretrained(folder)
    as_questions(folder)
    assert read_json(folder / "config.json")["architectures"] == [QUESTIONS]
    assert {"qa_outputs.weight", "qa_outputs.bias"} <= set(read_tensors(folder))
    after = load_pretrained(folder)
    assert after.digest == before.digest and after.label_names == ("start", "end")
    splits, said_NT2 = heard("spans", folder)
    assert said_NT2.shape[0] == len(splits.test) and np.isfinite(said_NT2).all()
    assert "classifier" in load_pretrained(folder, fresh_classifier=True, num_labels=2).fresh


@pytest.mark.parametrize(
    ("task", "names", "problem", "pooling", "told"),
    [
        ("number", ("a", "b"), None, "pooler", "'single_label_classification'.*'regression'"),
        (
            "number",
            ("a", "b", "c"),
            "regression",
            "pooler",
            "the teacher has 3 classes, the data 1",
        ),
        ("labels", ("bad", "good", "music"), None, "pooler", "'multi_label_classification'; or"),
        ("tags", ("O", "B-praise"), None, "pooler", "'token_classification'; or leave out"),
        ("spans", ("O", "B-praise"), None, "tokens", "'question_answering'; or leave out"),
    ],
)
def test_another_head_is_refused_by_name(task, names, problem, pooling, told, checkpoint, heard):
    with pytest.raises(UserError, match=told):
        heard(task, checkpoint(names, problem, pooling))


def test_a_student_of_another_task_is_refused_by_name(checkpoint, heard):
    folder = checkpoint(("rating",), "regression")
    kind_named("number").mark(folder, {"mean": 0.0, "deviation": 1.0})
    with pytest.raises(UserError, match="model of task number; teaching labels as it came is for"):
        heard("labels", folder)
    with pytest.raises(UserError, match="model of task number; this is for task classes"):
        open_classifier(folder)


@pytest.mark.long
def test_a_table_with_one_and_its_cache(checkpoint, small, tmp_path, capsys):
    folder = checkpoint(("LABEL_0",), "regression")
    args = small(
        "--task", "number", "--label", "rating", teacher=(str(folder),), fine_tune=False,
        teacher_learning_rate=None, objectives=("mse_regression",), cache_dtype="float32",
    )  # fmt: skip
    _, rows, _ = run(args, tmp_path / "out")
    assert [row.row for row in rows] == ["teacher", "mse_regression"]
    (cache,) = (tmp_path / "home/teacher_outputs").iterdir()
    dispatch(["cache", "verify", str(cache), "--sample", "8"])
    assert "the teacher says the same" in capsys.readouterr().out
