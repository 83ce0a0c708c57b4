"""Golden values of all-MiniLM-L6-v2 from PyTorch, for tests/models/test_huggingface.py.

    pip install torch==2.13.0 transformers==5.23.0 numpy
    python tests/models/golden/make_minilm.py FOLDER_OF_MINILM

Writes minilm.json beside this file: the token ids of three inputs (one of them a pair, two of
them padded) and, at a few positions and features, every hidden state and the pooler's output.
"""

import json
import sys
from pathlib import Path

import torch
import transformers

TEXTS = [
    ("a gorgeous , witty , seductive movie .", None),
    ("it's not that it's bad , it just isn't any good !", None),
    ("Was the café nice?", "The acting was naïve, 中 stars"),
]
FEATURES = list(range(0, 384, 24))


def main(folder: str) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    rows = [tokenizer(a, b) for a, b in TEXTS]
    length = max(len(row["input_ids"]) for row in rows) + 3  # every row has some padding

    def padded(key: str) -> list[list[int]]:
        return [row[key] + [0] * (length - len(row[key])) for row in rows]

    inputs = {key: padded(key) for key in ("input_ids", "token_type_ids", "attention_mask")}
    with torch.no_grad():
        tensors = {key: torch.tensor(value) for key, value in inputs.items()}
        output = model(**tensors, output_hidden_states=True, output_attentions=True)
    positions = [[0, 3, sum(mask) - 1] for mask in inputs["attention_mask"]]

    def picked(hidden: torch.Tensor) -> list:
        return [
            [[round(hidden[b, t, f].item(), 7) for f in FEATURES] for t in positions[b]]
            for b in range(len(rows))
        ]

    golden = {
        "made_with": {"torch": torch.__version__, "transformers": transformers.__version__},
        "texts": TEXTS,
        **inputs,
        "features": FEATURES,
        "positions": positions,
        "hidden_states": [picked(hidden) for hidden in output.hidden_states],
        "pooler": [[round(row[f].item(), 7) for f in FEATURES] for row in output.pooler_output],
        # Layers 1 and 6, second row, head 5: where the token at position 3 looks.
        "attention_probs": {
            str(layer): [round(p, 8) for p in output.attentions[layer - 1][1, 5, 3].tolist()]
            for layer in (1, 6)
        },
    }
    text = json.dumps(golden, ensure_ascii=False)
    Path(__file__).with_name("minilm.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
