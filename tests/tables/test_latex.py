"""LaTeX: balanced, escaped, rules where they belong. Checked as text: no LaTeX is needed."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import sample_runs, sample_spec, sample_teacher

from distill_jax.tables.build import table_of
from distill_jax.tables.latex import escape, to_latex

NASTY = r"50% & $x_1^2$ #{a} ~ \foo <b> | [c] \"quoted\" ± τ ∞"


def check(text):
    """What a compiler would stumble over: braces, mathematics, environments, bare specials."""
    body = re.sub(r"(?<!\\)%[^\n]*", "", text)
    bare = re.sub(r"\\[&%$#_{}\\]", "", body)  # after this, what is left of them is syntax
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert bare.count("$") % 2 == 0
    outside = re.sub(r"\$[^$]*\$", "", bare)
    assert not set("#_^") & set(outside)
    opened = re.findall(r"\\begin\{(\w+)\}", body)
    closed = re.findall(r"\\end\{(\w+)\}", body)
    assert sorted(opened) == sorted(closed)
    for tabular in re.findall(r"\\begin\{tabular\}(.*?)\\end\{tabular\}", body, re.DOTALL):
        columns = len(re.match(r"\{([lr]+)\}", tabular)[1])
        rows = [line for line in tabular.splitlines() if line.endswith(r" \\")]
        assert rows
        for row in rows:
            assert len(re.findall(r"(?<!\\)&", row)) == columns - 1
        rules = re.findall(r"\\(top|mid|bottom)rule", tabular)
        assert rules[0] == "top" and rules[-1] == "bottom" and set(rules[1:-1]) == {"mid"}


def tabulate(layout="metrics", label="kl", **changes):
    runs = sample_runs(rows=("ce", label))
    teacher = sample_teacher()
    return table_of(sample_spec(runs, [teacher], layout=layout, **changes), [*runs, teacher])


@pytest.mark.parametrize("layout", ["metrics", "grid"])
def test_a_table_is_balanced_and_escaped(layout):
    text = to_latex(tabulate(layout, NASTY, group_title="a_b"), caption=NASTY, label="tab: a_b")
    check(text)
    assert r"\label{tab:-a-b}" in text
    assert r"50\% \& \$x\_1\textasciicircum{}2\$ \#\{a\}" in text
    assert r"\texttt{ce}" in text and "`" not in text


def test_groups_are_ruled_off_and_significance_is_bold():
    text = to_latex(tabulate())
    check(text)
    assert text.count(r"\midrule") == 3  # heading, teacher, tiny | l2
    assert len(re.findall(r"\\textbf\{\d\d\.\d \$\\pm\$ \d\.\d\}", text)) == 2
    assert r"\caption" not in text and r"\label" not in text
    assert text.index("% needs") == 0


def test_notes_stand_below():
    table = tabulate()
    text = to_latex(table)
    assert text.index(r"\end{tabular}") < text.index(r"\begin{minipage}")
    assert text.count(r"\par" + "\n") >= len(table.notes)
    assert r"not corrected" in text and r"$\Delta$" in text


@given(st.text(max_size=30))
def test_any_text_is_balanced_when_escaped(text):
    escaped = escape(text)
    assert "\n" not in escaped
    check(escaped)
    assert not re.search(r"(?<!\\)[&%#]", escaped)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("-1.5", "$-$1.5"),
        ("[-0.2, +3]", "{[}$-$0.2, +3{]}"),
        ("minilm-l6", "minilm-l6"),
        ("a -- b", "a -- b"),
        ("–", "--"),
        ("\\", r"\textbackslash{}"),
        ("73.5 ± 0.4", r"73.5 $\pm$ 0.4"),
        ("差", "差"),
    ],
)
def test_escapes_by_hand(text, escaped):
    assert escape(text) == escaped
