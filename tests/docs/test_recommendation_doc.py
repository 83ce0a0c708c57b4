"""The example in docs/recommendation.md runs."""

import re
from pathlib import Path

DOC = Path(__file__).resolve().parents[2] / "docs/recommendation.md"


def test_an_evaluation(fetch_asset, capsys):
    fetch_asset("movielens-100k")
    (code,) = re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), re.S)
    names: dict[str, object] = {}
    exec(code, names)
    assert 0.05 < names["report"].metrics["ndcg@10"] < 0.1
    assert "leaks the future of other users" in capsys.readouterr().out
