"""README.md of a saved classifier: how it is loaded, here and with ``transformers``."""

from __future__ import annotations

from collections.abc import Sequence

from distill_jax.models.bert import BertConfig
from distill_jax.models.hf_config import OWN

_WHY = """
The head reads {reads}. `transformers` has no class for that; `modeling_distill_jax.py` in this
folder is one, and `trust_remote_code=True` lets it be run. `BertForSequenceClassification` is not
this model.
"""


def model_card(
    config: BertConfig, label_names: Sequence[str], max_length: int, *, pairs: bool
) -> str:
    """Markdown, with what to type; ``max_length`` and ``pairs`` are of the training."""
    own, tokens = config.pooling in OWN, config.pooling == "tokens"
    kind = "TokenClassification" if tokens else "SequenceClassification"
    made = "A classifier of tokens" if tokens else "A text classifier"
    trust = "" if own else ", trust_remote_code=True"
    reads = "the mean over all tokens" if config.pooling == "mean" else "the [CLS] position itself"
    texts = '"a text", "the second text"' if pairs else '"a text"'
    predict = '"a text" --second "the second text"' if pairs else '"a text"'
    return f"""# {made} made with distill_jax

{config.num_layers} layers of width {config.hidden_size}; classes: {", ".join(label_names)}.
Trained on {"pairs of texts" if pairs else "texts"} of at most {max_length} tokens.

```python
from transformers import AutoModelFor{kind}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(FOLDER{trust})
model = AutoModelFor{kind}.from_pretrained(FOLDER{trust})
inputs = tokenizer({texts}, truncation=True, return_tensors="pt")
model(**inputs).logits.softmax(-1)
```
{"" if own else _WHY.format(reads=reads)}
Without PyTorch: `distill-jax predict FOLDER {predict}`.
"""
