"""Writes the generated parts of README.md anew: the results tables and the table of losses.

    python tools/refresh_readme.py

A part stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``. A test holds README.md fresh.
"""

import re
from pathlib import Path

from distill_jax.objectives.catalogue import markdown

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "experiments" / "results"


def parts() -> dict[str, str]:
    """Name of each generated part -> its text."""
    tables = {
        folder.name: _table(folder)
        for folder in sorted(RESULTS.iterdir())
        if (folder / "table.md").is_file()
    }
    return {**tables, "losses": markdown()}


def _table(folder: Path) -> str:
    """The table of an experiment, and what its trends came to."""
    names = [name for name in ("table.md", "trends.md") if (folder / name).is_file()]
    return "\n\n".join((folder / name).read_text(encoding="utf-8").strip() for name in names)


def refreshed(text: str) -> str:
    """README.md's text with every generated part as it should be."""
    for name, part in parts().items():
        pattern = rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)"
        text, found = re.subn(
            pattern, lambda m, part=part: f"{m[1]}\n{part}\n\n{m[2]}", text, flags=re.S
        )
        if found != 1:
            raise SystemExit(f"README.md: {found} places for {name}, expected 1")
    return text


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(refreshed(readme.read_text(encoding="utf-8")), encoding="utf-8")
