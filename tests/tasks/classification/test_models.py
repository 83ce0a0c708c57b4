"""What a table's models start from, and whether what is saved is what was trained."""

import dataclasses
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from distill_jax.cli import compare
from distill_jax.core.errors import UserError
from distill_jax.data.load import load_dataset
from distill_jax.data.tokenise import tokenise_texts
from distill_jax.engine.cell import Cell, Train
from distill_jax.evaluation.predict import logits_of, predict_logits
from distill_jax.models.bert import Bert, BertConfig
from distill_jax.models.huggingface import TextInputs, load_pretrained
from distill_jax.tasks.classification.cells import (
    ClassifierSetup,
    DataConfig,
    TeacherConfig,
    TrainingConfig,
)
from distill_jax.tasks.classification.models import (
    check_saved,
    check_student,
    inputs_of,
    load_checkpoint,
)
from distill_jax.tasks.classification.splits import prepare_texts
from distill_jax.tasks.classification.supplies import _check_inputs

MINILM = BertConfig(30522, 384, 6, 12, 1536, pooling="mean")
TEXTS = ["the film is good", "bad", "the plot and the cast and the music", "bad film", "x"]


@pytest.fixture
def saved(toy_teacher, tmp_path):
    """A folder, a table, and the logits of its model."""
    loaded = load_pretrained(toy_teacher)
    table, _ = tokenise_texts(TEXTS, loaded.tokenizer_file, max_length=16)
    logits_NC = predict_logits(
        logits_of(Bert(loaded.config)), loaded.params, table, shape_lengths=(16,), batch_size=8
    )
    shutil.copytree(toy_teacher, tmp_path / "model")
    return tmp_path / "model", table, logits_NC


def test_a_folder_that_answers_as_the_model_passes(saved):
    check_saved(*saved)


@pytest.mark.parametrize("part", ["bert.pooler.dense.weight", "classifier.bias"])
def test_a_folder_that_answers_otherwise_is_refused(saved, part):
    folder, table, logits_NC = saved
    tensors = load_file(folder / "model.safetensors")
    rng = np.random.default_rng(0)
    tensors[part] = rng.normal(0, 0.1, tensors[part].shape).astype(np.float32)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match="answers otherwise than the trained one: logits differ by"):
        check_saved(folder, table, logits_NC)


def test_students_of_your_own_data_have_bert_s_pooler():
    """So that transformers runs their folders as they are; copied ones keep the teacher's."""

    def poolings(*arguments):
        args = compare.parse_arguments(["--students", "tiny", "l2", *arguments], "test")
        entries = compare.sweep_of(args).entries()
        return {e.group: check_student(e.cell, MINILM).pooling for e in entries}

    assert poolings() == {"tiny": "mean", "l2": "mean"}
    assert poolings("--data", "files:x") == {"tiny": "pooler", "l2": "mean"}
    assert poolings("--data", "tfds:glue/sst2") == {"tiny": "pooler", "l2": "mean"}
    flags = ("--data", "files:x", "--student-pooling")
    assert poolings(*flags, "mean") == {"tiny": "mean", "l2": "mean"}
    assert poolings(*flags, "pooler") == {"tiny": "pooler", "l2": "pooler"}
    assert poolings("--student-pooling", "teacher") == {"tiny": "mean", "l2": "mean"}


def test_a_student_of_images_has_no_pooling():
    cell = Cell(
        ClassifierSetup(
            data=DataConfig("digits"), teacher=TeacherConfig("cnn-4-8"), student="cnn-2-4"
        ),
        (Train("ce", TrainingConfig()),),
    )
    teacher = load_checkpoint("cnn-4-8", num_labels=10, fresh=True).config
    assert check_student(cell, teacher)
    with pytest.raises(UserError, match="of images has no pooling 'mean'"):
        check_student(cell.but(pooling="mean"), teacher)


def test_a_teacher_has_the_pooling_that_is_asked_for(toy_teacher, tmp_path):
    """One saved as a masked language model has no pooler: it is drawn where that is said."""
    folder = shutil.copytree(toy_teacher, tmp_path / "mlm")
    tensors = load_file(folder / "model.safetensors")
    encoder = {k: v for k, v in tensors.items() if not k.startswith(("bert.pooler", "classifier"))}
    save_file(encoder | {"cls.predictions.bias": np.zeros(3)}, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"no pooler weights. --teacher-pooling"):
        load_checkpoint(str(folder), num_labels=2, fresh=True)
    drawn = load_checkpoint(str(folder), num_labels=2, fresh=True, pooling="pooler")
    assert drawn.fresh == ("classifier", "pooler") and drawn.config.pooling == "pooler"
    mean = load_checkpoint(str(folder), num_labels=2, fresh=True, pooling="mean")
    assert mean.fresh == ("classifier",) and mean.digest != drawn.digest
    args = compare.parse_arguments(["--teacher-pooling", "mean"], "test")
    assert compare.sweep_of(args).base.setup.teacher.pooling == "mean"


def test_pairs_want_a_teacher_that_tells_two_texts_apart(toy_teacher, tmp_path):
    rows = "\n".join(f"the film is,good {n},{n % 2}" for n in range(20))
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.csv").write_text(f"a,b,label\n{rows.replace('film', split)}\n")
    checkpoint = load_checkpoint(str(toy_teacher), num_labels=2, fresh=True)
    data = DataConfig(f"files:{tmp_path}", "a", "b", label_fraction=1.0)
    dataset = load_dataset(data.name, text="a", text_b="b", label="label")
    task = prepare_texts(data, dataset, checkpoint.tokenizer_file)
    _check_inputs(task, checkpoint)
    one = dataclasses.replace(checkpoint.config, type_vocab_size=1)
    with pytest.raises(UserError, match="has type_vocab_size 1: it was not made for pairs"):
        _check_inputs(task, dataclasses.replace(checkpoint, config=one))


def test_what_a_model_was_trained_on_goes_with_it():
    assert inputs_of(DataConfig(max_length=40)) == TextInputs(40, False)
    assert inputs_of(DataConfig("files:x", "a", "b")) == TextInputs(128, True)
