"""Student presets: how small a student is and what it starts from.

Two kinds. A *random* student has its own width and knows nothing (``tiny``, ``3x256x4``); it may
start from what a wider teacher knows all the same, see ``starts``. A
*copied* student has the teacher's width and starts from chosen teacher layers (``l2``, ``l3``),
as DistilBERT does (Sanh et al. 2019, "DistilBERT, a distilled version of BERT", section 3).

What a copied student is copied from decides what a comparison says. Given the *pretrained*
backbone and a fresh head (the default), a student trained on labels alone has learnt nothing
from the fine-tuned teacher, and is a fair control. Given the *fine-tuned* teacher's parameters
it has, even before the first loss.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from distill_jax.core.errors import UserError, unknown
from distill_jax.core.layer_choice import spread, uniform
from distill_jax.models.bert import Bert, BertConfig, Params, init_bert
from distill_jax.models.family import Classifiers, Elsewhere, family_of, register
from distill_jax.models.hf_export import load_elsewhere, save_elsewhere, usage_elsewhere
from distill_jax.models.hf_reference import reference_logits
from distill_jax.models.huggingface import load_pretrained, save_pretrained
from distill_jax.models.loaded import Loaded
from distill_jax.models.narrowed import (
    check_embeddings,
    check_widths,
    embeddings_from,
    truncated,
)


@dataclasses.dataclass(frozen=True)
class Preset:
    """Size and start of a student.

    Attributes:
      num_layers: of the student.
      hidden_size, num_heads: None for the teacher's: the student is copied from its layers.
        Otherwise the student is random.
      intermediate_size: of the feed-forward blocks of a random one; None for 4 * hidden_size.
    """

    num_layers: int
    hidden_size: int | None = None
    num_heads: int | None = None
    intermediate_size: int | None = None

    @property
    def copies_teacher(self) -> bool:
        """Whether the student starts from teacher layers."""
        return self.hidden_size is None


PRESETS: dict[str, Preset] = {
    "tiny": Preset(num_layers=2, hidden_size=128, num_heads=2),
    "mini": Preset(num_layers=4, hidden_size=256, num_heads=4),
    "small": Preset(num_layers=4, hidden_size=512, num_heads=8),
    "medium": Preset(num_layers=8, hidden_size=512, num_heads=8),
    "tinybert-4": Preset(num_layers=4, hidden_size=312, num_heads=12, intermediate_size=1200),
    "tinybert-6": Preset(num_layers=6, hidden_size=768, num_heads=12),
    "l2": Preset(num_layers=2),
    "l3": Preset(num_layers=3),
}
"""Turc et al. 2019, "Well-Read Students Learn Better", table 1; Jiao et al. 2020, "TinyBERT",
section 4.1; layers of the teacher."""
_COPIED = re.compile(r"l([1-9]\d{0,2})")
_MINILM, MINILM_HEADS = re.compile(r"minilm-([1-9]\d*)x([1-9]\d*)"), 12
"""Wang et al. 2020, "MiniLM": as many heads as BERT-base, whatever the width."""

LAYER_CHOICES = ("spread", "uniform", "first", "last")
_SIZES = re.compile(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)")
_NAMES = (
    *PRESETS,
    "lLAYERS (l6)",
    "minilm-LAYERSxWIDTH (minilm-6x384)",
    "LAYERSxWIDTHxHEADS (3x256x4)",
)


def parse_preset(text: str) -> Preset:
    """A named preset; ``lLAYERS``, e.g. ``l6``, for a copied student; or ``LAYERSxWIDTHxHEADS``,
    e.g. ``3x256x4``, for a random one (``minilm-6x384``: 12 heads).

    Raises:
      UserError: unknown name, or a width that is not a multiple of the heads.
    """
    if text in PRESETS:
        return PRESETS[text]
    if copied := _COPIED.fullmatch(text):
        return Preset(num_layers=int(copied[1]))
    found = _MINILM.fullmatch(text) or _SIZES.fullmatch(text)
    if not found:
        raise unknown("student", text, _NAMES)
    layers, width, heads = (int(size) for size in (*found.groups(), MINILM_HEADS)[:3])
    if width % heads:
        raise UserError(f"student {text!r}: width {width} is not a multiple of {heads} heads.")
    return Preset(layers, width, heads)


def student_config(preset: str, teacher: Any, *, pooling: str = "teacher") -> BertConfig:
    """The student's config; vocabulary, positions, rates and classes are the teacher's.

    Of a relative of BERT it is such a relative, and of what is none (MobileBERT) a BERT.

    Args:
      preset: see ``parse_preset``.
      teacher: the config that the student shares its tokeniser and task with.
      pooling: see ``BertConfig``; ``teacher`` for the teacher's.

    Raises:
      UserError: unknown preset, or one that is copied from what is no BERT.
    """
    chosen = parse_preset(preset)
    if not isinstance(teacher, BertConfig):
        teacher = _bert_beside(preset, chosen, teacher)
    if pooling != "teacher":
        teacher = dataclasses.replace(teacher, pooling=pooling)
    if chosen.hidden_size is None or chosen.num_heads is None:
        return dataclasses.replace(teacher, num_layers=chosen.num_layers)
    return dataclasses.replace(
        teacher,
        num_layers=chosen.num_layers,
        hidden_size=chosen.hidden_size,
        num_heads=chosen.num_heads,
        intermediate_size=chosen.intermediate_size or 4 * chosen.hidden_size,
    )


def _bert_beside(preset: str, chosen: Preset, teacher: Any) -> BertConfig:
    """A BERT that reads what another kind of teacher reads, of the size of a random student."""
    if chosen.hidden_size is None or chosen.num_heads is None:
        raise UserError(
            f"student {preset!r} is made of a BERT's layers, which its teacher, of the family "
            f"{family_of(teacher).name}, does not have"
        )
    own, intermediate = teacher.token_range, 4 * chosen.hidden_size
    return BertConfig(
        own.tokens,
        chosen.hidden_size,
        chosen.num_layers,
        chosen.num_heads,
        intermediate,
        own.positions,
        own.types,
        num_labels=teacher.num_labels,
    )


def choose_layers(
    choice: str | Sequence[int], *, student_layers: int, teacher_layers: int
) -> tuple[int, ...]:
    """The teacher layer (from 1) that each student layer is copied from.

    Args:
      choice: ``spread`` and ``uniform``: evenly, ending with the last (3 of 6: 2, 4, 6), rounded
        down or to the nearest as layer maps are by default, see ``core.layer_choice``; ``first``;
        ``last``; or the layers themselves, in the order of the student's (kept as given).

    Raises:
      UserError: unknown choice, too few teacher layers, a layer the teacher does not have.
    """
    if not isinstance(choice, str):
        chosen = tuple(choice)
        if len(chosen) != student_layers:
            raise UserError(f"{len(chosen)} teacher layers {chosen} for {student_layers} layers.")
        bad = [layer for layer in chosen if not 1 <= layer <= teacher_layers]
        if bad:
            raise UserError(f"no teacher layer {bad[0]}; allowed: 1 to {teacher_layers}.")
        return chosen
    if choice not in LAYER_CHOICES:
        raise unknown("choice of teacher layers", choice, LAYER_CHOICES)
    if student_layers > teacher_layers:
        raise UserError(
            f"a student of {student_layers} layers cannot be copied from a teacher of "
            f"{teacher_layers}."
        )
    numbers = range(1, student_layers + 1)
    if choice == "first":
        return tuple(numbers)
    if choice == "last":
        return tuple(teacher_layers - student_layers + number for number in numbers)
    return (uniform if choice == "uniform" else spread)(student_layers, teacher_layers)


def init_student(
    preset: str,
    teacher_config: Any,
    teacher_params: Params,
    rng: Array,
    *,
    layers: str | Sequence[int] = "spread",
    pooling: str = "teacher",
) -> Params:
    """Float32 parameters of a student, never sharing a buffer with the teacher's.

    Args:
      preset: see ``parse_preset``.
      teacher_config: of ``teacher_params``.
      teacher_params: what a copied student is copied from; not read for a random one. Pass the
        pretrained parameters for a fair control, see the module's docstring.
      rng: key of everything drawn; a copied student draws only its head.
      layers: see ``choose_layers``; for copied students.
      pooling: see ``student_config``; a copied student draws the pooler that its teacher lacks.

    Raises:
      UserError: unknown preset or layers.
    """
    config = student_config(preset, teacher_config, pooling=pooling)
    if not parse_preset(preset).copies_teacher:
        return init_bert(config, rng)
    chosen = choose_layers(
        layers, student_layers=config.num_layers, teacher_layers=teacher_config.num_layers
    )
    parts = {f"layer_{number}": f"layer_{layer}" for number, layer in enumerate(chosen, start=1)}
    others = {"embeddings", "classifier"} | ({"pooling"} if config.pooling == "pooler" else set())
    parts |= {part: part for part in teacher_params if part in others | {"relative_bias"}}
    # True copies: a donated train step must not delete the teacher's buffers.
    params = {
        part: jax.tree.map(
            lambda leaf: jnp.array(leaf, jnp.float32, copy=True), teacher_params[source]
        )
        for part, source in parts.items()
    }
    drawn = {part for part in others if part not in params} | {"classifier"}
    return params | {part: _drawn(config, rng, part) for part in drawn}


@partial(jax.jit, static_argnums=(0, 2))
def _drawn(config: BertConfig, rng: Array, part: str) -> Params:
    return init_bert(config, rng)[part]  # the compiler drops the rest


class Berts(Classifiers):
    """Transformers of BERT's kind: students of a teacher that is one too, and that teacher."""

    model_type = "bert"
    init: Any = staticmethod(init_bert)
    save: Any = staticmethod(save_pretrained)
    load: Any = staticmethod(load_pretrained)

    def claims(self, name: str) -> bool:
        forms = (_COPIED, _SIZES, _MINILM)
        return name in PRESETS or any(form.fullmatch(name) for form in forms)

    def student(self, name: str, teacher: Any, **options: Any) -> BertConfig:
        config = student_config(name, teacher, pooling=options.get("pooling", "teacher"))
        if self.copies(name):
            self._layers(config, teacher, options)
        return config

    def copies(self, name: str) -> bool:
        return parse_preset(name).copies_teacher

    def start(self, name: str, teacher: Loaded, rng: Array, **options: Any) -> Params:
        return init_student(name, teacher.config, teacher.params, rng, **options)

    def check_narrowed(self, what: str, name: str, teacher: Any, **options: Any) -> None:
        config = self.student(name, teacher, **options)
        if what == "embeddings":
            check_embeddings(name, config, teacher)
        elif isinstance(teacher, BertConfig):
            check_widths(name, config, teacher)
            self._layers(config, teacher, options)
        else:
            super().check_narrowed(what, name, teacher, **options)

    def narrowed(self, what: str, name: str, teacher: Loaded, rng: Array, **options: Any) -> Params:
        config = self.student(name, teacher.config, **options)
        fresh = init_bert(config, rng)
        if what == "embeddings":
            return embeddings_from(fresh, teacher.params)
        layers = self._layers(config, teacher.config, options)
        return truncated(config, fresh, teacher.config, teacher.params, layers)

    def _layers(
        self, config: BertConfig, teacher: BertConfig, options: dict[str, Any]
    ) -> tuple[int, ...]:
        return choose_layers(
            options.get("layers", "spread"),
            student_layers=config.num_layers,
            teacher_layers=teacher.num_layers,
        )


BERTS = register(
    Berts(
        "bert",
        BertConfig,
        Bert,
        _NAMES,
        pools=True,
        tokens=True,
        compacts=True,
        reference=reference_logits,
        elsewhere=Elsewhere(save_elsewhere, load_elsewhere, usage_elsewhere),
        embeddings=("embeddings", "word", "embedding"),
    )
)
