"""What the PyTorch side of the benchmarks trains: a BERT, the objectives of the table, AdamW.

Written as a careful user of ``transformers`` would, and on its own: nothing of distill_jax is
imported. Parameters have the names of the folders that ``distill_jax`` saves.

Shape suffixes: B batch, T tokens, D hidden size, C classes.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BertConfig, BertModel

Precision = Literal["f32", "bf16"]
LayerPairs = Sequence[tuple[int, int]]


@dataclass
class Said:
    """What a model says of a batch: logits [B, C]; hidden states [B, T, D], 0 the embeddings."""

    logits: Tensor
    hidden: Sequence[Tensor] = ()


@dataclass
class Batch:
    """``ids`` [B, T], ``mask`` [B, T] (1 for real tokens), ``labels`` [B] (-1 for none), ``rows``
    [B] of the table."""

    ids: Tensor
    mask: Tensor
    labels: Tensor
    rows: Tensor


class Classifier(nn.Module):
    """BERT whose head reads the mean over real tokens."""

    def __init__(self, config: BertConfig, classes: int) -> None:
        super().__init__()
        self.backbone = BertModel(config, add_pooling_layer=False)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, classes)

    @classmethod
    def load(cls, folder: Path) -> "Classifier":
        """The model in a folder that distill_jax saved."""
        raw = json.loads((folder / "config.json").read_text())
        tensors = load_file(folder / "model.safetensors")
        model = cls(BertConfig(**raw["bert"]), len(tensors["classifier.bias"]))
        model.load_state_dict(tensors)
        return model

    def forward(self, ids: Tensor, mask: Tensor, hidden: bool = False) -> Said:
        output = self.backbone(ids, attention_mask=mask, output_hidden_states=hidden)
        last, where = output.last_hidden_state, mask[:, :, None]
        pooled = (last * where).sum(1) / where.sum(1)
        return Said(self.classifier(self.dropout(pooled)), output.hidden_states or ())


def ce(student: Said, batch: Batch) -> Tensor:
    """Cross-entropy, the mean over the examples that have a label."""
    total = F.cross_entropy(student.logits.float(), batch.labels, ignore_index=-1, reduction="sum")
    return total / (batch.labels >= 0).sum().clamp(min=1)


def kl(student: Said, teacher: Said) -> Tensor:
    """KL(teacher || student) at temperature 1, the mean over examples."""
    said, heard = (F.log_softmax(each.logits.float(), -1) for each in (student, teacher))
    return F.kl_div(said, heard, log_target=True, reduction="batchmean")


def mse_logits(student: Said, teacher: Said) -> Tensor:
    """Mean squared difference of the logits."""
    return F.mse_loss(student.logits.float(), teacher.logits.float())


def hidden_mse(
    student: Said, teacher: Said, mask: Tensor, pairs: LayerPairs, projections: nn.ModuleList
) -> Tensor:
    """Mean squared difference of hidden states, the student's projected to the teacher's width:
    over features, the real tokens of an example, pairs of layers, examples."""
    values = []
    for (s, t), project in zip(pairs, projections, strict=True):
        gap = project(student.hidden[s]).float() - teacher.hidden[t].float()
        per_token = gap.square().mean(-1) * mask
        values.append((per_token.sum(1) / mask.sum(1)).mean())
    return torch.stack(values).mean()


@dataclass
class Objective:
    """One of the four objectives of the default table.

    Attributes:
      text: as the table has it.
      pairs: (student layer, teacher layer), for hidden states.
      projections: a linear map for each of them.
    """

    text: str
    pairs: LayerPairs = ()
    projections: nn.ModuleList = field(default_factory=nn.ModuleList)

    def __post_init__(self) -> None:
        if self.text not in ("ce", "kl", "mse_logits", "hidden_mse + kl"):
            raise SystemExit(f"the PyTorch script does not know the objective {self.text!r}")

    @property
    def needs_teacher(self) -> bool:
        return self.text != "ce"

    @property
    def reads_hidden(self) -> bool:
        return "hidden" in self.text

    def __call__(self, student: Said, teacher: Said | None, batch: Batch) -> Tensor:
        if teacher is None:
            return ce(student, batch)
        if self.text == "mse_logits":
            return mse_logits(student, teacher)
        if not self.reads_hidden:
            return kl(student, teacher)
        hidden = hidden_mse(student, teacher, batch.mask, self.pairs, self.projections)
        return hidden + kl(student, teacher)


def projections_of(tensors: Mapping[str, Tensor]) -> nn.ModuleList:
    """Linear maps from ``0.weight``, ``0.bias``, ``1.weight``, ..."""
    maps = nn.ModuleList()
    for number in range(len(tensors) // 2):
        wide, narrow = tensors[f"{number}.weight"].shape
        maps.append(nn.Linear(narrow, wide))
    maps.load_state_dict(dict(tensors))
    return maps


def adamw(modules: Iterable[nn.Module], weight_decay: float) -> torch.optim.AdamW:
    """Fused AdamW; matrices decay, biases and layer norms do not."""
    params = [param for module in modules for param in module.parameters()]
    groups = [
        {"params": [p for p in params if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.999), eps=1e-8, fused=True)


def computing(precision: Precision, device: str = "cpu") -> AbstractContextManager:
    """Autocast to bfloat16, or nothing."""
    if precision == "bf16":
        return torch.autocast(device, torch.bfloat16)
    return nullcontext()


def take_step(
    student: nn.Module,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    teacher: Said | None,
    *,
    rate: float,
    clip_norm: float,
    precision: Precision,
) -> Tensor:
    """Forward, backward, clip, update; returns the loss."""
    with computing(precision, batch.ids.device.type):
        said = student(batch.ids, batch.mask, objective.reads_hidden)
        loss = objective(said, teacher, batch)
    optimizer.zero_grad()
    loss.backward()
    for group in optimizer.param_groups:
        group["lr"] = rate
    trained = [param for group in optimizer.param_groups for param in group["params"]]
    nn.utils.clip_grad_norm_(trained, clip_norm)
    optimizer.step()
    return loss.detach()
