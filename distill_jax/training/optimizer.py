"""AdamW whose learning rate is a number given to the step, so that changing it costs nothing."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import jax
import optax

from distill_jax.core.digests import LATE
from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.training.rates import check_factors, factors


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with warm-up, decay and clipping (Loshchilov and Hutter 2019, as BERT uses it).

    Attributes:
      learning_rate: peak learning rate.
      schedule: what follows the warm-up: down to 0 in a line or a cosine, or constant.
      warmup: part of all steps over which the rate rises from 0 in a line.
      weight_decay: decoupled; on matrices only, see ``decays``.
      clip_norm: largest global norm of the gradients of everything trained.
      b1, b2, eps: Adam's.
      clip_apart: the student and the losses' own parameters are clipped by a norm each, so that
        the gradient of a projection, say, does not shorten the student's step.
      rates: factors of the learning rate, (regular expression, factor) each: of the student's
        parameters in whose path (``layer_1/attention/query/kernel``) it is found. Factors of one
        parameter multiply; what comes to 0 is frozen, weight decay included.
      layer_decay: factor of each layer from the head down: 1 for the head, its power 1 for the last
        layer, and so on to the embeddings (Howard and Ruder 2018, "ULMFiT", section 3.2).
      l2: factor of a penalty on the squares of everything trained, halved: so many times each
        parameter is added to its gradient, after clipping and before Adam scales it. What
        PyTorch's Adam calls weight decay.
    """

    learning_rate: float = 1e-3
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    clip_apart: bool = field(default=False, metadata=LATE)
    rates: tuple[tuple[str, float], ...] = field(default=(), metadata=LATE)
    layer_decay: float = field(default=1.0, metadata=LATE)
    l2: float = field(default=0.0, metadata=LATE)

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.learning_rate > 0 or not math.isfinite(self.learning_rate):
            raise UserError(f"the learning rate must be positive, not {self.learning_rate}")
        if not 0 <= self.warmup < 1:
            raise UserError(f"warmup is a part of all steps, 0 <= warmup < 1, not {self.warmup}")
        if not self.clip_norm > 0:
            raise UserError(f"clip_norm must be positive, not {self.clip_norm}")
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(f"the weight decay must not be negative, not {self.weight_decay}")
        if not 0 <= self.l2 < math.inf:
            raise UserError(f"the L2 penalty must not be negative, not {self.l2}")
        if not (0 <= self.b1 < 1 and 0 <= self.b2 < 1 and 0 < self.eps < math.inf):
            raise UserError(
                f"Adam needs 0 <= b1 < 1, 0 <= b2 < 1 and eps > 0, not {self.b1}, {self.b2} and "
                f"{self.eps}"
            )
        check_factors(self.rates, self.layer_decay)

    @property
    def has_factors(self) -> bool:
        """Whether some of the parameters learn slower than others, or not at all."""
        return bool(self.rates) or self.layer_decay != 1


def learning_rate(config: OptimizerConfig, step: int, total_steps: int) -> float:
    """Learning rate of the update that follows ``step`` finished updates."""
    warmup_steps = round(config.warmup * total_steps)
    if step < warmup_steps:
        return config.learning_rate * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    match config.schedule:
        case "linear":
            return config.learning_rate * (1 - progress)
        case "cosine":
            return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
        case "constant":
            return config.learning_rate


def static_part(config: OptimizerConfig) -> OptimizerConfig:
    """What of an optimiser is compiled; its learning rate and schedule are numbers."""
    return replace(config, learning_rate=1.0, schedule="constant", warmup=0.0)


def decays(path: Sequence[Any], param: Any) -> bool:
    """Whether weight decay acts on a parameter: on kernels and embeddings.

    Biases, scales and variances are left alone, also where several are stacked into a matrix, as
    those of experts are: their names tell.

    Args:
      path: to it in a tree of parameters, as JAX's tree functions give it.
      param: the array.
    """
    name = str(getattr(path[-1], "key", path[-1])) if path else ""
    return param.ndim > 1 and not _NEVER_DECAYS.search(name)


_NEVER_DECAYS = re.compile(r"(^|_)(bias|scale|alpha)(_|$)")


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clipping, Adam and weight decay, times each parameter's factor; the step multiplies by minus
    the learning rate.

    A frozen parameter stays as it is; that it is no part of the norm that is clipped is the step's
    business, see ``stopping_at_frozen``.

    Args:
      config: with ``clip_apart`` parameters are a mapping, clipped entry by entry, as those of a
        ``TrainState`` are.

    Returns:
      The same object for configs that differ in their learning rates alone.
    """
    return _transformation(static_part(config))


@lru_cache(maxsize=64)
def _transformation(config: OptimizerConfig) -> optax.GradientTransformation:
    clip = optax.clip_by_global_norm(config.clip_norm)
    chain = optax.chain(
        _apart(clip) if config.clip_apart else clip,
        *((optax.add_decayed_weights(config.l2),) if config.l2 else ()),
        optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps),
        optax.add_decayed_weights(
            config.weight_decay,
            mask=lambda params: jax.tree_util.tree_map_with_path(decays, params),
        ),
    )

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        # Optax mixes int32 counts with floats, which strict promotion forbids; ours is strict.
        with jax.numpy_dtype_promotion("standard"):
            directions, state = chain.update(grads, state, params)
        if config.has_factors:
            own = factors(config.rates, config.layer_decay, directions)
            directions = jax.tree.map(lambda x, f: x if f == 1 else f * x, directions, own)
        return directions, state

    return optax.GradientTransformation(chain.init, update)


def _apart(clip: optax.GradientTransformation) -> optax.GradientTransformation:
    """A stateless transformation of each entry of a mapping by itself; empty ones stay."""

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        parts = {key: clip.update(own, state)[0] if own else own for key, own in grads.items()}
        return parts, state

    return optax.GradientTransformation(clip.init, update)


def stopping_at_frozen(config: OptimizerConfig) -> Callable[[Any], Any] | None:
    """A function of the student's parameters through which no gradient reaches frozen ones, so
    that none is computed; None where nothing is frozen."""
    if not config.has_factors:
        return None

    def stopped(params: Any) -> Any:
        own = factors(config.rates, config.layer_decay, params)
        return jax.tree.map(lambda x, f: x if f else jax.lax.stop_gradient(x), params, own)

    return stopped


def trained_count(config: OptimizerConfig, params: Any) -> int:
    """How many numbers of a student's parameters are trained.

    Args:
      params: arrays, or their shapes.
    """
    own = factors(config.rates, config.layer_decay, params)
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(own), strict=True)
    return sum(math.prod(leaf.shape) for leaf, factor in pairs if factor)
