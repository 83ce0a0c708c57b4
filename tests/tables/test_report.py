"""The report: whole, well-formed, closed in itself, with nothing in it unescaped."""

import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from samples import sample_runs, sample_spec, sample_teacher

from distill_jax.core.errors import UserError
from distill_jax.evaluation.mistakes import mistakes
from distill_jax.tables import html
from distill_jax.tables.build import table_of
from distill_jax.tables.conclusion import best_student, conclusion, run_to_take
from distill_jax.tables.outputs import evaluate
from distill_jax.tables.published import load_published
from distill_jax.tables.report import report, shared_settings
from distill_jax.tables.sheet import Line, Sheet, SheetCell
from distill_jax.tables.trends import best_of, difference, ordering

NASTY = '<script>alert("1")</script> & `kl`'
SVG = b"""<?xml version="1.0"?>
<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/svg11.dtd">
<svg xmlns:xlink="http://www.w3.org/1999/xlink" width="500pt" height="300pt" viewBox="0 0 5 3"
 xmlns="http://www.w3.org/2000/svg"><metadata><a href="http://x"/></metadata>
<!-- kl --><defs><path id="a1" d="M 0 0"/></defs>
<g clip-path="url(#a1)"><use xlink:href="#a1" x="1"/></g></svg>
"""
VOID = {"meta", "br", "hr", "img"}


class Page(HTMLParser):
    """Tags in balance, text by place."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.words, self.ids, self.attributes = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)


def make(layout="metrics", published=None, drop=(), **changes):
    runs = sample_runs()
    teachers = [sample_teacher()]
    spec = sample_spec(runs, teachers, layout=layout, **changes)
    finished = [run for run in [*teachers, *runs] if run.hash not in drop]
    table = table_of(spec, finished, published)
    return report(table, evaluate(table), {"figure": SVG, "curves": SVG})


def test_everything_is_there_and_the_table_comes_first():
    trends = (
        ordering("It rises.", [("kl", "l2"), ("ce", "l2")]),
        difference("It <falls>.", best_of([("ce", "l2"), ("ce", "tiny")]), ("kl", "l2")),
        difference("Nobody knows.", ("kl", "l2"), ("absent", "l2")),
    )
    text = make(trends=trends, published=load_published("kim2021"))
    page = Page(text)
    headings = re.findall("<h2>(.*?)</h2>", text)
    assert headings == [
        *("Results", "Figure", "Trends", "Published numbers", "Learning curves", "Protocol"),
        *("How to read the numbers", "Provenance"),
    ]
    words = " ".join(page.words)
    for expected in [
        *("A sample", "19 runs", "Chosen on validation.", "It rises.", "It <falls>.", "CIFAR-100"),
        *("1 held, 1 no test, 1 not held", "no test: no runs of absent (l2)", "commit"),
        *("c0ffee", "(clean)", "jax 0.10.2, python 3.11.7", "cpu: 2 cores", "dada", "feed"),
        *("2026-01-02T03:04:05+00:00", "All 19 runs", "chosen on validation: ce (l2)"),
        *("data.label_fraction", "Every test in numbers", "two-sided paired bootstrap"),
    ]:
        assert expected in words, expected
    for run in sample_runs():
        assert words.count(run.hash) == 1
    assert page.tags.count("svg") == 2


def test_nothing_is_asked_of_anybody_else():
    text = make()
    names = {name for name, _ in Page(text).attributes}
    assert not {"src", "srcset", "action", "onload"} & names
    links = [v for name, v in Page(text).attributes if name in ("href", "xlink:href")]
    assert links and all(link.startswith("#") for link in links)
    assert not {"script", "link", "iframe", "img", "object"} & set(Page(text).tags)
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text


@pytest.mark.parametrize("layout", ["metrics", "grid"])
def test_nothing_is_markup_that_somebody_wrote(layout):
    runs = sample_runs(rows=("ce", NASTY), groups=(NASTY,))
    runs = [
        dataclasses.replace(run, device=NASTY, code={"version": NASTY}, config={NASTY: NASTY})
        for run in runs
    ]
    spec = sample_spec(
        runs, title=NASTY, name=NASTY, protocol=(NASTY,), group_title=NASTY, layout=layout
    )
    table = table_of(spec, runs)
    text = report(table, [], {"figure": SVG})
    page = Page(text)
    assert "script" not in page.tags and "<script" not in text
    assert "".join(page.words).count('<script>alert("1")</script>') > 10
    assert "Learning curves" not in text and "Trends" not in text


def test_ids_of_two_drawings_do_not_meet():
    page = Page(make())
    assert sorted(page.ids) == ["curves-a1", "figure-a1"]
    links = [value for name, value in page.attributes if name == "xlink:href"]
    assert links == ["#figure-a1", "#curves-a1"]
    clips = [value for name, value in page.attributes if name == "clip-path"]
    assert clips == ["url(#figure-a1)", "url(#curves-a1)"]


def test_a_drawing_fills_the_page_and_speaks():
    (drawing,) = html.picture(SVG, "x", 'by "student"')[1:2]
    assert drawing.startswith("<svg") and "500pt" not in drawing and "metadata" not in drawing
    assert 'viewBox="0 0 5 3"' in drawing and 'x="1"' in drawing
    assert 'role="img" aria-label="by &quot;student&quot;"' in drawing


def test_unfinished_runs_are_told():
    text = make(drop=("tiny/kl/0",))
    assert "18 runs, 1 more not finished" in text and "1 of 19 runs are not finished." in text


def test_a_run_at_two_places_is_one_run():
    runs = sample_runs(groups=("tiny",), rows=("ce",))
    spec = sample_spec(runs)
    places = [*spec.places, *(dataclasses.replace(p, group="copy") for p in spec.places)]
    spec = dataclasses.replace(spec, places=tuple(places))
    text = report(table_of(spec, runs), [], {"figure": SVG})
    assert "All 3 runs" in text and text.count(f'data-title="hash">{runs[0].hash}</td>') == 1
    assert "tiny; copy" in text


def test_different_origins_are_counted():
    runs = sample_runs(groups=("tiny",), rows=("ce", "kl"))
    runs[0] = dataclasses.replace(
        runs[0], code={"version": "0.1.0", "commit": "beef", "dirty": True}, device="gpu"
    )
    spec = sample_spec(runs)
    text = report(table_of(spec, runs), [], {"figure": SVG})
    assert "<code>beef</code> (with uncommitted changes): 1 run<" in text
    assert "cpu: 2 cores: 5 runs" in text and "gpu: 1 run<" in text


def test_shared_settings_are_those_that_all_have():
    runs = sample_runs(groups=("tiny",), rows=("ce",))
    shared = shared_settings(runs)
    assert shared == {"data.name": "toy", "data.label_fraction": "0.1", "student": "tiny"}
    assert shared_settings([]) == {}
    bare = dataclasses.replace(runs[0], config={"student": "tiny"})
    assert shared_settings([*runs, bare]) == {"student": "tiny"}


def kept_run(folder, hash):
    """What a run leaves behind that a report shows."""
    model = folder / "runs" / hash / "model"
    model.mkdir(parents=True)
    (model / "tokenizer.json").write_text("{}")
    logits_NC = np.array([[3.0, 0], [1.0, 0], [0, 2.0], [0, 9.0]])
    texts = {"a": ("<b>bad</b> & long",), "d": ("one", "two")}
    found = mistakes(logits_NC, np.array([1, 0, 1, 0]), ("no", "yes"), ("a", "b", "c", "d"), texts)
    (folder / "runs" / hash / "mistakes.json").write_text(json.dumps(found))


def reported(folder):
    runs = [dataclasses.replace(run, hash=f"h{n}") for n, run in enumerate(sample_runs())]
    spec = sample_spec(runs)
    table = table_of(spec, runs)
    return table, lambda: report(table, [], {"figure": SVG, "costs": SVG}, folder)


def test_the_page_begins_with_the_conclusion_and_the_run_to_take(tmp_path):
    table, page = reported(tmp_path)
    told = conclusion(table, "test/accuracy")
    taken = run_to_take(best_student(table, "test/accuracy"))
    assert "predict" not in page()  # a model that is not there is not offered
    kept_run(tmp_path, taken.hash)
    text = page()
    words = " ".join(Page(text).words)
    places = [text.index(html.prose(sentence)) for sentence in told]
    assert len(told) == 3 and places == sorted(places) and places[-1] < text.index("<h2>")
    assert f'href="runs/{taken.hash}/model/"' in text
    assert f'distill-jax predict runs/{taken.hash} "a text"' in words
    assert text.count("<svg") == 2 and "Score against latency" in words
    for shown in ("Where the best student is wrong", "<b>bad</b> & long", "one | two", "50.0"):
        assert shown in words, shown
    assert "<b>bad</b>" not in text
    (tmp_path / "runs" / taken.hash / "mistakes.json").write_text('{"classes": 3}')
    with pytest.raises(UserError, match=r"mistakes\.json is damaged"):
        page()


def test_no_table_is_wider_than_the_page_and_no_column_is_empty():
    titles = ("class", *(f"metric {n}" for n in range(30)), "nothing")
    cells = ("a class of a long name", *(f"{n}.5 ± 0.25" for n in range(30)), "–")
    lines = html.sheet(Sheet(titles, (Line("", tuple(map(SheetCell, cells))),) * 3, 1, 1))
    text = "\n".join(lines)
    assert text.count("<table>") > 1 and "nothing" not in text
    for number in range(30):
        assert text.count(f'data-title="metric {number}"') == 3  # each once a line
    heads = re.findall("<thead>(.*?)</thead>", text, re.DOTALL)
    assert all(head.count("<th") * (8 * 11 + 23) <= 1040 + 2 * 111 for head in heads)
    assert all("class" in head for head in heads)
    style = html.page("", []).partition("max-width: 70rem")[2]
    assert "display: block" in style and "attr(data-title)" in style and "anywhere" in style
