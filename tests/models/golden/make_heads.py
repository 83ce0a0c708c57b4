"""Writes ``heads.json``: what PyTorch's BERTs say whose heads are for other tasks than one class.

    PYTHONPATH=tests python tests/models/golden/make_heads.py

Needs torch. Weights, and what is asked, are those of ``tests/kin_cases.py``.
"""

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from kin_cases import CASES, filled, rows

TAGS = ("O", "B-x", "I-x")
HEADS = {
    "question_answering": ("BertForQuestionAnswering", {"num_labels": 2}),
    "token_classification": ("BertForTokenClassification", {"id2label": dict(enumerate(TAGS))}),
    "regression": (
        "BertForSequenceClassification",
        {"num_labels": 1, "problem_type": "regression"},
    ),
    "multi_label_classification": (
        "BertForSequenceClassification",
        {"id2label": {0: "joy", 1: "anger"}, "problem_type": "multi_label_classification"},
    ),
}


def case(name: str, changes: dict) -> dict:
    """Configuration, names and shapes, and what is said of each row."""
    usual = {key: value for key, value in CASES["bert"].items() if key != "num_labels"}
    config = transformers.BertConfig(**usual, **changes)
    model = getattr(transformers, name)(config).eval()
    shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    model.load_state_dict({key: torch.tensor(value) for key, value in filled(shapes).items()})
    said = []
    for row in rows("bert"):
        with torch.no_grad():
            output = model(torch.tensor([row["ids"]]), token_type_ids=torch.tensor([row["types"]]))
        parts = [output.logits] if "logits" in output else [output.start_logits, output.end_logits]
        logits = parts[0] if len(parts) == 1 else torch.stack(parts, dim=-1)
        said.append(np.asarray(logits[0], np.float64).round(6).tolist())
    raw = {**config.to_diff_dict(), "model_type": "bert", "architectures": [name]}
    raw.pop("dtype", None)
    return {"config": raw, "shapes": shapes, "said": said}


if __name__ == "__main__":
    golden = {"cases": {head: case(*made) for head, made in HEADS.items()}}
    golden["transformers"], golden["torch"] = transformers.__version__, torch.__version__
    file = Path(__file__).with_name("heads.json")
    file.write_text(json.dumps(golden, separators=(",", ":")).replace('"said"', '\n"said"') + "\n")
