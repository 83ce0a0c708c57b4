"""The example in docs/sweeps.md runs."""

import re
from pathlib import Path

DOC = Path(__file__).resolve().parents[2] / "docs/sweeps.md"


def test_the_declaration_is_one():
    (code,) = re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), re.S)
    names: dict[str, object] = {}
    exec(code, names)
    assert names["sweep"].entries()[0].cell.setup.data.label_fraction == 0.05
