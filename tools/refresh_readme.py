"""Writes the generated parts of README.md and of pages of docs/ anew.

    python tools/refresh_readme.py

They are the tables of experiments and of benchmarks. A part stands between
``<!-- NAME -->`` and ``<!-- /NAME -->``. A test holds the pages fresh.
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "experiments" / "results"
PAGES = (
    ROOT / "README.md",
    *(ROOT / "docs" / name for name in ("results.md", "speed.md", "recommendation.md")),
)
STAND_ALONE = ("bench/growth.md", "bench/losses.md", "bench/items.md")
"""Files that are parts of their own, by their stems."""
SHOWN = ("table.md", "trends.md", "compression.md", "students.md", "race.md", "changes.md")
"""Of a folder of results, in this order, those that are there."""


def parts() -> dict[str, str]:
    """Name of each experiment -> its table, and what its trends came to; ``bench``: the race."""
    folders = {
        folder.name: _shown(folder)
        for folder in sorted(RESULTS.iterdir())
        if any((folder / name).is_file() for name in SHOWN)
    }
    alone = [path for name in STAND_ALONE if (path := RESULTS / name).is_file()]
    return folders | {path.stem: path.read_text(encoding="utf-8").strip() for path in alone}


def _shown(folder: Path) -> str:
    names = [name for name in SHOWN if (folder / name).is_file()]
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
