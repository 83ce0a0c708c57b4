"""Heads that read every token: BERTs, as transformers names them, and BiLSTMs."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from distill_jax.core.types import as_batch
from distill_jax.models.bert import BertConfig, init_bert
from distill_jax.models.build import build_model, load_model, student_family
from distill_jax.models.hf_reference import reference_logits
from distill_jax.models.huggingface import load_pretrained, save_pretrained
from distill_jax.models.loaded import Loaded, model_digest

NAMES = ("O", "B-x", "I-x")
CONFIG = BertConfig(17, 8, 2, 2, 16, max_positions=12, pooling="tokens", num_labels=3)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    where = np.arange(10)[None] < np.array([10, 7, 4])[:, None]
    ids = np.where(where, rng.integers(5, 17, (3, 10)), 0).astype(np.int32)
    types = np.where(where & (np.arange(10) > 3), 1, 0).astype(np.int32)
    return as_batch(ids, where, types)


def said(config, params, batch):
    model = build_model(config)
    output = jax.jit(lambda own: model.apply({"params": own}, batch, train=False))(params)
    return np.asarray(output.logits_BC), output


def test_the_head_reads_each_token_by_itself(batch):
    params = init_bert(CONFIG, jax.random.key(1))
    logits, output = said(CONFIG, params, batch)
    assert logits.shape == (3, 10, 3) and CONFIG.shape.per_token
    assert "pooling" not in params
    hidden = np.asarray(output.hidden_states[2])
    head = params["classifier"]
    expected = hidden @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    pooled = dataclasses.replace(CONFIG, pooling="cls")
    at_first, _ = said(pooled, params, batch)
    np.testing.assert_allclose(at_first, logits[:, 0], atol=1e-6)


def test_a_folder_is_transformers_token_classifier(toy_teacher, tmp_path, batch):
    params = init_bert(CONFIG, jax.random.key(1))
    folder = tmp_path / "tagger"
    save_pretrained(folder, CONFIG, params, toy_teacher / "tokenizer.json", NAMES)
    raw = json.loads((folder / "config.json").read_text())
    assert (raw["model_type"], raw["architectures"]) == ("bert", ["BertForTokenClassification"])
    assert not (folder / "modeling_distill_jax.py").exists()
    loaded = load_model(folder)
    assert loaded.config == CONFIG and loaded.label_names == NAMES
    logits, _ = said(loaded.config, loaded.params, batch)
    tokens = np.asarray(batch.input_ids_BT), np.asarray(batch.token_type_ids_BT)
    where = np.asarray(batch.where_BT)
    reference = reference_logits(folder, *tokens, where)
    np.testing.assert_allclose(reference[where], logits[where], atol=1e-4)


def test_any_checkpoint_may_get_such_a_head(toy_teacher):
    loaded = load_pretrained(toy_teacher, pooling="tokens", num_labels=3, fresh_classifier=True)
    assert loaded.config.pooling == "tokens" and loaded.fresh == ("classifier",)
    assert loaded.params["classifier"]["kernel"].shape == (16, 3)


@pytest.mark.parametrize("name", ["1x8x2", "l1", "bilstm-2", "bilstm-random-3"])
def test_students_have_the_head_of_their_teacher(name, batch):
    teacher = Loaded(CONFIG, init_bert(CONFIG, jax.random.key(1)), None, "", NAMES)
    teacher = dataclasses.replace(teacher, digest=model_digest(CONFIG, teacher.params))
    family = student_family(name)
    assert family.tokens
    config = family.student(name, CONFIG, pooling="teacher", layers="spread")
    params = family.start(name, teacher, jax.random.key(0), pooling="teacher", layers="spread")
    logits, _ = said(config, params, batch)
    assert logits.shape == (3, 10, 3) and config.shape.per_token
    longer = as_batch(*(np.pad(np.asarray(x), ((0, 0), (0, 2))) for x in
                        (batch.input_ids_BT, batch.where_BT, batch.token_type_ids_BT)))  # fmt: skip
    where = np.asarray(batch.where_BT)
    np.testing.assert_allclose(
        said(config, params, longer)[0][:, :10][where], logits[where], atol=1e-5
    )


def test_what_was_filed_before_keeps_its_name():
    plain = dataclasses.replace(CONFIG, pooling="mean")
    student = student_family("bilstm-random-3")
    before = student.student("bilstm-random-3", plain)
    assert not before.per_token
    assert model_digest(before, {}) == model_digest(dataclasses.replace(before), {})


def test_pytorch_says_the_same(toy_teacher, tmp_path, batch):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    params = init_bert(CONFIG, jax.random.key(1))
    save_pretrained(tmp_path / "m", CONFIG, params, toy_teacher / "tokenizer.json", NAMES)
    model = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path / "m").eval()
    where = np.asarray(batch.where_BT)
    inputs = {
        "input_ids": batch.input_ids_BT,
        "token_type_ids": batch.token_type_ids_BT,
        "attention_mask": where.astype(int),
    }
    given = {name: torch.tensor(np.asarray(array)) for name, array in inputs.items()}
    with torch.no_grad():
        theirs = model(**given).logits.numpy()
    np.testing.assert_allclose(theirs[where], said(CONFIG, params, batch)[0][where], atol=1e-4)
