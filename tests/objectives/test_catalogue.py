"""The table of losses, and the page that shows it."""

import importlib.util
import re
from pathlib import Path

import pytest

from distill_jax.objectives import parse
from distill_jax.objectives.registry import names

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "losses.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


pytestmark = pytest.mark.usefixtures("own_registry")


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("losses_page", ROOT / "tools/losses_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_loss_is_in_one_family(tool):
    assert sorted(s.name for family in tool.by_family().values() for s in family) == sorted(names())


def test_the_page_shows_the_table_as_it_is(tool):
    """Mend docs/losses.md with the output of tools/losses_page.py."""
    assert PAGE.partition("## All losses")[2].partition("### ")[2].strip() == tool.markdown()[4:]


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_examples_of_the_page_run(example):
    before = set(names())
    exec(compile(example, "docs/losses.md", "exec"), {"__name__": "page"})
    if "@register" in example:
        assert set(names()) - before == {"power_gap"}


def test_the_objectives_of_the_page_are_objectives():
    rows = re.findall(r"^\| `(.*?)` \| ", PAGE.partition("## Adding")[0], flags=re.MULTILINE)
    assert len(rows) >= 9
    for text in rows:
        assert parse(str(parse(text))) == parse(text)
