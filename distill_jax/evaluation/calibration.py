"""The temperature that calibrates a model, in a file beside it."""

import json
import math
from pathlib import Path

from distill_jax.core.errors import UserError
from distill_jax.core.files import write_atomic

FILE = "calibration.json"


def write_temperature(folder: Path, temperature: float) -> None:
    """Keep the temperature, fitted on validation, by which the logits of a model are divided."""
    calibration = {"temperature": temperature, "fitted_on": "validation"}
    write_atomic(folder / FILE, json.dumps(calibration, indent=1))


def read_temperature(folder: Path) -> float | None:
    """The temperature kept in a model's folder, None where there is none.

    Raises:
      UserError: where the file holds no positive number.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        temperature = json.loads(path.read_text(encoding="utf-8"))["temperature"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        temperature = None
    if not is_temperature(temperature):
        raise UserError(
            f"{path} is damaged: it holds no positive temperature. Delete it, or take "
            "probabilities as they are: --temperature 1 (in Python: temperature=1)"
        )
    return float(temperature)


def is_temperature(value: object) -> bool:
    """Whether it is a positive, finite number."""
    return type(value) in (int, float) and 0 < value < math.inf  # type: ignore[operator]
