"""Folders as Hugging Face lays them out, golden values of MiniLM, and torch itself where it is."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import BertWordPieceTokenizer

from distill_jax.core.errors import UserError
from distill_jax.core.types import Batch
from distill_jax.models.bert import Bert, init_bert
from distill_jax.models.huggingface import (
    TextInputs,
    load_pretrained,
    model_digest,
    save_pretrained,
)

GOLDEN = json.loads((Path(__file__).parent / "golden" / "minilm.json").read_text("utf-8"))
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
WEIGHTS = "model.safetensors"


@pytest.fixture
def config(small_config):
    return dataclasses.replace(small_config, num_layers=2)


@pytest.fixture
def params(config):
    return init_bert(config, jax.random.key(3))


@pytest.fixture
def tokenizer_file(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    file = tmp_path / "tokenizer.json"
    BertWordPieceTokenizer(str(tmp_path / "vocab.txt")).save(str(file))
    return file


@pytest.fixture
def saved(tmp_path, config, params, tokenizer_file):
    folder = tmp_path / "saved"
    save_pretrained(folder, config, params, tokenizer_file, ("bad", "fair", "good"))
    return folder


def rewrite(folder, change):
    """Change a saved folder's tensors in place; ``change`` takes and returns a dict."""
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)


def without(prefix):
    return lambda tensors: {k: v for k, v in tensors.items() if not k.startswith(prefix)}


def equal(one, two):
    return jax.tree.structure(one) == jax.tree.structure(two) and jax.tree.all(
        jax.tree.map(np.array_equal, one, two)
    )


def batch_of(input_ids, token_type_ids, mask):
    rows = len(input_ids)
    return Batch(
        example_ids_B=np.arange(rows, dtype=np.int32),
        input_ids_BT=np.asarray(input_ids, np.int32),
        token_type_ids_BT=np.asarray(token_type_ids, np.int32),
        where_BT=np.asarray(mask, bool),
        labels_B=np.zeros(rows, np.int32),
        label_where_B=np.zeros(rows, bool),
    )


def test_minilm_equals_pytorch(minilm_folder):
    """Golden values of every hidden state, the pooler and attention, within 1e-4."""
    loaded = load_pretrained(minilm_folder)
    assert loaded.fresh == ("classifier",)
    assert loaded.notes == ("not used: embeddings.position_ids",)
    assert loaded.label_names is None
    batch = batch_of(*(GOLDEN[k] for k in ("input_ids", "token_type_ids", "attention_mask")))
    model = Bert(loaded.config)
    output, state = jax.jit(
        lambda params: model.apply(
            {"params": params},
            batch,
            capture_intermediates=lambda module, _: module.name == "pooling",
        )
    )(loaded.params)
    rows = np.arange(3)[:, None, None]
    at = (rows, np.asarray(GOLDEN["positions"])[:, :, None], np.asarray(GOLDEN["features"]))
    assert len(output.hidden_states) == len(GOLDEN["hidden_states"]) == 7
    for level, expected in enumerate(GOLDEN["hidden_states"]):
        hidden_BTD = np.asarray(output.hidden_states[level])
        np.testing.assert_allclose(hidden_BTD[at], expected, atol=1e-4, err_msg=f"level {level}")
    for layer, expected in GOLDEN["attention_probs"].items():
        probs = output.attention_probs[int(layer)][1, 5, 3]
        np.testing.assert_allclose(probs, expected, atol=1e-5)
    pooled_BD = np.asarray(state["intermediates"]["pooling"]["__call__"][0])
    np.testing.assert_allclose(pooled_BD[:, GOLDEN["features"]], GOLDEN["pooler"], atol=1e-4)


@pytest.mark.parametrize("pooling", ["pooler", "mean", "cls"])
def test_round_trip(tmp_path, config, tokenizer_file, pooling):
    config = dataclasses.replace(config, pooling=pooling)
    params = init_bert(config, jax.random.key(3))
    save_pretrained(
        tmp_path / "out", config, params, tokenizer_file, ("x", "y", "z"), TextInputs(9, True)
    )
    loaded = load_pretrained(tmp_path / "out")
    assert loaded.config == config
    assert equal(loaded.params, params)
    assert loaded.label_names == ("x", "y", "z")
    assert loaded.digest == model_digest(config, params)
    assert loaded.fresh == loaded.notes == ()
    assert loaded.inputs == TextInputs(9, True)
    assert loaded.tokenizer_file.read_bytes() == tokenizer_file.read_bytes()


def test_old_names_shards_and_precision(saved, params):
    """gamma/beta, no ``bert.`` prefix, two shards, one of them bfloat16."""
    tensors = load_file(saved / WEIGHTS)
    old = {}
    for name, tensor in tensors.items():
        name = name.removeprefix("bert.")
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        old[name.replace("LayerNorm.bias", "LayerNorm.beta")] = tensor
    old["embeddings.position_ids"] = np.arange(12)[None]
    old["cls.predictions.bias"] = np.zeros(50, np.float32)
    halves = {name: name.startswith("encoder.") for name in old}
    for part, half in (("a.safetensors", False), ("b.safetensors", True)):
        save_file({name: old[name] for name in old if halves[name] == half}, saved / part)
    index = {name: "b.safetensors" if half else "a.safetensors" for name, half in halves.items()}
    (saved / WEIGHTS).unlink()
    (saved / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": index}))
    loaded = load_pretrained(saved)
    assert equal(loaded.params, params)
    assert loaded.notes == ("not used: cls.predictions.bias, embeddings.position_ids",)

    bfloat16 = jax.numpy.bfloat16
    lower = {k: old[k].astype(bfloat16) for k, half in halves.items() if half}
    save_file(lower, saved / "b.safetensors")
    half = load_pretrained(saved).params["layer_1"]["output"]["kernel"]
    assert half.dtype == np.float32
    np.testing.assert_array_equal(half, params["layer_1"]["output"]["kernel"].astype(bfloat16))

    (saved / "b.safetensors").unlink()
    with pytest.raises(UserError, match=r"names 'b.safetensors', which is not in the folder"):
        load_pretrained(saved)


def test_missing_head_is_drawn_by_seed_and_said(saved, params):
    rewrite(saved, without("classifier."))
    one, again = load_pretrained(saved), load_pretrained(saved)
    two = load_pretrained(saved, seed=1, num_labels=5)
    assert one.fresh == two.fresh == ("classifier",)
    assert one.label_names is None
    assert one.config.num_labels == 2
    assert equal(one.params, again.params)
    assert one.digest == again.digest != two.digest
    assert two.params["classifier"]["kernel"].shape == (16, 5)
    assert equal(one.params["layer_2"], params["layer_2"])
    assert np.std(one.params["classifier"]["kernel"]) > 0


def test_another_number_of_classes_needs_a_word(saved):
    with pytest.raises(UserError, match="has 3 classes, the task has 2; without --no-fine-tune"):
        load_pretrained(saved, num_labels=2)
    loaded = load_pretrained(saved, num_labels=2, fresh_classifier=True)
    assert loaded.fresh == ("classifier",)
    assert loaded.notes == ("the checkpoint's classifier was replaced by a fresh one",)


def test_missing_pooler_needs_a_word(saved):
    """Trap 21."""
    rewrite(saved, without("bert.pooler."))
    with pytest.raises(UserError, match=r"no pooler weights. --teacher-pooling .* mean or cls"):
        load_pretrained(saved)
    assert load_pretrained(saved, pooling="mean").fresh == ()
    loaded = load_pretrained(saved, pooling="pooler")
    assert loaded.fresh == ("pooler",)
    assert loaded.params["pooling"]["dense"]["kernel"].shape == (16, 16)


def test_an_unused_pooler_is_said(saved):
    loaded = load_pretrained(saved, pooling="mean")
    assert loaded.notes == ("pooler not used with pooling='mean'",)
    assert "pooling" not in loaded.params


QUERY = "bert.encoder.layer.0.attention.self.query.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: {k.replace("query", "qerry"): v for k, v in t.items()},
            r"unknown key 'encoder.layer.0.attention.self.qerry.bias' \(and 3 more\)\. "
            r"Nearest known key: 'encoder.layer.0.attention.self.query.bias'",
        ),
        (without(QUERY), r"lacks the key 'encoder.layer.0.attention.self.query.weight'\."),
        (without("classifier.bias"), r"lacks the key 'classifier.bias'\."),
        (
            lambda t: {**t, QUERY: np.zeros((16, 8), np.float32)},
            r"query.weight' is float32 \[16, 8\], config.json asks for float \[16, 16\]",
        ),
        (lambda t: {**t, QUERY: np.zeros((16, 16), np.int32)}, "query.weight' is int32"),
        (lambda t: {**t, QUERY.removeprefix("bert."): t[QUERY]}, "under two names"),
        (
            lambda t: {**t, "bert.encoder.layer.2.output.dense.bias": np.zeros(16, np.float32)},
            "unknown key 'encoder.layer.2.output.dense.bias'",
        ),
    ],
)
def test_wrong_keys_are_named(saved, change, message):
    """Trap 20, for checkpoints: nothing is left over and nothing is missing."""
    rewrite(saved, change)
    with pytest.raises(UserError, match=message):
        load_pretrained(saved)


def test_damaged_missing_and_pickled_weights_are_refused(saved):
    content = (saved / WEIGHTS).read_bytes()
    (saved / WEIGHTS).write_bytes(content[:-100])
    with pytest.raises(UserError, match="is damaged"):
        load_pretrained(saved)
    (saved / WEIGHTS).unlink()
    with pytest.raises(UserError, match=r"has no model.safetensors"):
        load_pretrained(saved)
    (saved / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(UserError, match=r"pytorch_model.bin.*Convert once where torch"):
        load_pretrained(saved)
    raw = json.loads((saved / "config.json").read_text()) | {"architectures": ["BertForMaskedLM"]}
    (saved / "config.json").write_text(json.dumps(raw))
    hint = r"BertForMaskedLM.from_pretrained.*save_pretrained.*AutoTokenizer.from_pretrained"
    with pytest.raises(UserError, match=hint):
        load_pretrained(saved)
    (saved / "config.json").unlink()
    with pytest.raises(UserError, match=r"has no config.json"):
        load_pretrained(saved)


def test_saving_does_not_overwrite_or_mislabel(saved, config, params, tokenizer_file, tmp_path):
    with pytest.raises(UserError, match="exists and is not empty"):
        save_pretrained(saved, config, params, tokenizer_file)
    with pytest.raises(UserError, match="2 different label names for a head of 3"):
        save_pretrained(tmp_path / "other", config, params, tokenizer_file, ("a", "b"))
    assert not (tmp_path / "other").exists()


def test_digest_depends_on_every_parameter_and_the_config(config, params):
    base = model_digest(config, params)
    assert model_digest(dataclasses.replace(config, hidden_act="relu"), params) != base
    leaves, tree = jax.tree.flatten(params)
    for i in range(len(leaves)):
        changed = [leaf + 1 if i == j else leaf for j, leaf in enumerate(leaves)]
        assert model_digest(config, jax.tree.unflatten(tree, changed)) != base


def test_the_saved_tokenizer_opens_in_transformers(saved, tokenizer_file):
    transformers = pytest.importorskip("transformers")
    opened = transformers.AutoTokenizer.from_pretrained(saved)
    assert opened("a b zz", "c")["input_ids"] == [2, 5, 6, 1, 3, 7, 3]
    assert opened.pad_token_id == 0


def test_logits_equal_torch_s_both_ways(tmp_path, config, tokenizer_file, make_batch):
    """Trap 21, live: their model in our hands, and ours in theirs."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    theirs = transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=50,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=12,
            initializer_range=0.3,
            num_labels=3,
            attn_implementation="eager",
        )
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    batch = make_batch([9, 4, 1], 11)

    def logits_of(model):
        with torch.no_grad():
            return model(
                input_ids=torch.tensor(batch.input_ids_BT).long(),
                token_type_ids=torch.tensor(batch.token_type_ids_BT).long(),
                attention_mask=torch.tensor(batch.where_BT).long(),
                output_hidden_states=True,
                output_attentions=True,
            )

    expected = logits_of(theirs)
    folder = tmp_path / "theirs"
    theirs.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(tokenizer_file.read_bytes())

    def old_name(name):
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        return name.replace("LayerNorm.bias", "LayerNorm.beta")

    rewrite(folder, lambda tensors: {old_name(k): v for k, v in tensors.items()})
    loaded = load_pretrained(folder)
    assert loaded.fresh == ()
    output = Bert(loaded.config).apply({"params": loaded.params}, batch)
    np.testing.assert_allclose(output.logits_BC, expected.logits, atol=1e-4)
    for level in range(3):
        for row, length in enumerate((9, 4, 1)):
            np.testing.assert_allclose(
                output.hidden_states[level][row, :length],
                expected.hidden_states[level][row, :length],
                atol=1e-4,
            )
    np.testing.assert_allclose(output.attention_probs[2], expected.attentions[1], atol=1e-5)

    changed = jax.tree.map(lambda leaf: leaf * 1.1, loaded.params)
    save_pretrained(tmp_path / "ours", loaded.config, changed, tokenizer_file)
    opened = transformers.BertForSequenceClassification.from_pretrained(
        tmp_path / "ours", attn_implementation="eager"
    ).eval()
    ours = Bert(loaded.config).apply({"params": changed}, batch)
    np.testing.assert_allclose(ours.logits_BC, logits_of(opened).logits, atol=2e-4)


def test_minilm_equals_live_torch(minilm_folder):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.BertModel.from_pretrained(minilm_folder, attn_implementation="eager")
    keys = ("input_ids", "token_type_ids", "attention_mask")
    inputs = [GOLDEN[key] for key in keys]
    with torch.no_grad():
        expected = model.eval()(
            **dict(zip(keys, map(torch.tensor, inputs), strict=True)), output_hidden_states=True
        )
    loaded = load_pretrained(minilm_folder)
    batch = batch_of(*inputs)
    hidden = jax.jit(Bert(loaded.config).apply)({"params": loaded.params}, batch).hidden_states
    for level in range(7):
        difference = np.abs(hidden[level] - expected.hidden_states[level].numpy())
        assert difference[batch.where_BT].max() < 1e-4


@pytest.mark.parametrize("kind", ["multi_label_classification", "regression"])
def test_a_head_for_another_problem_is_not_used_as_softmax(config, params, tokenizer_file, kind):
    folder = tokenizer_file.parent / "model"
    save_pretrained(folder, config, params, tokenizer_file)
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, "problem_type": kind}))
    with pytest.raises(UserError, match=f"head for '{kind}'; supported: 'single_label_cl"):
        load_pretrained(folder)
    assert "classifier" in load_pretrained(folder, fresh_classifier=True).fresh
    (folder / "config.json").write_text(
        json.dumps({**raw, "problem_type": "single_label_classification"})
    )
    assert load_pretrained(folder).fresh == ()
