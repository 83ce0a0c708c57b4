"""Relations of marked entities, the whole way in small."""

import json
import random
from pathlib import Path

import pytest
from kind_tables import exported, run
from toys import WORDS

from distill_jax.cli.main import dispatch
from distill_jax.core.errors import UserError
from distill_jax.tables.ledger import Ledger


@pytest.fixture
def related(tmp_path):
    """A folder in which the relation is whether the subject comes first."""
    folder, rng = tmp_path / "related", random.Random(0)
    folder.mkdir()
    for split, size in {"train": 40, "dev": 20, "test": 20}.items():
        rows = []
        for number in range(size):
            first, second = [0, 1], [3, 5]
            relation = rng.choice(["before", "behind"])
            subject, other = (first, second) if relation == "before" else (second, first)
            words = [*rng.choices(WORDS, k=5), str(number), split]
            row = {"tokens": words, "subject": subject, "object": other, "relation": relation}
            rows.append(json.dumps(row))
        (folder / f"{split}.jsonl").write_text("\n".join(rows))
    return folder


def test_the_whole_way(related, small, tmp_path, capsys):
    args = small("--task", "relations", data=f"files:{related}", objectives=("kl",))
    run(args, tmp_path / "out")
    rows = Ledger(tmp_path / "out/ledger.jsonl").rows()
    model = str(tmp_path / "out/runs" / rows[-1].hash)
    assert rows[-1].test_correct is not None
    capsys.readouterr()
    asked = related / "test.jsonl"
    dispatch(["predict", model, "--input", str(asked), "--format", "jsonl"])
    by_row = [json.loads(line)["predicted"] for line in capsys.readouterr().out.splitlines()]
    assert len(by_row) == 20 and set(by_row) <= {"before", "behind"}
    dispatch(["predict", model, "@ Emma @ lives in # York #"])
    assert capsys.readouterr().out.split("\t")[0] in ("before", "behind")
    with pytest.raises(UserError, match="does not mark two entities: '@ Emma @"):
        dispatch(["predict", model, "Emma lives in York"])
    said = exported(Path(model), capsys, ["@ Emma @ lives in # York #"])
    assert "within" in said and "on 20 sentences" in said
    dispatch(["verify", f"{model}/export/onnx", "--input", str(asked)])
    assert "on your texts: 20 sentences" in capsys.readouterr().out
