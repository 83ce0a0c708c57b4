"""A damaged folder of a model is read as far as it is whole, or refused in one line."""

import json

import numpy as np
import pytest
from damages import damaged_copy, damaged_json, folder_damage, told
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distill_jax.core.errors import panics_reported
from distill_jax.data.table import TextDataset, TextTable
from distill_jax.data.tokenise import tokenise_dataset
from distill_jax.models.bert import BertConfig
from distill_jax.models.cnn import CNNS, CnnConfig, init_cnn
from distill_jax.models.huggingface import load_pretrained
from distill_jax.models.students import student_config

TABLE = TextTable(("1", "2"), ("the film is good", "bad and unheard of"))


def use(folder):
    """Load, make tokens, and look every token up."""
    model = load_pretrained(folder, pooling="pooler")
    assert isinstance(model.config, BertConfig) and len(model.digest) == 16
    dataset = TextDataset("fuzz", ("a", "b"), {"test": TABLE})
    tokens = tokenise_dataset(dataset, model.tokenizer_file, max_length=8).splits["test"]
    words = model.params["embeddings"]["word"]["embedding"]
    assert tokens.tokens_S.max() < len(words) and tokens.tokens_S.min() >= 0
    student_config("tiny", model.config)


@settings(max_examples=120)
@given(st.data())
def test_folders(toy_teacher, tmp_path_factory, data):
    changes = data.draw(folder_damage(toy_teacher))
    target = tmp_path_factory.getbasetemp() / "hf_damaged"
    told(lambda: use(damaged_copy(toy_teacher, changes, target)))


@settings(max_examples=80)
@given(st.sampled_from(["config.json", "tokenizer.json", "tokenizer_config.json"]), st.data())
def test_json_of_folders(toy_teacher, tmp_path_factory, name, data):
    value = data.draw(damaged_json(json.loads((toy_teacher / name).read_text())))
    target = tmp_path_factory.getbasetemp() / "hf_json"
    text = json.dumps(value).encode()
    told(lambda: use(damaged_copy(toy_teacher, {name: text}, target)))


@settings(max_examples=60)
@given(st.data())
@example(data=None)
def test_headers_of_safetensors(toy_teacher, tmp_path_factory, data):
    """The header is JSON after its length: shapes, dtypes and offsets of any kind."""
    weights = (toy_teacher / "model.safetensors").read_bytes()
    size = int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8 : 8 + size])
    if data is None:
        first = next(iter(set(header) - {"__metadata__"}))
        header[first]["shape"] = [2**62, 2**62]
    else:
        header = data.draw(damaged_json(header))
    text = json.dumps(header).encode()
    whole = len(text).to_bytes(8, "little") + text + weights[8 + size :]
    target = tmp_path_factory.getbasetemp() / "hf_header"
    told(lambda: use(damaged_copy(toy_teacher, {"model.safetensors": whole}, target)))


@pytest.mark.parametrize("index", ["{}", "[]", '{"weight_map": {"a": "../../x"}}', "[" * 99_999])
def test_indices_of_shards(toy_teacher, tmp_path, index):
    changes = {"model.safetensors": None}
    target = damaged_copy(toy_teacher, changes, tmp_path / "hf")
    (target / "model.safetensors.index.json").write_text(index)
    _, refused = told(lambda: use(target))
    assert refused


def test_vocabularies(toy_teacher, tmp_path):
    """A folder may have ``vocab.txt`` in place of ``tokenizer.json``, any bytes in it."""
    for number, data in enumerate(
        [b"", b"\xff\n" * 9, b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n\0", b"a" * 99]
    ):
        without = {"tokenizer.json": None, "tokenizer_config.json": None}
        target = damaged_copy(toy_teacher, without, tmp_path / f"hf{number}")
        (target / "vocab.txt").write_bytes(data)
        told(lambda target=target: use(target))


def test_a_tokeniser_that_panics(toy_teacher, tmp_path):
    """Found by fuzzing: Rust's panic is no ``Exception``."""
    tokenizer = json.loads((toy_teacher / "tokenizer.json").read_text())
    del tokenizer["post_processor"]["special_tokens"]["[CLS]"]
    changes = {"tokenizer.json": json.dumps(tokenizer).encode()}
    _, refused = told(lambda: use(damaged_copy(toy_teacher, changes, tmp_path / "hf")))
    assert refused and "damaged or not a tokeniser" in refused
    with pytest.raises(KeyboardInterrupt):
        panics_reported(KeyboardInterrupt())


def test_a_cnn_larger_than_any(cnn_folder, tmp_path):
    raw = json.loads((cnn_folder / "config.json").read_text()) | {"channels": [2**63, True]}
    changes = {"config.json": json.dumps(raw).encode()}
    _, refused = told(lambda: CNNS.load(damaged_copy(cnn_folder, changes, tmp_path / "cnn")))
    assert refused


@pytest.mark.parametrize("where", ["word", "around"])
def test_a_tokeniser_with_ids_beyond_its_size(toy_teacher, tmp_path, where):
    """As many words as the model, and a number that no embedding has: it would be clamped."""
    file = toy_teacher / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    if where == "word":
        tokenizer["model"]["vocab"]["good"] = 10_000
    else:
        tokenizer["post_processor"]["special_tokens"]["[CLS]"]["ids"] = [10_000]
    changes = {"tokenizer.json": json.dumps(tokenizer).encode()}
    _, refused = told(lambda: use(damaged_copy(toy_teacher, changes, tmp_path / "hf")))
    assert refused and "do not belong together" in refused


@pytest.fixture(scope="module")
def cnn_folder(tmp_path_factory):
    import jax

    config = CnnConfig((2,), 4, 3)
    folder = tmp_path_factory.mktemp("cnn") / "model"
    CNNS.save(folder, config, init_cnn(config, jax.random.key(0)), None, ("a", "b", "c"))
    return folder


@settings(max_examples=80)
@given(st.data())
def test_folders_of_cnns(cnn_folder, tmp_path_factory, data):
    changes = data.draw(folder_damage(cnn_folder))
    if data.draw(st.booleans()):
        raw = json.loads((cnn_folder / "config.json").read_text())
        changes = {"config.json": json.dumps(data.draw(damaged_json(raw))).encode()}
    target = tmp_path_factory.getbasetemp() / "cnn_damaged"
    whole = CNNS.load(cnn_folder)
    loaded, _ = told(lambda: CNNS.load(damaged_copy(cnn_folder, changes, target)))
    if loaded is not None:  # its digest is of all that counts
        assert loaded.digest == whole.digest
        np.testing.assert_array_equal(
            loaded.params["classifier"]["kernel"], whole.params["classifier"]["kernel"]
        )


def test_the_whole_folder_is_used(toy_teacher):
    use(toy_teacher)
