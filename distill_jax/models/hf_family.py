"""Families whose models have a class of their own in ``transformers``, and are kept in its form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from distill_jax.models.bert import Params
from distill_jax.models.family import Classifiers
from distill_jax.models.hf_architectures import architecture_of
from distill_jax.models.hf_config import read_json
from distill_jax.models.hf_folder import CONFIG
from distill_jax.models.huggingface import load_pretrained, save_pretrained
from distill_jax.models.loaded import UNSAID, Loaded, TextInputs


class HfClassifiers(Classifiers):
    """Kept as transformers reads them; in our own form where a head reads what theirs does not.

    Attributes:
      model_types: that it opens, see ``hf_architectures``.
    """

    model_types: ClassVar[tuple[str, ...]] = ()

    def opens(self, model_type: Any) -> bool:
        return model_type in self.model_types or super().opens(model_type)

    def save(
        self,
        folder: Path,
        config: Any,
        params: Params,
        tokenizer_file: Path | None,
        label_names: Sequence[str],
        inputs: TextInputs = UNSAID,
    ) -> None:
        named = config.pooling in architecture_of(config).poolings
        if named and tokenizer_file is not None:
            save_pretrained(folder, config, params, tokenizer_file, label_names, inputs)
        else:
            super().save(folder, config, params, tokenizer_file, label_names, inputs)

    def load(self, folder: Path) -> Loaded:
        if read_json(folder / CONFIG).get("model_type") == self.model_type:
            return super().load(folder)
        return load_pretrained(folder, model_types=self.model_types)
