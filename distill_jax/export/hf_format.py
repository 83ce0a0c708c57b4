"""Folders that Hugging Face's libraries load by their own classes, without our code."""

from __future__ import annotations

from pathlib import Path

import jax

from distill_jax.core.errors import UserError
from distill_jax.export.formats import Format, Logits, register
from distill_jax.export.manifest import Manifest
from distill_jax.export.padded import padded
from distill_jax.export.source import Source
from distill_jax.export.trace import logits_of_tokens
from distill_jax.models.build import family_of
from distill_jax.models.family import Classifiers, Elsewhere, registered
from distill_jax.models.hf_export import as_questions
from distill_jax.models.loaded import TextInputs, flat_arrays


def _write(source: Source, folder: Path) -> None:
    opened, model = source.opened, source.model
    _elsewhere(source).save(
        folder,
        model.config,
        model.params,
        opened.tokenizer_file,
        opened.label_names,
        TextInputs(opened.max_length, opened.pairs),
    )
    if _finds_answers(source):
        as_questions(folder)


def _finds_answers(source: Source) -> bool:
    """Whether transformers has a class of its own for what the outputs are."""
    return "question_answering" in source.kind.heads


def _open(folder: Path, manifest: Manifest, threads: int | None) -> Logits:
    name = manifest.source.get("family")
    families = [each for each in registered(Classifiers) if each.name == name and each.elsewhere]
    if not families:
        raise UserError(f"{folder} holds a model of the unknown family {name!r:.80}")
    elsewhere = families[0].elsewhere
    assert elsewhere is not None, "of those that have one"
    model = elsewhere.load(folder)
    apply = jax.jit(logits_of_tokens(model.config))
    flat = flat_arrays(model.params)
    return padded(lambda *tokens: apply(flat, *tokens), manifest.max_length)


def _elsewhere(source: Source) -> Elsewhere:
    family = family_of(source.model.config)
    if family.elsewhere is None:
        raise UserError(
            f"no other software has models of the family {family.name!r}, so there is no hf folder "
            "of one; onnx, onnx-int8 and stablehlo hold it"
        )
    return family.elsewhere


_QUESTIONS = """
```python
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(FOLDER)
model = AutoModelForQuestionAnswering.from_pretrained(FOLDER)
said = model(**tokenizer("a question", "its context", truncation=True, return_tensors="pt"))
logits = said.start_logits, said.end_logits
```
"""


def _usage(source: Source) -> str:
    if _finds_answers(source):
        return _QUESTIONS
    return _elsewhere(source).usage(source.model.config, source.pairs)


HF = register(Format("hf", "a Hugging Face folder", _write, _open, _usage, compiles=True))
