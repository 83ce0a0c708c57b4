"""Tags of words in BIO form (Ramshaw and Marcus 1995): read, checked, put in order.

``B-TYPE`` begins an entity, ``I-TYPE`` goes on with it, ``O`` is outside of all.
"""

import re
from collections.abc import Iterable, Sequence

from distill_jax.core.errors import UserError

OUTSIDE = "O"
_TAG = re.compile(r"[BI]-\S(?:.*\S)?")
FORMS = "O, B-TYPE (an entity begins) and I-TYPE (it goes on)"


def read_tag(text: str, where: str) -> tuple[str, bool]:
    """A tag, and whether it is the first of several.

    Where annotators' tags are joined by commas (``B-group,B-product``, as in the test file of WNUT
    2017), the first counts.

    Args:
      where: its place, for errors.

    Raises:
      UserError: it is no tag of BIO.
    """
    first, comma, rest = text.partition(",")
    if comma and all(_is_tag(each) for each in (first, *rest.split(","))):
        return first, True
    if not _is_tag(text):
        raise UserError(f"{where}: unknown tag {text!r:.60}; allowed: {FORMS}.")
    return text, False


def _is_tag(text: str) -> bool:
    return text == OUTSIDE or _TAG.fullmatch(text) is not None


def type_of(tag: str) -> str:
    """The type of a tag; "" outside."""
    return tag[2:]


def repaired(tags: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """Tags in which every entity begins with B, and how many I had to become one.

    An I that follows O, or an entity of another type, goes on with nothing: ``conlleval`` counts
    an entity from there, and so does this.
    """
    told, count, before = [], 0, ""
    for tag in tags:
        if tag.startswith("I-") and type_of(tag) != before:
            tag, count = f"B-{type_of(tag)}", count + 1
        told.append(tag)
        before = type_of(tag)
    return tuple(told), count


def tag_order(tags: Iterable[str]) -> tuple[str, ...]:
    """Every tag that a model of these may say: O, then B and I of each type, types sorted."""
    types = sorted({type_of(tag) for tag in tags} - {""})
    return (OUTSIDE, *(f"{prefix}-{each}" for each in types for prefix in "BI"))
