"""A BERT classifier as a folder that other software loads under its own names, without our code.

With BERT's own pooler that is ``BertForSequenceClassification``, with a head that reads every token
``BertForTokenClassification``. With another pooling it is the layout of sentence-transformers: an
encoder, a pooling, and a dense layer whose outputs are the logits
(``SentenceTransformer(folder).encode(texts)``). There is no ``config.json`` at its top, so that no
class of ``transformers`` loads it and draws the head it lacks.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.core.files import save_tensors
from distill_jax.models.bert import BertConfig, Params
from distill_jax.models.family import Elsewhere
from distill_jax.models.hf_architectures import architecture_of
from distill_jax.models.hf_config import OWN, QUESTIONS, read_json, write_json
from distill_jax.models.hf_folder import CONFIG
from distill_jax.models.hf_tokenizer import TOKENIZER_CONFIG
from distill_jax.models.hf_weights import ANSWERS, WEIGHTS, read_safetensors, read_tensors
from distill_jax.models.huggingface import load_pretrained, save_pretrained
from distill_jax.models.loaded import Loaded, TextInputs, model_digest

MODULES = "modules.json"
ENCODER, POOLING, DENSE = "0_Transformer", "1_Pooling", "2_Dense"
_KINDS = {ENCODER: "Transformer", POOLING: "Pooling", DENSE: "Dense"}
_MODES = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
_POOLINGS = {"cls": "cls_token", "mean": "mean_tokens"}


def save_elsewhere(
    folder: Path,
    config: BertConfig,
    params: Params,
    tokenizer_file: Path,
    label_names: Sequence[str],
    inputs: TextInputs,
) -> None:
    """Write such a folder's files into an empty folder.

    Raises:
      UserError: see ``save_pretrained``.
    """
    if config.pooling in OWN:
        _fill(folder, folder / ".model", config, params, tokenizer_file, label_names, inputs)
        return
    plain = dataclasses.replace(config, pooling="pooler")
    width = config.hidden_size
    zeros = {"kernel": np.zeros((width, width), np.float32), "bias": np.zeros(width, np.float32)}
    whole = {**params, "pooling": {"dense": zeros}}  # nothing reads it, and AutoModel misses it
    encoder = folder / ENCODER
    _fill(encoder, folder / ".model", plain, whole, tokenizer_file, label_names, inputs)
    _leave_the_head(encoder, plain)
    settings = read_json(encoder / TOKENIZER_CONFIG)
    length = {"max_seq_length": settings["model_max_length"], "do_lower_case": False}
    write_json(encoder / "sentence_bert_config.json", length)
    modes = {f"pooling_mode_{mode}": mode == _POOLINGS[config.pooling] for mode in _MODES}
    (folder / POOLING).mkdir()
    write_json(folder / POOLING / CONFIG, {"word_embedding_dimension": width, **modes})
    _write_dense(folder / DENSE, params["classifier"])
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(_KINDS.items())
    ]
    (folder / MODULES).write_text(json.dumps(modules, indent=2) + "\n", encoding="utf-8")


def as_questions(folder: Path) -> None:
    """Make a saved BERT whose head reads every token one that finds answers: transformers'
    ``QUESTIONS``, whose outputs are where one starts and where it ends."""
    tensors = read_tensors(folder)
    head = {name for name in tensors if name.startswith("classifier.")}
    own = {ANSWERS + name.removeprefix("classifier."): tensors.pop(name) for name in sorted(head)}
    save_tensors(folder / WEIGHTS, {**tensors, **own}, metadata={"format": "pt"})
    raw = read_json(folder / CONFIG)
    for key in ("id2label", "label2id"):
        raw.pop(key, None)
    write_json(folder / CONFIG, {**raw, "architectures": [QUESTIONS]})


def load_elsewhere(folder: Path) -> Loaded:
    """Read what ``save_elsewhere`` wrote.

    Raises:
      UserError: a file is missing or damaged.
    """
    if not (folder / MODULES).is_file():
        return load_pretrained(folder)
    modes = read_json(folder / POOLING / CONFIG)
    chosen = [name for name, mode in _POOLINGS.items() if modes.get(f"pooling_mode_{mode}") is True]
    if len(chosen) != 1:
        raise UserError(f"{folder / POOLING / CONFIG} names no pooling of {', '.join(_POOLINGS)}")
    dense = read_safetensors(folder / DENSE / WEIGHTS)
    loaded = load_pretrained(folder / ENCODER, pooling=chosen[0])
    try:
        classifier = {
            "kernel": jnp.asarray(dense["linear.weight"].T),
            "bias": jnp.asarray(dense["linear.bias"]),
        }
    except KeyError as error:
        raise UserError(f"{folder / DENSE / WEIGHTS} lacks {error}") from None
    names = read_json(folder / ENCODER / CONFIG).get("id2label", {})
    config = dataclasses.replace(loaded.config, num_labels=classifier["bias"].shape[0])
    params = {**loaded.params, "classifier": classifier}
    return dataclasses.replace(
        loaded,
        config=config,
        params=params,
        digest=model_digest(config, params),
        label_names=tuple(names[str(n)] for n in range(config.num_labels)),
        fresh=(),
    )


_PLAIN = """
```python
from transformers import AutoModelFor{kind}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(FOLDER)
model = AutoModelFor{kind}.from_pretrained(FOLDER)
logits = model(**tokenizer({texts}, truncation=True, return_tensors="pt")).logits
```
"""
_POOLED = """
```python
from sentence_transformers import SentenceTransformer

logits = SentenceTransformer(FOLDER).encode([{texts}])
```

The head reads {reads}, for which `transformers` has no classifier; the layout is that of
sentence-transformers, and what it calls an embedding are the logits. `{encoder}` alone is the
encoder, as `AutoModel` loads it; a classifier that is loaded from there has no head.
"""


def usage_elsewhere(config: BertConfig, pairs: bool) -> str:
    """Markdown: how other software loads the folder."""
    texts = '"a text", "the second text"' if pairs else '"a text"'
    if config.pooling in OWN:
        whole = config.pooling == "pooler"
        kind = "SequenceClassification" if whole else "TokenClassification"
        return _PLAIN.format(texts=texts, kind=kind)
    reads = "the mean over all tokens" if config.pooling == "mean" else "the [CLS] position itself"
    return _POOLED.format(texts=f"({texts})" if pairs else texts, reads=reads, encoder=ENCODER)


def save_named(
    folder: Path,
    config: Any,
    params: Params,
    tokenizer_file: Path,
    label_names: Sequence[str],
    inputs: TextInputs,
) -> None:
    """Fill an empty folder as the classifier's own class in transformers reads it.

    Raises:
      UserError: the model's head reads what that class's does not.
    """
    kind = architecture_of(config)
    if config.pooling not in kind.poolings:
        raise UserError(
            f"the head reads {config.pooling!r}, and that of transformers' {kind.class_name} does "
            "not; onnx, onnx-int8 and stablehlo hold it"
        )
    _fill(folder, folder / ".model", config, params, tokenizer_file, label_names, inputs)


def _fill(folder: Path, scratch: Path, *saved: Any) -> None:
    """What ``save_pretrained`` writes, but its card, into a folder that is there or is made."""
    save_pretrained(scratch, *saved)
    folder.mkdir(exist_ok=True)
    for file in scratch.iterdir():
        if file.name != "README.md":
            shutil.move(file, folder / file.name)
    shutil.rmtree(scratch)


NAMED = Elsewhere(
    save_named, lambda folder: load_pretrained(folder, model_types=None), usage_elsewhere
)
"""Of families whose models have a class of their own in transformers."""


def _leave_the_head(encoder: Path, config: BertConfig) -> None:
    """Make a saved classifier an encoder: ``BertModel``, its tensors under its own names."""
    tensors = read_tensors(encoder)
    own = {k.removeprefix("bert."): x for k, x in tensors.items() if k.startswith("bert.")}
    save_tensors(encoder / WEIGHTS, own, metadata={"format": "pt"})
    raw = read_json(encoder / CONFIG)
    write_json(encoder / CONFIG, {**raw, "architectures": ["BertModel"]})


def _write_dense(folder: Path, head: Mapping[str, Any]) -> None:
    folder.mkdir()
    weight_CD = np.ascontiguousarray(np.asarray(head["kernel"], np.float32).T)
    bias_C = np.asarray(head["bias"], np.float32)
    save_tensors(
        folder / WEIGHTS, {"linear.weight": weight_CD, "linear.bias": bias_C}, {"format": "pt"}
    )
    shape = {"in_features": weight_CD.shape[1], "out_features": weight_CD.shape[0], "bias": True}
    activation = {"activation_function": "torch.nn.modules.linear.Identity"}
    write_json(folder / CONFIG, {**shape, **activation})
