"""Every architecture that is read says what PyTorch says: golden values, and torch where it is."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from kin_cases import CASES, LENGTHS, rows, write_folder, write_tokenizer
from safetensors.numpy import load_file, save_file

from distill_jax.core.errors import UserError
from distill_jax.core.types import as_batch
from distill_jax.export.hf_format import HF
from distill_jax.models.bert_kin import BertKinConfig
from distill_jax.models.build import build_model, family_in, family_of, load_model
from distill_jax.models.hf_architectures import architecture_of, model_types
from distill_jax.models.huggingface import load_pretrained
from distill_jax.models.loaded import TextInputs

GOLDEN = json.loads((Path(__file__).parent / "golden" / "kin.json").read_text("utf-8"))
KIN = tuple(name for name in CASES if name != "bert")
NAMES = ("bad", "fair", "good")


def load(folder, **options):
    return load_pretrained(folder, model_types=None, **options)


def padded(model_type):
    """All rows in one batch; padding is token 0, whatever the tokeniser's is."""
    own = rows(model_type)
    width = max(len(row["ids"]) for row in own) + 2
    ids, types, where = np.zeros((3, len(own), width), np.int32)
    for number, row in enumerate(own):
        length = len(row["ids"])
        ids[number, :length], types[number, :length] = row["ids"], row["types"]
        where[number, :length] = 1
    return as_batch(ids, where.astype(bool), types)


def said_of(loaded, batch):
    return jax.jit(build_model(loaded.config).apply)({"params": loaded.params}, batch)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """model_type -> a folder with that golden model."""
    made = {}

    def folder(model_type):
        if model_type not in made:
            case = GOLDEN["cases"][model_type]
            place = tmp_path_factory.mktemp("kin") / model_type
            made[model_type] = write_folder(place, case["config"], case["shapes"])
        return made[model_type]

    return folder


def test_all_that_are_read_have_golden_values():
    assert set(model_types()) == set(CASES) == set(GOLDEN["cases"])


@pytest.mark.parametrize("model_type", CASES)
def test_logits_hidden_states_and_attention_equal_pytorch_s(folder_of, model_type):
    """Within 1e-4, of each text alone as of a padded batch."""
    loaded = load(folder_of(model_type))
    assert loaded.fresh == () and loaded.config.num_labels == 3
    output = said_of(loaded, padded(model_type))
    features = GOLDEN["features"]
    for number, said in enumerate(GOLDEN["cases"][model_type]["said"]):
        last = len(rows(model_type)[number]["ids"]) - 1
        np.testing.assert_allclose(output.logits_BC[number], said["logits"], atol=1e-4)
        assert len(said["hidden_states"]) == len(output.hidden_states) == 3
        for level, expected in enumerate(said["hidden_states"]):
            ours = np.asarray(output.hidden_states[level])[number, last][features]
            np.testing.assert_allclose(ours, expected, atol=1e-4, err_msg=f"level {level}")
        for layer, expected in enumerate(said["attention_probs"], start=1):
            ours = np.asarray(output.attention_probs[layer])[number, 1, last, : len(expected)]
            np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("model_type", KIN)
def test_a_saved_model_is_a_checkpoint_of_its_architecture(folder_of, model_type, tmp_path):
    loaded = load(folder_of(model_type))
    family = family_of(loaded.config)
    arguments = loaded.config, loaded.params, loaded.tokenizer_file, NAMES
    family.save(tmp_path / "out", *arguments, TextInputs(9, True))
    raw = json.loads((tmp_path / "out/config.json").read_text())
    assert raw["model_type"] == model_type
    assert raw["architectures"] == [architecture_of(loaded.config).class_name]
    before = load_file(folder_of(model_type) / "model.safetensors")
    after = load_file(tmp_path / "out/model.safetensors")
    assert set(after) == set(before)
    for name in before:
        np.testing.assert_array_equal(after[name], before[name])
    again = load_model(tmp_path / "out")
    assert family_in(tmp_path / "out") is family and again.digest == loaded.digest
    assert again.label_names == NAMES and again.inputs == TextInputs(9, True)
    settings = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert ("token_type_ids" in settings["model_input_names"]) == loaded.config.reads_types


@pytest.mark.parametrize("model_type", KIN)
def test_another_pooling_is_kept_in_our_own_form_and_not_exported(folder_of, model_type, tmp_path):
    loaded = load(folder_of(model_type), pooling="mean", num_labels=2, fresh_classifier=True)
    assert loaded.fresh == ("classifier",) and "pooling" not in loaded.params
    family = family_of(loaded.config)
    family.save(tmp_path / "out", loaded.config, loaded.params, loaded.tokenizer_file, ("a", "b"))
    raw = json.loads((tmp_path / "out/config.json").read_text())
    assert raw["model_type"] == family.model_type != model_type
    assert load_model(tmp_path / "out").digest == loaded.digest
    (tmp_path / "elsewhere").mkdir()
    arguments = loaded.config, loaded.params, loaded.tokenizer_file, ("a", "b"), TextInputs()
    with pytest.raises(UserError, match=r"the head reads 'mean'.*onnx"):
        family.elsewhere.save(tmp_path / "elsewhere", *arguments)
    assert HF.name == "hf"


@pytest.mark.parametrize("model_type", ["electra", "mobilebert"])
def test_a_head_may_read_every_token(folder_of, model_type, tmp_path):
    loaded = load(folder_of(model_type), pooling="tokens", num_labels=2, fresh_classifier=True)
    family, batch = family_of(loaded.config), padded(model_type)
    assert family.tokens and loaded.config.shape.per_token
    said = said_of(loaded, batch)
    assert said.logits_BC.shape == (*batch.input_ids_BT.shape, 2)
    family.save(tmp_path / "out", loaded.config, loaded.params, loaded.tokenizer_file, ("a", "b"))
    np.testing.assert_array_equal(
        said_of(load_model(tmp_path / "out"), batch).logits_BC, said.logits_BC
    )


@pytest.mark.parametrize("model_type", KIN)
def test_a_new_head_is_drawn_whole(folder_of, model_type, tmp_path):
    """Of BERT and MobileBERT the pooler stays, which was pretrained; of the others it is a part of
    the head."""
    folder = folder_of(model_type)
    kept, new = load(folder), load(folder, num_labels=5, fresh_classifier=True)
    pooler = np.asarray(kept.params["pooling"]["dense"]["kernel"])
    stays = np.array_equal(pooler, new.params["pooling"]["dense"]["kernel"])
    assert stays == (model_type == "mobilebert")
    assert new.fresh == (("classifier",) if stays else ("classifier", "pooler"))
    assert new.params["classifier"]["kernel"].shape == (16, 5)
    assert any("replaced by a fresh one" in note for note in new.notes)
    again = load(folder, num_labels=5, fresh_classifier=True)
    assert (
        again.digest
        == new.digest
        != load(folder, num_labels=5, fresh_classifier=True, seed=1).digest
    )


PRETRAINED = {
    "distilbert": ("vocab_transform.weight", "vocab_projector.bias"),
    "roberta": ("lm_head.dense.weight", "roberta.pooler.dense.weight"),
    "electra": ("discriminator_predictions.dense.weight", "electra.embeddings.position_ids"),
    "mpnet": ("lm_head.bias", "mpnet.pooler.dense.bias"),
    "mobilebert": ("cls.predictions.bias",),
}


@pytest.mark.parametrize("model_type", PRETRAINED)
def test_a_pretrained_encoder_is_read_without_its_heads(folder_of, model_type, tmp_path):
    folder = tmp_path / "model"
    case = GOLDEN["cases"][model_type]
    write_folder(folder, case["config"], case["shapes"])
    tensors = load_file(folder / "model.safetensors")
    encoder = {k: v for k, v in tensors.items() if "classifier" not in k}
    more = {name: np.zeros(3, np.float32) for name in PRETRAINED[model_type]}
    save_file({**encoder, **more}, folder / "model.safetensors")
    loaded = load(folder, num_labels=2)
    assert "classifier" in loaded.fresh and loaded.label_names is None
    assert any(note.startswith("not used: ") for note in loaded.notes)
    save_file({**tensors, "another.weight": np.zeros(3)}, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"unknown key .another.weight"):
        load(folder)


def test_half_a_head_is_a_damaged_checkpoint(folder_of, tmp_path):
    case = GOLDEN["cases"]["roberta"]
    folder = write_folder(tmp_path / "model", case["config"], case["shapes"])
    tensors = load_file(folder / "model.safetensors")
    del tensors["classifier.dense.weight"], tensors["classifier.dense.bias"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"lacks the key 'classifier\.dense"):
        load(folder)


def test_what_is_not_read_is_named_with_what_is(folder_of, tmp_path):
    def refused(kind, **changes):
        case = GOLDEN["cases"][kind]
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        write_folder(folder, {**case["config"], **changes}, case["shapes"])
        with pytest.raises(UserError) as caught:
            load(folder)
        return str(caught.value)

    told = refused("bert", model_type="deberta-v2")
    assert "has 'deberta-v2'; supported model types: 'bert', 'distilbert', 'roberta'" in told
    assert all(repr(name) in told for name in CASES)
    assert "Did you mean 'roberta'" in refused("bert", model_type="camemroberta")
    assert "no model_type" in refused("bert", model_type=None)
    assert "use_bottleneck_attention True" in refused("mobilebert", use_bottleneck_attention=True)
    assert "normalization_type 'layer_norm'" in refused(
        "mobilebert", normalization_type="layer_norm"
    )
    assert "pad_token_id must be a whole number" in refused("roberta", pad_token_id="x")
    assert "relative_attention_num_buckets 16" in refused(
        "mpnet", relative_attention_num_buckets=16
    )
    with pytest.raises(
        UserError, match="has 'roberta', which only classifiers may be; here: 'bert"
    ):
        load_pretrained(folder_of("roberta"))


def test_positions_are_counted_from_behind_the_padding_s(folder_of):
    """Of 24 rows of the table RoBERTa's padding takes two, XLM-R's here four."""
    for model_type, first in (("roberta", 2), ("xlm-roberta", 4), ("mpnet", 2), ("electra", 0)):
        config = load(folder_of(model_type)).config
        assert config.first_position == first
        assert config.token_range.positions == config.max_positions - first
    with pytest.raises(UserError, match="has positions for 22"):
        said_of(
            load(folder_of("roberta")),
            as_batch(np.zeros((1, 23), np.int32), np.ones((1, 23), bool)),
        )


@pytest.mark.parametrize("model_type", KIN)
def test_pairs_fit_where_nothing_tells_the_texts_apart(folder_of, model_type):
    """DistilBERT, RoBERTa and MPNet read any token type, and none changes what they say."""
    loaded = load(folder_of(model_type))
    assert loaded.config.token_range.types == 2
    batch = padded(model_type)
    one, other = (
        said_of(loaded, batch.replace(token_type_ids_BT=types)).logits_BC
        for types in (np.zeros_like(batch.token_type_ids_BT), np.ones_like(batch.token_type_ids_BT))
    )
    assert np.array_equal(one, other) != loaded.config.reads_types


@pytest.fixture
def theirs():
    """(model_type) -> a model of transformers with random weights, and what it says of a batch."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)

    def make(model_type):
        config = transformers.AutoConfig.for_model(
            model_type, **CASES[model_type], initializer_range=0.3
        )
        model = transformers.AutoModelForSequenceClassification.from_config(
            config, attn_implementation="eager"
        ).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "word_embeddings" not in name:  # the padding token's stays 0
                    parameter.add_(0.1 * torch.randn_like(parameter))
        return model

    def ask(model, batch):
        inputs = {
            "input_ids": torch.tensor(
                np.where(batch.where_BT, batch.input_ids_BT, model.config.pad_token_id)
            ).long(),
            "attention_mask": torch.tensor(batch.where_BT).long(),
        }
        if getattr(model.config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = torch.tensor(batch.token_type_ids_BT).long()
        with torch.no_grad():
            return model(**inputs, output_hidden_states=True, output_attentions=True)

    return make, ask, transformers


@pytest.mark.parametrize("model_type", KIN)
def test_live_torch_says_the_same_both_ways(theirs, model_type, tmp_path):
    """Random weights in shards, read here; changed, saved here, read there."""
    make, ask, transformers = theirs
    model, batch = make(model_type), padded(model_type)
    model.save_pretrained(tmp_path / "theirs", max_shard_size="9KB")
    assert len(list((tmp_path / "theirs").glob("model-*.safetensors"))) > 1
    write_tokenizer(tmp_path / "theirs")
    loaded = load(tmp_path / "theirs")
    assert loaded.fresh == ()
    output, expected = said_of(loaded, batch), ask(model, batch)
    np.testing.assert_allclose(output.logits_BC, expected.logits, atol=1e-4)
    real = np.asarray(batch.where_BT)[:, :, None]
    for level, hidden in enumerate(expected.hidden_states):
        gap = np.where(real, output.hidden_states[level] - hidden.numpy(), 0)
        assert np.abs(gap).max() < 1e-4, level
    for layer, probs in enumerate(expected.attentions, start=1):
        gap = np.where(real[:, None], output.attention_probs[layer] - probs.numpy(), 0)
        assert np.abs(gap).max() < 1e-5

    changed = jax.tree.map(lambda leaf: leaf * 1.1, loaded.params)
    family_of(loaded.config).save(
        tmp_path / "ours", loaded.config, changed, loaded.tokenizer_file, NAMES
    )
    opened = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "ours", attn_implementation="eager"
    ).eval()
    ours = said_of(dataclasses.replace(loaded, params=changed), batch)
    np.testing.assert_allclose(ours.logits_BC, ask(opened, batch).logits, atol=1e-4)
    assert opened.config.id2label == dict(enumerate(NAMES))


def test_lengths_are_what_the_golden_values_were_made_of():
    assert all(len(case["said"]) >= len(LENGTHS) for case in GOLDEN["cases"].values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "rberta"}, r"unknown architecture .rberta.*Did you mean .roberta"),
        ({"head_act": "swish"}, "unknown head_act 'swish'"),
        ({"embedding_size": 2**40}, "embeddings of width 1099511627776 cannot be"),
        ({"first_position": 12}, "of 12 positions 12 are unused"),
        ({"first_position": -1}, "first_position must be from 0"),
        ({"relative_buckets": "x"}, "relative_buckets must be a whole number"),
    ],
)
def test_a_damaged_config_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        BertKinConfig(9, 8, 1, 2, 8, max_positions=12, **changes)
