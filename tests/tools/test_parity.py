"""tools/parity.py keeps what others wrote into its report."""

from scripts import ROOT, module_at


def test_a_new_report_keeps_the_sections_after_its_table(tmp_path):
    tool = module_at(ROOT / "tools/parity.py")
    assert tool.by_hand(ROOT / "docs/parity.md").startswith("\n## Beside PyTorch\n")
    assert tool.by_hand(tmp_path / "none.md") == ""
    (tmp_path / "one.md").write_text(tool.page(["| x | 0 |"], ["one"]))
    assert tool.by_hand(tmp_path / "one.md") == ""
