"""README.md of an export: what it is, how good, of what it was made, and how it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distill_jax.export.formats import Format
from distill_jax.export.source import Source


def export_card(source: Source, format: Format, parity: Mapping[str, Any]) -> str:
    """Markdown; the numbers are the ledger's."""
    opened = source.opened
    kind = "pairs of texts" if source.pairs else "texts"
    return f"""# A text classifier made with distill_jax: {format.says}

Classes: {", ".join(opened.label_names)}. It reads {kind} of at most {opened.max_length} tokens.

## Use
{format.usage(source)}
Verify it: `distill-jax verify FOLDER`. Ask it: `distill-jax predict FOLDER "a text"`.
"""
