"""Small models of the architectures that are read: their sizes, inputs, and weights by rule.

What PyTorch says of them is in ``models/golden/kin.json``, see ``models/golden/make_kin.py``.
"""

import json
import zlib
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

VOCABULARY = 24
USUAL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "max_position_embeddings": 24,
    "num_labels": 3,
}
CASES = {
    "bert": USUAL,
    "distilbert": {
        "vocab_size": VOCABULARY,
        "dim": 16,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 20,
        "max_position_embeddings": 24,
        "num_labels": 3,
    },
    "roberta": {**USUAL, "type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5},
    "xlm-roberta": {**USUAL, "type_vocab_size": 1, "pad_token_id": 3},
    "electra": {**USUAL, "embedding_size": 8},
    "mpnet": {**USUAL, "max_position_embeddings": 90},
    "mobilebert": {
        **USUAL,
        "embedding_size": 6,
        "intra_bottleneck_size": 8,
        "num_feedforward_networks": 3,
    },
}
"""``model_type`` -> what its transformers' configuration is made of."""
LENGTHS = (9, 4, 1)
LONG = 80
"""Tokens of a row for relative positions that share a bucket."""


def rows(model_type: str) -> list[dict[str, list[int]]]:
    """Token ids and types; none is a padding token."""
    rng = np.random.default_rng(0)
    lengths = (*LENGTHS, LONG) if model_type == "mpnet" else LENGTHS
    return [
        {
            "ids": rng.integers(5, VOCABULARY, length).tolist(),
            "types": [int(n >= length // 2) for n in range(length)],
        }
        for length in lengths
    ]


def filled(shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """Weights that their names decide."""
    found = {}
    for name, shape in shapes.items():
        values = 0.25 * np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
        norm = "norm" in name.lower() and name.endswith("weight")
        found[name] = (values + norm).astype(np.float32)
    return found


def write_tokenizer(folder: Path) -> None:
    """A ``tokenizer.json`` of as many words as the models have embeddings for."""
    words = ["[PAD]", "[UNK]", *(f"w{n}" for n in range(2, VOCABULARY))]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_folder(folder: Path, config: dict, shapes: dict[str, list[int]]) -> Path:
    """A checkpoint of these weights as transformers would have saved it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(filled(shapes), folder / "model.safetensors")
    write_tokenizer(folder)
    return folder
