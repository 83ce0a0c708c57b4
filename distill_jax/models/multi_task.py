"""Several predictions from one trunk: will they click, will they buy, how will they rate it.

The shared-bottom network (Caruana 1997, "Multitask Learning"). A teacher may read privileged
features, which its student never sees (Xu et al. 2020, "Privileged Features Distillation at
Taobao Recommendations").
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.core.task_types import SHOP, TaskBatch, TaskHead
from distill_jax.core.types import ModelOutput, ModelShape
from distill_jax.models.bert import MAX_SIZE, Params
from distill_jax.models.dropout import Dropout


@dataclasses.dataclass(frozen=True)
class MultiTaskConfig:
    """A shared trunk with a head a task.

    Attributes:
      num_features: numbers of an example, F.
      num_privileged: privileged numbers, P; above 0 for a teacher only.
      vocabularies: size of each column of categories, C of them.
      embedding_size: width of each category's embedding.
      trunk: widths of the shared layers.
      head: width of each head's own layer; 0 for none.
    """

    tasks: tuple[TaskHead, ...] = SHOP
    num_features: int = 0
    num_privileged: int = 0
    vocabularies: tuple[int, ...] = ()
    embedding_size: int = 16
    trunk: tuple[int, ...] = (64, 32)
    head: int = 16
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        names = [task.name for task in self.tasks]
        if not names or len(set(names)) < len(names):
            raise UserError(f"a model needs tasks of different names, not {names}.")
        counts = (self.num_features, self.num_privileged, self.head)
        widths = (*self.vocabularies, *self.trunk, self.embedding_size)
        if not all(0 <= n < MAX_SIZE for n in counts) or not all(0 < n < MAX_SIZE for n in widths):
            raise UserError(
                "multi-task config: sizes must be positive, numbers of features from 0."
            )
        if not self.trunk or not (self.num_features or self.num_privileged or self.vocabularies):
            raise UserError("multi-task config: a trunk and something to read are needed.")
        if not 0 <= self.dropout < 1:
            raise UserError(f"multi-task config: dropout must be in [0, 1), not {self.dropout}.")

    @property
    def shape(self) -> ModelShape:
        """What objectives have to know: hidden state l is what trunk layer l says, [B, 1, D]."""
        return ModelShape(len(self.trunk), self.trunk[-1], 1, len(self.tasks))


class MultiTask(nn.Module):
    """Logits (numbers, for such tasks) [B, K], a column a task."""

    config: MultiTaskConfig

    @nn.compact
    def __call__(self, batch: TaskBatch, *, train: bool = False) -> ModelOutput:
        """The heads' outputs in the order of ``config.tasks``, hidden states of the trunk."""
        hidden_BD = self._read(batch)
        output = ModelOutput()
        for number, width in enumerate(self.config.trunk, start=1):
            hidden_BD = jax.nn.relu(nn.Dense(width, name=f"trunk_{number}")(hidden_BD))
            output.hidden_states[number] = hidden_BD[:, None, :]
            hidden_BD = Dropout(self.config.dropout)(hidden_BD, train=train)
        said = []
        for task in self.config.tasks:
            own_BD = hidden_BD
            if self.config.head:
                own_BD = jax.nn.relu(nn.Dense(self.config.head, name=f"{task.name}_hidden")(own_BD))
            said.append(nn.Dense(1, name=task.name)(own_BD))
        return output.replace(logits_BC=jnp.concatenate(said, axis=1))  # type: ignore[attr-defined]

    def _read(self, batch: TaskBatch) -> Array:
        """All that the model may see of an example, [B, D]."""
        config = self.config
        found = batch.features_BF.shape[1], batch.ids_BC.shape[1]
        if found != (config.num_features, len(config.vocabularies)):
            raise UserError(
                f"the model reads {config.num_features} features and {len(config.vocabularies)} "
                f"categories, the data has {found[0]} and {found[1]}."
            )
        parts = [batch.features_BF]
        for column, size in enumerate(config.vocabularies):
            embed = nn.Embed(size, config.embedding_size, name=f"category_{column}")
            parts.append(embed(batch.ids_BC[:, column]))
        if config.num_privileged:
            if batch.privileged_BP is None or batch.privileged_BP.shape[1] != config.num_privileged:
                there = 0 if batch.privileged_BP is None else batch.privileged_BP.shape[1]
                raise UserError(
                    f"this model reads {config.num_privileged} privileged features, the data has "
                    f"{there}: only a teacher can be asked where they are known."
                )
            parts.append(batch.privileged_BP)
        return jnp.concatenate(parts, axis=1)


@partial(jax.jit, static_argnums=0)
def init_multi_task(config: MultiTaskConfig, rng: Array) -> Params:
    """Fresh float32 parameters."""
    tasks = len(config.tasks)
    arrays: dict[str, Any] = {
        "example_ids_B": jnp.zeros(1, jnp.int32),
        "features_BF": jnp.zeros((1, config.num_features)),
        "ids_BC": jnp.zeros((1, len(config.vocabularies)), jnp.int32),
        "labels_BK": jnp.zeros((1, tasks)),
        "label_where_BK": jnp.zeros((1, tasks), bool),
        "privileged_BP": jnp.zeros((1, config.num_privileged)) if config.num_privileged else None,
    }
    return MultiTask(config).init(rng, TaskBatch(**arrays))["params"]
