"""A table in LaTeX, with the rules of booktabs."""

import re
from collections.abc import Iterable

from distill_jax.tables.sheet import Sheet, SheetCell, sheets_of
from distill_jax.tables.table import Table

_SPECIAL = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "{''}",  # \textquotedbl would need another font encoding
    "[": "{[}",  # behind \\ or \toprule a bracket would be an option
    "]": "{]}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "∞": r"$\infty$",
    "→": r"$\to$",
    "Δ": r"$\Delta$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "λ": r"$\lambda$",
    "τ": r"$\tau$",
    "°": r"$^{\circ}$",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "\N{NO-BREAK SPACE}": "~",
}
_MINUS = re.compile(r"(?<![\w.)])-(?=[\d.])")


def to_latex(table: Table, *, caption: str = "", label: str = "") -> str:
    r"""A ``table`` environment; the document needs ``\usepackage{booktabs}`` and UTF-8.

    Args:
      table: what to print.
      caption: plain text.
      label: for ``\ref``.
    """
    lines = ["% needs \\usepackage{booktabs}", r"\begin{table}[t]", r"\centering", r"\small"]
    lines.append(r"\setlength{\tabcolsep}{4pt}")
    if caption:
        lines.append(rf"\caption{{{escape(caption)}}}")
    if label:
        lines.append(rf"\label{{{re.sub('[^A-Za-z0-9:-]+', '-', label)}}}")
    for sheet in sheets_of(table):
        lines += [rf"{escape(sentence)}\par\smallskip" for sentence in sheet.lead]
        lines += [*_tabular(sheet), r"\par\medskip"]
    if table.spec.protocol or table.notes:
        lines += [r"\begin{minipage}{\linewidth}", r"\footnotesize"]
        lines += [rf"{_note(note)}\par" for note in (*table.spec.protocol, *table.notes)]
        lines.append(r"\end{minipage}")
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def escape(text: str) -> str:
    """Text in which LaTeX finds no command."""
    text = " ".join(text.splitlines())
    return "".join(_SPECIAL.get(character, character) for character in _MINUS.sub("−", text))


def _tabular(sheet: Sheet) -> list[str]:
    alignment = "l" * sheet.labels + "r" * (len(sheet.heading) - sheet.labels)
    lines = [rf"\begin{{tabular}}{{{alignment}}}", r"\toprule", _join(map(escape, sheet.heading))]
    section = None
    for line in sheet.lines:
        if line.section != section:
            lines.append(r"\midrule")
        section = line.section
        lines.append(_join(map(_cell, line.cells)))
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _join(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(cell: SheetCell) -> str:
    text = escape(cell.text)
    # The minus and plus-minus signs are mathematics, which \textbf alone leaves light.
    return rf"{{\boldmath\textbf{{{text}}}}}" if cell.bold else text


def _note(note: str) -> str:
    """A note; what stands between backticks is set as code."""
    parts = note.split("`")
    return "".join(
        rf"\texttt{{{escape(part)}}}" if index % 2 else escape(part)
        for index, part in enumerate(parts)
    )
