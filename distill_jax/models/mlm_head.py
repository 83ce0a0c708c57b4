"""The head of a BERT's masked language model, where a checkpoint has one.

Devlin et al. 2019, section 3.1; numbers agree with ``transformers``' ``BertForMaskedLM``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from distill_jax.core.errors import UserError
from distill_jax.models import hf_folder, hf_weights
from distill_jax.models.bert import ACTIVATIONS
from distill_jax.models.hf_config import read_json
from distill_jax.models.named import layer_norm

_DENSE, _NORM = "cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm"
_BIAS = "cls.predictions.bias"
_NEEDED = (f"{_DENSE}.weight", f"{_DENSE}.bias", f"{_NORM}.weight", f"{_NORM}.bias", _BIAS)


@dataclass(frozen=True, eq=False)
class MlmHead:
    """Kernel [D, D], bias [D], layer norm's scale and bias [D], and a bias a token [V].

    The last product is with the word embeddings.
    """

    kernel_DD: np.ndarray
    bias_D: np.ndarray
    norm_scale_D: np.ndarray
    norm_bias_D: np.ndarray
    bias_V: np.ndarray

    def logits(
        self, hidden_ND: ArrayLike, words_VD: ArrayLike, *, activation: str, epsilon: float
    ) -> Array:
        """[N, V], of last hidden states [N, D].

        Args:
          words_VD: the model's word embeddings.
          activation, epsilon: the model's ``hidden_act`` and ``layer_norm_eps``.
        """
        middle_ND = ACTIVATIONS[activation](
            jnp.asarray(hidden_ND) @ self.kernel_DD + self.bias_D[None]
        )
        normal_ND = layer_norm(middle_ND, self.norm_scale_D, self.norm_bias_D, epsilon)
        return normal_ND @ jnp.asarray(words_VD).T + self.bias_V[None]


def read_mlm_head(reference: str | Path) -> MlmHead | None:
    """The head in a checkpoint of a BERT; None where it has none.

    Args:
      reference: as ``load_pretrained`` takes it.

    Raises:
      UserError: it has a part of one, or one of other shapes.
    """
    folder = hf_folder.find_folder(reference)
    config = folder / hf_folder.CONFIG
    if not config.is_file() or read_json(config).get("model_type", "bert") != "bert":
        return None  # heads of other architectures have other parts
    tensors = hf_weights.standard_names(hf_weights.read_tensors(folder), (), where=str(folder))
    there = [name for name in _NEEDED if name in tensors]
    if not there:
        return None
    missing = [name for name in _NEEDED if name not in tensors]
    if missing:
        raise UserError(
            f"{folder} has a part of a masked language model's head; {missing[0]} lacks"
        )
    kernel, bias, scale, shift, bias_V = (tensors[name] for name in _NEEDED)
    width = len(bias)
    if kernel.shape != (width, width) or scale.shape != (width,) or shift.shape != (width,):
        raise UserError(f"{folder}: the shapes of {_DENSE} and {_NORM} do not fit each other")
    return MlmHead(kernel.T, bias, scale, shift, bias_V)
