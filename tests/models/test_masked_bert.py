"""BERT that says hidden words: transformers' numbers, folders both ways, heads that are drawn."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from languages import IDS, POSITIONS, batch_of
from safetensors.numpy import load_file, save_file

from distill_jax.core.errors import UserError
from distill_jax.data.wordpiece import train_wordpiece
from distill_jax.models.bert import Bert, BertConfig
from distill_jax.models.build import build_model, language_family
from distill_jax.models.huggingface import load_pretrained
from distill_jax.models.masked_bert import MASKED_BERTS, MaskedBertConfig


def apply(config, params, batch):
    return build_model(config).apply({"params": params}, batch)


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokenizer.json"
    train_wordpiece(["some words and other words", "other words"] * 9, 64).save(str(path))
    return path


@pytest.fixture(scope="module")
def config():
    return MaskedBertConfig(64, 16, 2, 2, 32, max_positions=16)


@pytest.fixture(scope="module")
def params(config):
    drawn = MASKED_BERTS.init(config, jax.random.key(0))
    noise = iter(jax.random.split(jax.random.key(1), 99))
    return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(next(noise), x.shape), drawn)


@pytest.fixture(scope="module")
def saved(config, params, tokenizer_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "masked"
    MASKED_BERTS.save(folder, config, params, tokenizer_file, 12)
    return folder


def test_it_says_what_is_asked_and_nothing_else(config, params):
    """At each position the numbers are those of the whole computation."""
    output = apply(config, params, batch_of())
    assert output.logits_BC.shape == (2, 2, 64) and len(output.hidden_states) == 3
    everywhere = np.tile(np.arange(6, dtype=np.int32), (2, 1))
    whole = apply(config, params, batch_of(positions=everywhere)).logits_BC
    for row, places in enumerate(POSITIONS):
        np.testing.assert_allclose(output.logits_BC[row], whole[row, places], atol=1e-5)


def test_its_layers_are_bert_s(config, params):
    plain = BertConfig(64, 16, 2, 2, 32, max_positions=16, pooling="mean")
    head = {"kernel": jnp.zeros((16, 2)), "bias": jnp.zeros(2)}
    encoder = {name: own for name, own in params.items() if name != "mlm"}
    theirs = Bert(plain).apply({"params": {**encoder, "classifier": head}}, batch_of())
    ours = apply(config, params, batch_of())
    np.testing.assert_array_equal(ours.hidden_states[2], theirs.hidden_states[2])


def test_a_folder_gives_the_same_model(saved, config, params):
    loaded = language_family("masked").load(str(saved))
    assert loaded.config == config and not loaded.fresh and not loaded.notes
    found, expected = flatten_dict(loaded.params), flatten_dict(params)
    assert found.keys() == expected.keys()
    for path, leaf in found.items():
        np.testing.assert_array_equal(leaf, expected[path])
    assert json.loads((saved / "tokenizer_config.json").read_text())["mask_token"] == "[MASK]"


def test_it_is_a_teacher_for_classifiers(saved, params):
    """With mean pooling, as it has no pooler; nothing has to be said on the command line."""
    loaded = load_pretrained(saved, num_labels=3)
    assert loaded.config.pooling == "mean" and loaded.fresh == ("classifier",)
    np.testing.assert_array_equal(
        loaded.params["layer_1"]["output"]["kernel"], params["layer_1"]["output"]["kernel"]
    )


def test_transformers_says_the_same(saved, config, params):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForMaskedLM.from_pretrained(saved).eval()
    assert type(model).__name__ == "BertForMaskedLM"
    with torch.no_grad():
        theirs = model(
            input_ids=torch.tensor(IDS).long(), attention_mask=torch.tensor(IDS > 0).long()
        ).logits.numpy()
    ours = apply(config, params, batch_of()).logits_BC
    for row, places in enumerate(POSITIONS):
        np.testing.assert_allclose(ours[row], theirs[row, places], atol=1e-4)
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved)
    assert tokenizer("some words").input_ids[0] == tokenizer.cls_token_id
    assert tokenizer.mask_token == "[MASK]" and tokenizer.model_max_length == 12


def rewritten(saved, folder, change):
    tensors = change(dict(load_file(saved / "model.safetensors")))
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((saved / name).read_bytes())
    save_file(tensors, folder / "model.safetensors")
    return str(folder)


def test_a_head_is_drawn_where_there_is_none(saved, tmp_path):
    def without(tensors):
        return {k: x for k, x in tensors.items() if not k.startswith("cls.")}

    folder = rewritten(saved, tmp_path / "a", without)
    first, again = (MASKED_BERTS.load(folder, seed=3) for _ in range(2))
    assert first.fresh == ("mlm",) and "one is drawn" in first.notes[0]
    assert first.digest == again.digest != MASKED_BERTS.load(folder, seed=4).digest


def test_heads_that_share_the_word_embeddings_are_read_and_others_refused(saved, tmp_path):
    words = "bert.embeddings.word_embeddings.weight"

    def tied(tensors):
        bias = tensors["cls.predictions.bias"]
        own = {"cls.predictions.decoder.weight": tensors[words].copy()}
        more = {"bert.pooler.dense.bias": np.zeros(16, np.float32)}
        return {**tensors, **own, **more, "cls.predictions.decoder.bias": bias.copy()}

    loaded = MASKED_BERTS.load(rewritten(saved, tmp_path / "tied", tied))
    assert loaded.digest == MASKED_BERTS.load(str(saved)).digest
    assert loaded.notes == ("not used: pooler",)

    def untied(tensors):
        return {**tensors, "cls.predictions.decoder.weight": tensors[words] + 1}

    with pytest.raises(UserError, match="is not the word embeddings"):
        MASKED_BERTS.load(rewritten(saved, tmp_path / "untied", untied))

    def strange(tensors):
        return {**tensors, "cls.predictions.transform.dense.wait": np.zeros(1, np.float32)}

    with pytest.raises(UserError, match="unknown key"):
        MASKED_BERTS.load(rewritten(saved, tmp_path / "strange", strange))


def test_sizes(config):
    sized = MASKED_BERTS.sized("4x256", vocab_size=100, positions=32)
    assert (sized.num_layers, sized.hidden_size, sized.num_heads) == (4, 256, 4)
    assert sized.intermediate_size == 1024 and sized.shape.num_labels == 100
    assert MASKED_BERTS.sized("tiny", vocab_size=9, positions=9).num_heads == 2
    assert MASKED_BERTS.sized("1x8", vocab_size=9, positions=9).num_heads == 1
    for name, message in (("2x100", "no multiple of 64"), ("l2", "starts by chance"), ("x", "unk")):
        with pytest.raises(UserError, match=message):
            MASKED_BERTS.sized(name, vocab_size=9, positions=9)
    assert dataclasses.replace(config, dropout=0.0).asks == "masked"
