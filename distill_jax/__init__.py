"""Knowledge distillation in JAX and Flax: from a BERT-style teacher to a small student.

Importing this package imports nothing heavy: ``distil`` comes when it is asked for. Take what
else you need from the rooms, for example ``from distill_jax.losses import kl`` or ``from
distill_jax.models.bert import Bert``.
"""

from typing import TYPE_CHECKING, Any

from distill_jax.core.version import VERSION

if TYPE_CHECKING:
    from distill_jax.api import Student as Student
    from distill_jax.api import distil as distil

__version__ = VERSION
_IN_API = ("Student", "distil")


def __getattr__(name: str) -> Any:
    if name not in _IN_API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from distill_jax import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_IN_API])
