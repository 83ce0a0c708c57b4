import dataclasses
import json

import pytest

from distill_jax.core.errors import UserError
from distill_jax.models.hf_config import (
    config_from_hf,
    config_to_hf,
    label_names_from_hf,
    read_json,
)

RAW = {
    "model_type": "bert",
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "use_cache": True,
    "transformers_version": "4.8.2",
}


def load(**changes):
    return config_from_hf({**RAW, **changes}, where="config.json")


def test_every_field_is_read():
    config = load(
        max_position_embeddings=64,
        type_vocab_size=3,
        hidden_act="gelu_new",
        layer_norm_eps=1e-6,
        hidden_dropout_prob=0.2,
        attention_probs_dropout_prob=0.3,
        classifier_dropout=0.4,
        initializer_range=0.05,
        distill_jax_pooling="cls",
        id2label={"0": "bad", "1": "fair", "2": "good"},
    )
    assert dataclasses.astuple(config) == (
        *(50, 16, 2, 4, 32, 64, 3, "gelu_new", 1e-6, 0.2, 0.3, 0.4, 0.05, "cls", 3),
    )


def test_absent_keys_have_bert_s_defaults():
    config = load()
    assert (config.max_positions, config.hidden_act, config.layer_norm_eps) == (512, "gelu", 1e-12)
    assert (config.pooling, config.num_labels, config.classifier_dropout) == ("pooler", 2, None)


@pytest.mark.parametrize("pooling", ["pooler", "mean", "cls"])
def test_round_trip(pooling):
    config = dataclasses.replace(load(), pooling=pooling, num_labels=3)
    raw = json.loads(json.dumps(config_to_hf(config, ("a", "b", "c"))))
    assert config_from_hf(raw, where="") == config
    assert label_names_from_hf(raw, where="") == ("a", "b", "c")
    assert raw["model_type"] == ("bert" if pooling == "pooler" else "distill_jax_bert")
    assert ("hidden_size" in raw) == (pooling == "pooler")  # under BERT's name it is no model


def test_placeholder_labels_are_no_names():
    raw = config_to_hf(load(), None)
    assert raw["id2label"] == {"0": "LABEL_0", "1": "LABEL_1"}
    assert label_names_from_hf(raw, where="") is None
    assert label_names_from_hf(RAW, where="") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "roberta"}, "has 'roberta'; supported model types: 'bert'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'"),
        ({"is_decoder": True}, "is_decoder True is not supported"),
        ({"hidden_act": "swish"}, r"config.json: unknown hidden_act 'swish'.*Allowed: gelu"),
        ({"hidden_size": "16"}, "hidden_size must be a whole number, not '16'"),
        ({"hidden_size": 15}, "15 is not a multiple of num_heads 4"),
        ({"hidden_dropout_prob": None}, "hidden_dropout_prob must be a number, not None"),
        ({"num_hidden_layers": True}, "num_hidden_layers must be a whole number, not True"),
        ({"id2label": {"1": "a", "2": "b"}}, "id2label must map 0, 1, ... to names"),
        ({"id2label": ["a", "b"]}, "id2label must map"),
    ],
)
def test_what_is_not_supported_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        load(**changes)


def test_missing_sizes_and_model_type_are_named():
    with pytest.raises(UserError, match="lacks hidden_size, intermediate_size"):
        config_from_hf(
            {k: v for k, v in RAW.items() if k not in ("hidden_size", "intermediate_size")},
            where="config.json",
        )
    with pytest.raises(UserError, match="x has no model_type"):
        config_from_hf({"word_embedding_dimension": 384}, where="x")


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe"])
def test_damaged_json_is_named(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json"):
        read_json(tmp_path / "config.json")
