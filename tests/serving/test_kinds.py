"""Models of every kind of task over HTTP: the answers of predict, faults of requests."""

import json
import re

import pytest
from exported import KINDS, rounded
from served import ask, small_task, talk

from distill_jax.serving.messages import plural, requests_of
from distill_jax.serving.model import open_served
from distill_jax.serving.settings import Settings
from distill_jax.tasks.kinds.kinds import kind_named

WORDS = ["the", "film", "is", "good", "and", "the", "plot", "was", "bad"]
LONG = " ".join(word for n in range(6) for word in (*WORDS[n:], *WORDS[:n]))
"""No window of it is another's like, whose answers would be equal but for rounding."""
TEXTS = ["good not was bad cast", "", "the plot and the music is very not good at all", LONG]
MARKED = [
    "@ the film @ is # good #",
    "",
    "the # plot # is @ not @ good",
    f"@ a @ # b # {LONG}",
]
QUESTIONS = [" ".join(["good"] * 30), "", "is the film good", "what was bad"]


def rows_of(task):
    """What is asked, a row as a file has it each."""
    if task == "spans":
        texts = zip(QUESTIONS, TEXTS, strict=True)
        return [{"question": question, "context": context} for question, context in texts]
    return [{"text": text} for text in (MARKED if task == "relations" else TEXTS)]


SHORT = [("number", "bert"), ("spans", "bert")]
ALL = [*((task, "bert") for task in KINDS), ("tags", "bilstm"), ("tags", "bert_kin")]
CASES = [
    *SHORT,
    *(pytest.param(*case, marks=pytest.mark.long) for case in ALL if case not in SHORT),
]
"""Those of the default run differ most."""


def described(app, answer):
    """Checks that an answer is as the interface says, and that all of it is said there."""

    async def get(client):
        return (await client.get("/openapi.json")).json()

    told = talk(app, get)["components"]["schemas"]["Answer"]["properties"]
    kinds = {"string": str, "number": float, "array": list, "object": dict, "boolean": bool}
    kinds |= {"integer": int, "null": type(None)}
    assert told.keys() == answer.keys()
    for name, value in answer.items():
        allowed = [each["type"] for each in told[name].get("anyOf", [told[name]])]
        assert isinstance(value, tuple(kinds[each] for each in allowed)), name
        assert told[name]["description"]


@pytest.fixture
def small_of(toy_teacher):
    """A model of a kind that nobody asks."""

    def made(task):
        (outputs, saved), pairs = KINDS[task], kind_named(task).pairs
        return small_task(task, saved, outputs, toy_teacher / "tokenizer.json", None, pairs=pairs)

    return made


@pytest.mark.parametrize(("task", "family"), CASES)
def test_answers_are_those_of_predict(task, family, kind_run, app_of):
    served, rows = open_served(kind_run(task, family)), rows_of(task)
    app = app_of(served, max_batch=4)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    response = ask(app, {plural(name): texts for name, texts in columns.items()})
    assert response.status_code == 200, response.text
    said = response.json()
    assert said["model"] and ("temperature" in said) == (task == "relations")
    assert said["answers"][1] is None
    expected = served.opened.classify(*columns.values(), batch_size=4)
    assert any(due is not None and due.label for due in expected)
    cut = [task == "spans", False, False, task != "spans"]  # contexts are read whole
    for answer, due, long in zip(said["answers"], expected, cut, strict=True):
        if due is not None:
            described(app, answer)
            assert answer.pop("truncated") == long
            assert answer.pop("label") == due.label
            assert rounded(answer) == rounded(served.form.data(due))


@pytest.mark.parametrize(
    ("task", "body", "told"),
    [
        ("number", {"text": "good", "raw": True}, "unknown field 'raw'"),
        ("tags", {"question": "good", "context": "bad"}, "unknown field 'context'"),
        ("spans", {"text": "good"}, "Allowed: context, contexts, question, questions"),
        ("spans", {}, "give 'question', one question, or 'questions', a list of them"),
        ("spans", {"question": "good"}, "context goes with question, and contexts, as long, with"),
        ("spans", {"questions": ["good", "bad"], "contexts": ["a"]}, "contexts, as long, with que"),
        ("spans", {"question": "good", "contexts": ["a"]}, "context goes with question"),
        ("spans", {"question": "good", "context": 101 * "a"}, "context: String should have"),
        ("spans", {"questions": ["good"], "contexts": [3]}, "contexts.0: Input should be a valid"),
        ("relations", {"text": "the film"}, "text: 'the film' does not mark two entities"),
        ("relations", {"texts": ["", "the film"]}, "texts.1: 'the film' does not mark two"),
        ("relations", {"text": "the film", "subject": [0, 1]}, "'object' is None"),
        ("relations", {"text": "the film", "subject": [0, 1], "object": [1, 3]}, "is [1, 3]"),
        ("relations", {"text": "the film", "subject": [0, 1], "object": [0, 1]}, "overlap"),
        ("relations", {"text": "the film", "subject": "the", "object": [1, 2]}, "subject: Input"),
        ("relations", {"text": "the film", "subjects": [[0, 1]]}, "subject goes with text"),
        ("relations", {"texts": ["the film"], "subjects": []}, "subjects, as long, with texts"),
    ],
)  # fmt: skip
def test_what_is_wrong_names_the_field(task, body, told, small_of, app_of):
    response = ask(app_of(small_of(task), max_characters=100), body)
    assert response.status_code == 422
    said = response.json()["detail"]
    assert told in said and "\n" not in said and len(said) < 500


def test_entities_that_are_said_to_be_somewhere_are_marked(small_of):
    served = small_of("relations")
    requests = requests_of(served.form, served.columns, Settings())
    marked = {"texts": ["@ the film @ is # good #", "# bad # is @ the @ plot"]}
    bare = {"texts": ["the film is good", "bad is the plot"]}
    places = {"subjects": [[0, 2], [2, 3]], "objects": [[3, 4], [0, 1]]}
    expected = [(text,) for text in marked["texts"]]
    for body in (marked, bare | places):
        assert requests.read(json.dumps(body).encode()) == (expected, False)
    single = {"text": bare["texts"][0], "subject": [0, 2], "object": [3, 4], "raw": True}
    assert requests.read(json.dumps(single).encode()) == (expected[:1], True)


def test_what_is_served_is_said_on_the_page_and_watched(small_of, app_of):
    async def get(client):
        return [(await client.get(path)).text for path in ("/", "/docs", "/metrics")]

    expected = {
        "number": (["text"], "Number rating", "distill_jax_predicted_number_count 0.0"),
        "labels": (["text"], "Labels bad, good, music", 'predicted_total{label="music"} 0.0'),
        "tags": (["text"], "types of entities: praise", 'entities_total{type="praise"} 0.0'),
        "intent_slots": (["text"], "Intents ask, tell", 'predicted_total{label="tell"} 0.0'),
        "spans": (["question", "context"], "Answers are", 'predicted_total{label="no answer"}'),
        "relations": (["text"], "Relations before", 'probability_sum_total{label="before"} 0.0'),
    }
    assert expected.keys() == KINDS.keys()
    for task, (boxes, about, counted) in expected.items():
        page, docs, metrics = talk(app_of(small_of(task)), get)
        assert re.findall(r'<textarea id="(\w+)"', page) == boxes
        assert page.count(" autofocus") == 1 and about in page
        assert ("subjects" in docs) == (task == "relations") and f"{boxes[0]}s" in docs
        assert counted in metrics and f'task="{task}"' in metrics
