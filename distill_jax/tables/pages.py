"""A page for people, and beside it what it says as JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill_jax.core.files import write_atomic


def write_page(page: Path, text: str, data: Mapping[str, Any]) -> list[Path]:
    """Write the page, and the data under its name with ``.json``; returns both paths.

    Raises:
      ValueError: for a number in the data that is not finite.
    """
    beside = page.with_suffix(".json")
    write_atomic(page, text)
    said = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(beside, f"{said}\n")
    return [page, beside]
