"""Of the run to take: where it lies, how it is asked, and where it is wrong."""

import json
from pathlib import Path
from typing import Any

from distill_jax.core.errors import UserError
from distill_jax.tables import html
from distill_jax.tables.ledger import LedgerRow
from distill_jax.tables.names import MISTAKES, MODEL, RUNS, TOKENIZER
from distill_jax.tables.sheet import MISSING, Sheet, text_sheet

MATRIX_CLASSES = 12
"""More classes than these make no matrix; their commonest confusions are listed."""
COMMONEST = 20


def taking(run: LedgerRow, folder: Path | None) -> list[str]:
    """The run as a link, with the command that asks it; what is not there is not named."""
    if folder is None or not (folder / RUNS / run.hash / MODEL).is_dir():
        return []
    place = f"{RUNS}/{run.hash}"
    lines = [
        f"<p>Of its runs the best on validation is {html.link(f'{place}/{MODEL}/', place)} "
        f"(seed {run.seed})."
    ]
    if (folder / place / MODEL / TOKENIZER).is_file():
        command = f'distill-jax predict {place} "a text"'
        lines.append(f'Ask it, in this folder: <code class="copy">{html.text(command)}</code>')
    return [*lines, "</p>"]


def errors(run: LedgerRow, folder: Path) -> list[str]:
    """Scores by class, confusions and the surest errors; [] where the run kept none.

    Raises:
      UserError: when what it kept is damaged.
    """
    path = folder / RUNS / run.hash / MISTAKES
    if not path.is_file():
        return []
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return [
            f"<p>On the test split, run {html.text(run.hash)} (seed {run.seed}).</p>",
            *html.sheet(_by_class(kept)),
            *_which_for_which(kept),
            *html.folded("The surest errors", html.sheet(_worst(kept))),
        ]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{path} is damaged ({error!r}); delete it") from error


def _which_for_which(kept: dict[str, Any]) -> list[str]:
    """Nothing where classes do not exclude each other."""
    if "confusion" not in kept:
        return []
    return list(html.folded("Which class for which", html.sheet(_confusions(kept))))


def _by_class(kept: dict[str, Any]) -> Sheet:
    def percent(value: float | None) -> str:
        return MISSING if value is None else f"{100 * value:.1f}"

    rows = [
        (
            str(each["name"]),
            f"{each['examples']:,}",
            f"{each['predicted']:,}",
            *(percent(each[name]) for name in ("precision", "recall", "f1")),
        )
        for each in kept["classes"]
    ]
    heading = ("class", "examples", "predicted", "precision %", "recall %", "F1 %")
    return text_sheet(heading, rows, 1, repeated=1)


def _confusions(kept: dict[str, Any]) -> Sheet:
    names = [str(each["name"]) for each in kept["classes"]]
    counts = kept["confusion"]
    if len(names) <= MATRIX_CLASSES:
        rows = [(name, *(f"{n:,}" for n in row)) for name, row in zip(names, counts, strict=True)]
        return text_sheet(("label (down), predicted (across)", *names), rows, 1, repeated=1)
    pairs = [
        (count, names[label], names[given])
        for label, row in enumerate(counts)
        for given, count in enumerate(row)
        if count and label != given
    ]
    pairs.sort(key=lambda pair: -pair[0])
    rows = [(label, given, f"{count:,}") for count, label, given in pairs[:COMMONEST]]
    return text_sheet(("label", "predicted", "examples"), rows, 2, repeated=1)


def _worst(kept: dict[str, Any]) -> Sheet:
    rows = [
        (
            " | ".join(each["texts"]) or str(each["id"]),
            str(each["label"]),
            str(each["given"]),
            f"{each['probability']:.3f}",
        )
        for each in kept["worst"]
    ]
    heading = ("text", "label", "predicted", "probability")
    return text_sheet(heading, rows, 3, repeated=1)
