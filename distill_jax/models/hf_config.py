"""``config.json`` of a Hugging Face BERT to ``BertConfig`` and back."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill_jax.core.errors import UserError
from distill_jax.models.bert import BertConfig

POOLED = "distill_jax_bert"
"""Model type of a BERT with another pooling than BERT's own, which ``transformers`` runs with the
code that lies beside it (``modeling_distill_jax.py``) and refuses to run without."""
CODE = "modeling_distill_jax"
PAIRS_KEY = "distill_jax_pairs"
"""Our own key in ``config.json``: whether the model was trained on pairs of texts."""
TOKENS = "BertForTokenClassification"
"""What transformers calls a BERT whose head reads every token."""
QUESTIONS = "BertForQuestionAnswering"
"""The same of a BERT that finds answers: outputs ``SPAN`` of every token."""
SPAN = ("start", "end")
OWN = ("pooler", "tokens")
"""Poolings for which transformers has a class."""
POOLING_KEY = "distill_jax_pooling"
"""The same for the pooling, as folders were written before there was ``POOLED``."""

REQUIRED = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "intermediate_size": "intermediate_size",
}
OPTIONAL = {
    "max_position_embeddings": "max_positions",
    "type_vocab_size": "type_vocab_size",
    "hidden_act": "hidden_act",
    "layer_norm_eps": "layer_norm_eps",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "classifier_dropout": "classifier_dropout",
    "initializer_range": "initializer_range",
    POOLING_KEY: "pooling",
}
# What we implement of the switches that change BERT's computation. Absent means the same.
SWITCHES: dict[str, tuple[Any, ...]] = {
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
}


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object, or a ``UserError`` that names the file."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError) as error:
        raise UserError(f"cannot read {file}: {error}.") from error
    if not isinstance(value, dict):
        raise UserError(f"{file} holds {type(value).__name__}, expected a JSON object.")
    return value


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """What ``read_json`` reads, as people read it too."""
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def config_from_hf(raw: Mapping[str, Any], *, where: str) -> BertConfig:
    """The ``BertConfig`` that a ``config.json`` describes.

    Keys that do not change an encoder's computation (``use_cache``, ``torch_dtype``, ...) are
    not read. ``pooling`` is ``"pooler"`` unless recorded otherwise, ``num_labels`` that of
    ``id2label``.

    Args:
      raw: the parsed file.
      where: its path, for errors.

    Raises:
      UserError: not a BERT, a size is missing or not a number, or a switch has a value that we
        do not implement.
    """
    raw = flat(raw, where)
    if raw.get("model_type") != "bert":
        found = repr(raw["model_type"]) if "model_type" in raw else "no model_type"
        raise UserError(f"{where} has {found}; supported model types: 'bert'.")
    check_switches(raw, SWITCHES, where=where)
    return config_of(BertConfig, raw, REQUIRED, OPTIONAL, where=where)


def check_switches(
    raw: Mapping[str, Any], switches: Mapping[str, tuple[Any, ...]], *, where: str
) -> None:
    """Raises ``UserError`` for a switch of a ``config.json`` with a value that is not implemented.

    Args:
      switches: the values that are, by key; None among them where the key may be absent.
    """
    for key, values in switches.items():
        if raw.get(key) not in values:
            raise UserError(
                f"{where}: {key} {raw.get(key)!r} is not supported; supported: {values[0]!r}."
            )


def config_of(
    config_type: type,
    raw: Mapping[str, Any],
    required: Mapping[str, str],
    optional: Mapping[str, str],
    *,
    where: str,
    **fixed: Any,
) -> Any:
    """A config from a ``config.json``, with as many classes as ``id2label`` names.

    Args:
      required, optional: keys there -> fields here.
      fixed: fields that do not stand there.

    Raises:
      UserError: a key is missing, or a value cannot be.
    """
    missing = [key for key in required if key not in raw]
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}.")
    known = {**required, **optional}
    fields = {ours: raw[key] for key, ours in known.items() if key in raw}
    if raw.get("architectures") in ([TOKENS], [QUESTIONS]):
        fields.setdefault("pooling", "tokens")
    labels = None if raw.get("architectures") == [QUESTIONS] else _labels(raw, where)
    fields["num_labels"] = len(labels) if labels else raw.get("num_labels", 2)
    try:
        return config_type(**{**fields, **fixed})
    except UserError as error:
        told = str(error)
        for key, ours in known.items():
            told = re.sub(rf"\b\w+Config: {ours} must be", f"{key} must be", told)
        raise UserError(f"{where}: {told}") from None


def label_names_from_hf(raw: Mapping[str, Any], *, where: str) -> tuple[str, ...] | None:
    """The class names of ``id2label`` in order; None for transformers' placeholders LABEL_0..."""
    if raw.get("architectures") == [QUESTIONS]:
        return SPAN
    labels = _labels(raw, where)
    if labels and all(name == f"LABEL_{i}" for i, name in enumerate(labels)):
        return None
    return labels


def check_single_label(raw: Mapping[str, Any], *, where: str) -> None:
    """Raises ``UserError`` for a trained head that is no classifier of one class an example."""
    kind = raw.get("problem_type")
    if kind not in (None, "single_label_classification"):
        raise UserError(
            f"{where} has a head for {kind!r}; supported: 'single_label_classification'. A softmax "
            "over its outputs would say what it never learnt; give it a fresh head (fine-tune it)."
        )


def check_head(raw: Mapping[str, Any], heads: Collection[str], *, where: str) -> None:
    """Raises ``UserError`` for a trained head of another kind.

    Args:
      heads: the kinds that will do, ``problem_type`` of ``transformers`` or, of heads that read
        every token, ``token_classification`` and ``question_answering``.
    """
    by_name = {TOKENS: "token_classification", QUESTIONS: "question_answering"}
    listed = raw.get("architectures")
    name = listed[0] if isinstance(listed, list) and listed else ""
    single = len(_labels(raw, where) or ("", "")) == 1  # transformers reads it as a number
    usual = "regression" if single else "single_label_classification"
    found = by_name.get(str(name), raw.get("problem_type") or usual)
    if found not in heads:
        shown = ", ".join(map(repr, heads)) or "none but a student of this task"
        raise UserError(
            f"{where} has a head for {found!r} ({name}); supported for this task: {shown}; or "
            "leave out --no-fine-tune, and a new head is trained"
        )


def config_to_hf(config: BertConfig, label_names: Sequence[str] | None) -> dict[str, Any]:
    """The ``config.json`` of ``config``, as ``transformers`` reads it.

    A model with BERT's pooler is a ``BertForSequenceClassification``, one whose head reads every
    token a ``BertForTokenClassification``. For another pooling transformers has no class; under
    BERT's name it would draw a pooler by chance. So such a model is called ``POOLED``, and BERT's
    sizes lie one level deeper, where BERT's classes look for none.
    """
    bert = bert_to_hf(config)
    labels = labels_to_hf(label_names, config.num_labels)
    if config.pooling in OWN:
        whole = config.pooling == "pooler"
        return {
            "model_type": "bert",
            "architectures": ["BertForSequenceClassification" if whole else TOKENS],
            **bert,
            **labels,
        }
    return {
        "model_type": POOLED,
        "architectures": ["PooledBertForSequenceClassification"],
        "auto_map": {
            "AutoConfig": f"{CODE}.PooledBertConfig",
            "AutoModelForSequenceClassification": f"{CODE}.PooledBertForSequenceClassification",
        },
        "pooling": config.pooling,
        "bert": bert,
        **labels,
    }


def bert_to_hf(config: Any) -> dict[str, Any]:
    """What ``config.json`` calls the fields of a BERT, or of a relative with the same keys."""
    bert: dict[str, Any] = {"position_embedding_type": "absolute"}
    for key, ours in {**REQUIRED, **OPTIONAL}.items():
        if key != POOLING_KEY:
            bert[key] = getattr(config, ours)
    bert["hidden_act"] = activation_to_hf(bert["hidden_act"])
    return bert


def activation_to_hf(name: str) -> str:
    """An activation as transformers names it, which does not know our short name of one."""
    return "gelu_pytorch_tanh" if name == "gelu_tanh" else name


def labels_to_hf(label_names: Sequence[str] | None, count: int) -> dict[str, Any]:
    """The classes in ``config.json``."""
    names = label_names or [f"LABEL_{i}" for i in range(count)]
    return {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }


def pairs_from_hf(raw: Mapping[str, Any], *, where: str) -> bool | None:
    """Whether a model was trained on pairs of texts; None where its folder does not say."""
    pairs = raw.get(PAIRS_KEY)
    if pairs is not None and not isinstance(pairs, bool):
        raise UserError(f"{where}: {PAIRS_KEY} is {pairs!r}, expected true or false.")
    return pairs


def flat(raw: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The configuration of a ``POOLED`` model as older folders have it: BERT's, and the pooling."""
    if raw.get("model_type") != POOLED:
        return raw
    bert = raw.get("bert")
    if not isinstance(bert, dict) or "pooling" not in raw:
        raise UserError(f"{where} lacks bert or pooling.")
    return {**raw, **bert, "model_type": "bert", POOLING_KEY: raw["pooling"]}


def _labels(raw: Mapping[str, Any], where: str) -> tuple[str, ...] | None:
    id2label = raw.get("id2label")
    if not id2label:
        return None
    try:
        by_id = {int(number): str(name) for number, name in id2label.items()}
    except (AttributeError, TypeError, ValueError):
        by_id = {}
    if not by_id or sorted(by_id) != list(range(len(id2label))):
        raise UserError(f"{where}: id2label must map 0, 1, ... to names, found {id2label!r}.")
    return tuple(by_id[number] for number in range(len(by_id)))
