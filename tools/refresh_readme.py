"""Writes the generated parts of README.md and docs/results.md anew: the tables of experiments.

    python tools/refresh_readme.py

A part stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``. A test holds both pages fresh.
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "experiments" / "results"
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md")


def parts() -> dict[str, str]:
    """Name of each experiment -> its table, and what its trends came to."""
    return {
        folder.name: _table(folder)
        for folder in sorted(RESULTS.iterdir())
        if (folder / "table.md").is_file()
    }


def _table(folder: Path) -> str:
    names = [name for name in ("table.md", "trends.md") if (folder / name).is_file()]
    return "\n\n".join((folder / name).read_text(encoding="utf-8").strip() for name in names)


def refreshed() -> dict[Path, str]:
    """The text of each page with every generated part as it should be.

    Raises:
      SystemExit: for a table that has no place, or several.
    """
    texts = {page: page.read_text(encoding="utf-8") for page in PAGES}
    for name, part in parts().items():
        pattern = rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)"
        places = 0
        for page, text in texts.items():
            texts[page], found = re.subn(
                pattern, lambda m, part=part: f"{m[1]}\n{part}\n\n{m[2]}", text, flags=re.S
            )
            places += found
        if places != 1:
            raise SystemExit(f"{places} places for {name}, expected 1")
    return texts


if __name__ == "__main__":
    for page, text in refreshed().items():
        page.write_text(text, encoding="utf-8")
