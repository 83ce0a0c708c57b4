"""Writes ``kin.json``: what PyTorch's classifiers say of the models in ``tests/kin_cases.py``.

    PYTHONPATH=tests python tests/models/golden/make_kin.py

Needs torch. The weights are not kept: names and shapes are, as transformers has them, and values
follow from the names. Each row is asked about alone, without padding.
"""

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from kin_cases import CASES, filled, rows

FEATURES = (0, 3, 7, 11, 15)


def case(model_type: str) -> dict:
    """Configuration, names and shapes, and what is said of each row."""
    config = transformers.AutoConfig.for_model(model_type, **CASES[model_type])
    model = transformers.AutoModelForSequenceClassification.from_config(
        config, attn_implementation="eager"
    ).eval()
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    weights = {name: torch.tensor(value) for name, value in filled(shapes).items()}
    model.load_state_dict(weights)
    said = []
    for row in rows(model_type):
        inputs = {"input_ids": torch.tensor([row["ids"]])}
        if getattr(config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = torch.tensor([row["types"]])
        with torch.no_grad():
            output = model(**inputs, output_hidden_states=True, output_attentions=True)
        said.append(
            {
                "logits": rounded(output.logits[0]),
                "hidden_states": [rounded(x[0, -1, list(FEATURES)]) for x in output.hidden_states],
                "attention_probs": [rounded(x[0, 1, -1, :8]) for x in output.attentions],
            }
        )
    raw = {**config.to_diff_dict(), "model_type": model_type}
    raw.pop("dtype", None)
    return {"config": raw, "shapes": shapes, "said": said}


def rounded(tensor: torch.Tensor) -> list[float]:
    return np.asarray(tensor, np.float64).round(6).tolist()


if __name__ == "__main__":
    golden = {"features": FEATURES, "cases": {name: case(name) for name in CASES}}
    golden["transformers"], golden["torch"] = transformers.__version__, torch.__version__
    file = Path(__file__).with_name("kin.json")
    file.write_text(json.dumps(golden, separators=(",", ":")).replace('"said"', '\n"said"') + "\n")
