"""A saved folder answers elsewhere as it does here: by transformers' computation, and by itself."""

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import BertWordPieceTokenizer

from distill_jax.models.bert import Bert, init_bert
from distill_jax.models.hf_reference import reference_logits
from distill_jax.models.huggingface import TextInputs, load_pretrained, save_pretrained

POOLINGS = ("pooler", "mean", "cls")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh", *(f"w{n}" for n in range(37))]
FIRST = ["a b c", "h zz", "d"]
SECOND = ["e f", "g a b c d e f g h a b c d e", "b"]


@pytest.fixture
def save(tmp_path, small_config):
    """Write a model of a pooling; returns its folder and parameters."""
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = tmp_path / "tokenizer.json"
    BertWordPieceTokenizer(str(tmp_path / "vocab.txt")).save(str(tokenizer))

    def make(pooling, **changes):
        config = dataclasses.replace(small_config, pooling=pooling, **changes)
        params = init_bert(config, jax.random.key(5))
        folder = tmp_path / pooling
        names = ("bad", "fair", "good")
        save_pretrained(folder, config, params, tokenizer, names, TextInputs(10, True))
        return folder, config, params

    return make


def ask_reference(folder, batch):
    tokens = np.asarray(batch.input_ids_BT), np.asarray(batch.token_type_ids_BT)
    return reference_logits(folder, *tokens, np.asarray(batch.where_BT))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_new", "relu"])
def test_transformers_computation_in_numpy_gives_our_logits(save, make_batch, pooling, hidden_act):
    folder, config, params = save(pooling, hidden_act=hidden_act)
    batch = make_batch([9, 4, 1], 11)
    ours = Bert(config).apply({"params": params}, batch).logits_BC
    np.testing.assert_allclose(ask_reference(folder, batch), ours, atol=1e-4)


def test_every_file_of_the_weights_has_a_say(save, make_batch):
    """A tensor that is written transposed, left out or swapped cannot pass."""
    folder, *_ = save("pooler")
    batch = make_batch([9, 4, 7], 11)
    before = ask_reference(folder, batch)
    assert before.dtype == np.float32
    tensors = load_file(folder / "model.safetensors")
    for name in tensors:
        if name.endswith("key.bias"):  # a softmax cancels it
            continue
        off = np.random.default_rng(0).normal(0, 0.2, tensors[name].shape).astype(np.float32)
        changed = {**tensors, name: tensors[name] + off}
        save_file(changed, folder / "model.safetensors")
        assert np.abs(ask_reference(folder, batch) - before).max() > 1e-4, name


def test_the_files_say_how_they_are_read(save):
    folder, *_ = save("mean")
    raw = json.loads((folder / "config.json").read_text())
    assert raw["model_type"] == "distill_jax_bert" and raw["distill_jax_pairs"] is True
    assert (folder / "modeling_distill_jax.py").is_file()
    assert "trust_remote_code=True" in (folder / "README.md").read_text()
    plain, *_ = save("pooler")
    assert "trust_remote_code" not in (plain / "README.md").read_text()
    assert not (plain / "modeling_distill_jax.py").exists()
    tokens = json.loads((plain / "tokenizer_config.json").read_text())
    assert tokens["model_input_names"] == ["input_ids", "token_type_ids", "attention_mask"]
    assert tokens["model_max_length"] == 10


def test_folders_of_before_are_read(save, make_batch):
    """Mean pooling was once a key beside BERT's name."""
    folder, config, params = save("mean")
    raw = json.loads((folder / "config.json").read_text())
    old = {"model_type": "bert", "distill_jax_pooling": "mean", **raw["bert"]}
    (folder / "config.json").write_text(json.dumps({**old, "id2label": raw["id2label"]}))
    tensors = load_file(folder / "model.safetensors")
    renamed = {name.replace("backbone.", "bert."): tensor for name, tensor in tensors.items()}
    save_file(renamed, folder / "model.safetensors")
    loaded = load_pretrained(folder)
    assert loaded.config == config and loaded.inputs.pairs is None
    assert jax.tree.all(jax.tree.map(np.array_equal, loaded.params, params))


def test_transformers_gives_pairs_their_token_types(save):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(save("pooler")[0])
    encoded = tokenizer(FIRST, SECOND, truncation=True)
    assert max(map(len, encoded["input_ids"])) == 10
    assert [max(row) for row in encoded["token_type_ids"]] == [1, 1, 1]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_transformers_gives_our_logits(save, pooling):
    """With PyTorch: the folder is run as it is, or with its own code, never under a wrong name."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from distill_jax.evaluation.open_classifier import open_classifier

    folder, *_ = save(pooling)
    auto = transformers.AutoModelForSequenceClassification
    if pooling != "pooler":
        with pytest.raises(ValueError, match="trust_remote_code"):
            auto.from_pretrained(folder, trust_remote_code=False)
        with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
            transformers.BertForSequenceClassification.from_pretrained(folder)
    trust = {} if pooling == "pooler" else {"trust_remote_code": True}
    model = auto.from_pretrained(folder, **trust).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **trust)
    opened = open_classifier(folder)
    for arguments in ((FIRST, SECOND), (SECOND, FIRST)):
        encoded = tokenizer(*arguments, truncation=True, padding=True, return_tensors="pt")
        with torch.no_grad():
            theirs_NC = model(**encoded).logits.softmax(-1).numpy()
        ours = [list(answer.probabilities.values()) for answer in opened.classify(*arguments)]
        np.testing.assert_allclose(theirs_NC, ours, atol=1e-4)
        arrays = (encoded[k].numpy() for k in ("input_ids", "token_type_ids", "attention_mask"))
        with torch.no_grad():
            logits_NC = model(**encoded).logits.numpy()
        np.testing.assert_allclose(reference_logits(folder, *arrays), logits_NC, atol=1e-4)


def test_a_full_disk_while_a_model_is_saved_is_one_line(save, tmp_path):
    """A limit on the size of files stands for the full disk; both fail in ``write``."""
    folder, *_ = save("pooler")
    target = tmp_path / "copy"
    program = (
        "import sys, pathlib\n"
        "from distill_jax.cli.run import run\n"
        "from distill_jax.models.huggingface import load_pretrained, save_pretrained\n"
        "one = load_pretrained(sys.argv[1])\n"
        "import signal, resource\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "run(lambda: save_pretrained(pathlib.Path(sys.argv[2]), one.config, one.params,"
        " one.tokenizer_file))\n"
    )
    assert (folder / "model.safetensors").stat().st_size > 20_000
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder), str(target)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert "error: cannot write" in done.stderr and "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert not target.exists() and not list(tmp_path.glob(".copy*"))
