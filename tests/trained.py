"""A teacher that knows the toy reviews, as folders: whole, mixed up, mute."""

import csv
import dataclasses
from pathlib import Path

import jax
import numpy as np

from distill_jax.data.tokenise import tokenise_texts
from distill_jax.models.bert import Bert, init_bert
from distill_jax.models.huggingface import load_pretrained, save_pretrained


def knowing_head(toy_teacher, toy_reviews):
    """Config and parameters of a BERT drawn at random whose head, neg and pos, fits the labels.

    The head is fitted by least squares on what the encoder gives of the training texts.
    """
    loaded = load_pretrained(toy_teacher)
    width = loaded.config.hidden_size
    wide = dataclasses.replace(loaded.config, pooling="mean", num_labels=width)
    params = init_bert(wide, jax.random.key(1))
    head = {"kernel": np.eye(width, dtype=np.float32), "bias": np.zeros(width, np.float32)}
    with open(Path(toy_reviews) / "train.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    tokens, _ = tokenise_texts(
        [row["sentence"] for row in rows], loaded.tokenizer_file, max_length=16
    )
    batch = tokens.batch(np.arange(len(rows)), 16, len(rows))
    apply = jax.jit(Bert(wide).apply)
    seen_ND = np.asarray(apply({"params": {**params, "classifier": head}}, batch).logits_BC)
    signs_N = np.array([1.0 if row["label"] == "pos" else -1.0 for row in rows])
    with_one = np.c_[seen_ND, np.ones(len(rows))].astype(np.float64)
    fitted = 5 * np.linalg.lstsq(with_one, signs_N, rcond=1e-3)[0]
    outputs = np.stack([-fitted, fitted], axis=1).astype(np.float32)
    classifier = {"kernel": outputs[:-1], "bias": outputs[-1]}
    config = dataclasses.replace(wide, num_labels=2)
    return config, {**params, "classifier": classifier}, loaded.tokenizer_file


def saved(folder, head, names, columns=(0, 1), scale=1.0):
    """A folder of that model; ``columns``: of its head (-1: an output that never wins)."""
    config, params, tokenizer = head
    never = {"kernel": np.zeros((config.hidden_size, 1), np.float32), "bias": np.float32([-50])}
    classifier = {
        name: scale * np.concatenate([leaf, never[name]], axis=-1)[..., list(columns)]
        for name, leaf in params["classifier"].items()
    }
    config = dataclasses.replace(config, num_labels=len(columns))
    save_pretrained(folder, config, {**params, "classifier": classifier}, tokenizer, names)
    return str(folder)
