"""The pages: whole without anything from elsewhere, and used in a real browser."""

import re

import pytest
from browser import browser
from served import (
    LONGEST,
    listening,
    small_answerer,
    small_export,
    small_logits,
    small_tagger,
    talk,
)

from distill_jax.serving import pages
from distill_jax.serving.app import create_app
from distill_jax.serving.settings import Settings
from distill_jax.serving.tokens import read_tokens

TOKEN = "0123456789abcdef0123456789abcdef"
HOSTILE = '<img src=x onerror="alert(1)">'


def pages_of(app):
    async def both(client):
        return [(await client.get(path)).text for path in ("/", "/docs", "/page.js", "/page.css")]

    return talk(app, both)


def test_nothing_comes_from_elsewhere(app_of):
    for page in pages_of(app_of()):
        assert "//" not in re.sub(r"https?://localhost", "", page).replace("// ", "")
    index, docs, *_ = pages_of(app_of())
    for page in (index, docs):
        linked = re.findall(r'(?:src|href)="([^"#]*)"', page)
        assert set(linked) <= {"/page.css", "/page.js", "/docs", "/openapi.json", "/", "data:,"}
        assert not re.search(r"<script>|<style|style=|\son\w+=", page)


def test_names_of_classes_are_text(app_of, export_of):
    index, *_ = pages_of(app_of(export_of(label_names=(HOSTILE, "b & c"))))
    assert "<img" not in index and "&lt;img" in index and "b &amp; c" in index


def test_the_interface_is_described(app_of, export_of):
    _, docs, *_ = pages_of(app_of(max_texts=77))
    for said in ("POST /predict", "GET /ready", "GET /metrics", "at most 77 items", "429", "413"):
        assert said in docs, said
    assert "text_b" not in docs
    _, docs, *_ = pages_of(app_of(export_of(pairs=True)))
    assert "texts_b" in docs


def test_the_description_for_programs_is_whole(app_of):
    async def get(client):
        return (await client.get("/openapi.json")).json()

    said = talk(app_of(), get)
    asked = said["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert asked["schema"]["additionalProperties"] is False
    assert asked["schema"]["properties"]["texts"]["maxItems"] == 256
    refs = re.findall(r"#/components/schemas/(\w+)", str(said))
    assert set(refs) == {"Answers", "Answer", "Problem"} <= said["components"]["schemas"].keys()


def test_files_are_in_the_package():
    assert all(pages.read(name) for name in (*pages.FILES, "page.html", "docs.html"))


@pytest.mark.slow
def test_in_a_real_browser(toy_teacher, tmp_path):
    """Slow: a browser starts. One of it for all that is tried."""
    tokenizer = toy_teacher / "tokenizer.json"

    def failing(*arrays):
        if arrays[0].shape[1] == 3:  # one word
            raise RuntimeError
        return small_logits(*arrays)

    (tmp_path / "tokens").write_text(TOKEN)
    secret = read_tokens(tmp_path / "tokens")
    settings = Settings(max_characters=200)
    names = {"label_names": (HOSTILE, "pos")}
    single = create_app(small_export(tokenizer, logits=failing, **names), settings)
    pairs = create_app(small_export(tokenizer, pairs=True), settings, tokens=secret)
    tagger = create_app(small_tagger(tokenizer), settings)
    answerer = create_app(small_answerer(tokenizer), settings)
    with (
        browser() as page,
        listening(single, settings) as (_, one),
        listening(pairs, settings) as (_, two),
        listening(tagger, settings) as (_, three),
        listening(answerer, settings) as (_, four),
    ):
        text_in_answers_out(page, one)
        page.run("document.getElementById('text').value = ''")
        what_is_wrong_is_shown(page)
        pairs_and_a_token(page, two)
        entities_are_listed(page, three)
        a_question_is_answered(page, four)
        page.open(f"{one}/docs")
        assert "POST /predict" in page.text("main") and not page.complaints()


def text_in_answers_out(page, address):
    page.open(address)
    assert page.role_and_name("#text") == ("textbox", "Text")
    assert page.run("return document.activeElement.id") == "text"
    page.type("#text", "good film " * LONGEST)
    page.click("button")
    page.wait_for("#answer", "%")
    assert page.run("return document.querySelectorAll('#answer img').length") == 0
    rows = page.run(
        "return [...document.querySelectorAll('#answer tr')].map(row => "
        "[row.cells[0].innerText, row.querySelector('meter').value, row.cells[2].innerText])"
    )
    assert [row[0] for row in rows] in ([HOSTILE, "pos"], ["pos", HOSTILE])
    assert rows[0][1] >= rows[1][1] and sum(row[1] for row in rows) == pytest.approx(1, abs=1e-5)
    assert [row[2] for row in rows] == [f"{100 * row[1]:.1f}%" for row in rows]
    assert page.text("#answer strong") == rows[0][0]
    assert "was cut" in page.text("#answer")
    role, name = page.role_and_name("#answer meter")
    assert role == "meter" and name == f"{rows[0][0]}: {rows[0][2]}"
    width = page.run("return document.querySelector('#answer meter').getBoundingClientRect().width")
    assert width > 50  # the style sheet is there
    assert not page.complaints()  # the policy let through all that the page needs
    blocked = page.run(
        "const made = document.createElement('script'); made.textContent = 'window.ran = 1';"
        "document.body.append(made); return window.ran === undefined"
    )
    assert blocked and any("Content Security Policy" in said for said in page.complaints())


def what_is_wrong_is_shown(page):
    page.type("#text", "x" * 201)
    page.click("button")
    page.wait_for("#answer .error", "200 characters")
    page.run("document.getElementById('text').value = ''")
    page.type("#text", "good")
    page.click("button")
    page.wait_for("#answer .error", "the model failed")
    page.run("document.getElementById('text').value = '   '")
    page.click("button")
    page.wait_for("#answer", "blank text has no answer")
    page.complaints()


def pairs_and_a_token(page, address):
    page.open(address)
    assert page.run("return document.getElementById('secret').hidden")
    page.type("#text", "good film")
    page.type("#text_b", "bad plot")
    page.click("button")
    page.wait_for("#answer .error", "a token is needed")
    assert page.role_and_name("#token")[1] == "Token"
    page.type("#token", TOKEN)
    page.click("button")
    page.wait_for("#answer", "%")
    assert page.run("return document.querySelectorAll('#answer meter').length") == 2
    page.complaints()


def entities_are_listed(page, address):
    page.open(address)
    page.type("#text", "the good film was good")
    page.click("button")
    page.wait_for("#answer strong", "praise: good film; praise: good")
    cells = page.run(
        "return [...document.querySelectorAll('#answer tr')].map(row => "
        "[...row.cells].map(cell => cell.innerText))"
    )
    assert cells == [["praise", "good film", "4 to 13"], ["praise", "good", "18 to 22"]]
    page.run("document.getElementById('text').value = 'the plot'")
    page.click("button")
    page.wait_for("#answer", "found nothing")
    assert not page.complaints()


def a_question_is_answered(page, address):
    page.open(address)
    assert page.role_and_name("#question") == ("textbox", "Question")
    page.type("#question", "good")
    page.type("#context", "the cast and the film and the cast was bad and the plot was good")
    page.click("button")
    page.wait_for("#answer strong", "plot")
    page.run("document.getElementById('context').value = 'the film'")
    page.click("button")
    page.wait_for("#answer", "found nothing")
    assert not page.complaints()
