"""Times a student's step in PyTorch on the device that gpu.py times ours on."""

import statistics
import time
from typing import Any

import torch
from torch_model import Batch, Classifier, Objective, Said, adamw, take_step
from transformers import BertConfig


def seconds_of_a_step(config: Any, batch: Any, said: Any, least: float) -> float:
    """Median over three timings, under bf16 autocast.

    Args:
      config: our ``BertConfig``.
      batch, said: our ``Batch`` and the teacher's logits, on the host.
      least: seconds that a timing lasts.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    hf_config = BertConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        intermediate_size=config.intermediate_size,
    )
    model = Classifier(hf_config, config.num_labels).to(device).train()
    optimizer = adamw([model], weight_decay=0.01)
    ids, mask, labels = (
        torch.tensor(array, device=device).long()
        for array in (batch.input_ids_BT, batch.where_BT, batch.labels_B)
    )
    own = Batch(ids, mask, labels, torch.arange(len(ids)))
    heard = Said(torch.tensor(said.logits_BC, device=device))

    def run(steps: int) -> float:
        """Seconds of a step over so many."""
        started = time.perf_counter()
        for _ in range(steps):
            loss = take_step(
                model,
                Objective("kl"),
                optimizer,
                own,
                heard,
                rate=1e-4,
                clip_norm=1.0,
                precision="bf16",
            )
        loss.item()  # waits for the device
        return (time.perf_counter() - started) / steps

    run(3)
    steps = max(1, round(least / run(1)))
    return statistics.median(run(steps) for _ in range(3))
