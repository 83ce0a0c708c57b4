"""What callers get: answers, and what is wrong with what they sent."""

import asyncio
import dataclasses
import json
import threading

import numpy as np
import pytest
from served import LONGEST, ask, small_answerer, small_logits, talk

from distill_jax.core.errors import UserError
from distill_jax.export.runtime import ExportRuntime
from distill_jax.serving.batcher import QueueFull
from distill_jax.serving.model import Model

LONG = " ".join(["good", "film"] * LONGEST)


def probabilities(logits_C, temperature):
    raised = np.exp(logits_C / temperature)
    return raised / raised.sum()


def tokens(*words):
    """Those of the toy tokeniser, as the model gets them."""
    from toys import SPECIAL, WORDS

    ids = np.array([[2, *([*SPECIAL, *WORDS].index(word) for word in words), 3]])
    return ids, np.zeros_like(ids), np.ones_like(ids)


def test_an_answer_is_the_model_s(app_of):
    response = ask(app_of(), {"text": "good film"})
    assert response.status_code == 200
    said = response.json()
    assert said["temperature"] == 2.0 and said["model"] == "0123456789abcdef"
    (answer,) = said["answers"]
    expected = probabilities(small_logits(*tokens("good", "film"))[0].astype(float), 2.0)
    assert list(answer["probabilities"]) == ["neg", "pos"]
    np.testing.assert_allclose(list(answer["probabilities"].values()), expected, atol=2e-6)
    assert answer["label"] == ("neg", "pos")[int(expected.argmax())]
    assert answer["probability"] == max(answer["probabilities"].values())
    assert answer["truncated"] is False


def test_raw_probabilities_are_at_temperature_1(app_of):
    said = ask(app_of(), {"text": "good film", "raw": True}).json()
    expected = probabilities(small_logits(*tokens("good", "film"))[0].astype(float), 1.0)
    (answer,) = said["answers"]
    np.testing.assert_allclose(list(answer["probabilities"].values()), expected, atol=2e-6)
    assert said["temperature"] == 1.0


def test_many_texts_keep_their_places_blank_ones_get_null_and_cuts_are_told(app_of):
    texts = [LONG, "", "good", " \t\n", "the plot was very bad", "zebra"]
    together = ask(app_of(), {"texts": texts}).json()["answers"]
    assert [answer is None for answer in together] == [False, True, False, True, False, False]
    assert [bool(answer and answer["truncated"]) for answer in together] == [True] + 5 * [False]
    alone = [ask(app_of(), {"text": text}).json()["answers"][0] for text in texts]
    assert together == alone


def test_pairs(app_of, export_of):
    def ask_pairs(body):
        return ask(app_of(export_of(pairs=True)), body)

    both = ask_pairs({"texts": ["good film", "bad"], "texts_b": ["bad plot", "  "]})
    assert both.status_code == 200 and None not in both.json()["answers"]
    one = ask_pairs({"text": "good film", "text_b": "bad plot"}).json()["answers"][0]
    assert both.json()["answers"][0] == one
    turned = ask_pairs({"text": "bad plot", "text_b": "good film"}).json()["answers"][0]
    assert turned != one
    blank = ask_pairs({"text": " ", "text_b": ""})
    assert blank.json()["answers"] == [None]
    for wrong in (
        {"text": "good"},
        {"texts": ["good"], "texts_b": ["bad", "film"]},
        {"text": "good", "texts_b": ["bad"]},
    ):
        response = ask_pairs(wrong)
        assert response.status_code == 422 and "text" in response.json()["detail"]
    refused = ask(app_of(), {"text": "good", "text_b": "bad"})
    assert refused.status_code == 422 and "text_b" in refused.json()["detail"]


def test_long_contexts_are_read_in_windows_of_which_few_at_a_time(toy_teacher, app_of):
    sizes = []
    served = small_answerer(toy_teacher / "tokenizer.json")
    runtime = served.opened.runtime

    def counted(*arrays):
        sizes.append(len(arrays[0]))
        return runtime.logits(*arrays)

    opened = dataclasses.replace(served.opened, runtime=ExportRuntime(counted))
    words = 40 * ["the", "film"]
    contexts = [" ".join([*words[:place], "plot", *words[place:]]) for place in (0, 33, 80)]
    app = app_of(dataclasses.replace(served, opened=opened), max_batch=4)
    said = ask(app, {"questions": 3 * ["good"], "contexts": contexts}).json()["answers"]
    assert [each["predicted"] for each in said] == 3 * ["plot"]
    assert [each["start"] for each in said] == [text.index("plot") for text in contexts]
    assert max(sizes) == 4 and sum(sizes) > 3 * 81 / 24


def test_windows_that_would_be_too_short_are_refused(toy_teacher):
    served = small_answerer(toy_teacher / "tokenizer.json", max_length=23)
    with pytest.raises(UserError, match="24 tokens at the least, not 23"):
        Model(served.opened, 1).check(2)


def test_a_question_that_is_cut_is_told(toy_teacher, app_of):
    served = small_answerer(toy_teacher / "tokenizer.json")
    asked = {"questions": ["good", LONG], "contexts": [LONG, "the plot"]}
    said = ask(app_of(served), asked).json()["answers"]
    assert [each["truncated"] for each in said] == [False, True]


def test_callers_that_share_a_batch_get_what_they_would_alone(app_of, export_of):
    sizes = []

    def counted(*arrays):
        sizes.append(len(arrays[0]))
        return small_logits(*arrays)

    texts = [" ".join(["good", "the", "bad", "plot"][: n % 4 + 1] * (n % 3 + 1)) for n in range(24)]

    async def all_at_once(client):
        asked = (client.post("/predict", json={"text": text}) for text in texts)
        return [response.json()["answers"][0] for response in await asyncio.gather(*asked)]

    together = talk(app_of(export_of(logits=counted), batch_wait_ms=200.0), all_at_once)
    assert max(sizes) > 1 and sum(sizes) == len(texts)
    alone = [ask(app_of(), {"text": text}).json()["answers"][0] for text in texts]
    assert together == alone


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"nonsense", "JSON"),
        (b'{"text": "a\xff"}', "JSON"),
        (b'{"text": "half \\ud800 a pair"}', "hex escape"),
        (b'{"text": ' + 5000 * b"[" + 5000 * b"]" + b"}", "recursion"),
        (b'{"text": NaN}', "text"),
        ([], "object"),
        ("null", "object"),
        ({}, "'text'"),
        ({"text": None}, "text: "),
        ({"text": 3}, "text: "),
        ({"text": "good", "texts": ["good"]}, "'texts'"),
        ({"texts": ["good", 3]}, "texts.1: "),
        ({"texts": "good"}, "texts: "),
        ({"texts": {"a": "good"}}, "texts: "),
        ({"text": "good", "raw": "yes"}, "raw: "),
        ({"text": "good", "rawe": True}, "Did you mean 'raw'"),
        ({"text": 101 * "a"}, "100 characters"),
        ({"texts": 9 * ["a"]}, "8 items"),
        ({1000 * "key": 1}, "Allowed: raw, text, texts"),
        ({f"key {n}": 1 for n in range(40_000)}, "unknown field 'key 0'"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(app_of, body, told):
    response = ask(app_of(max_texts=8, max_characters=100), body)
    assert response.status_code == 422
    said = response.json()["detail"]
    assert told in said and "\n" not in said and len(said) < 500


def test_no_texts_are_no_answers(app_of):
    assert ask(app_of(), {"texts": []}).json()["answers"] == []


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_must_be_said_to_be_json(app_of, kind):
    """What a page elsewhere can send without asking first is refused."""

    async def post(client):
        body = json.dumps({"text": "good"})
        return await client.post("/predict", content=body, headers={"content-type": kind})

    assert talk(app_of(), post).status_code == 415


def test_past_the_queue_callers_are_told_when_to_return(app_of, export_of):
    started, release = threading.Event(), threading.Event()

    def slow(*arrays):
        started.set()
        release.wait(20)
        return small_logits(*arrays)

    async def crowd(client):
        first = asyncio.create_task(client.post("/predict", json={"text": "good"}))
        await asyncio.to_thread(started.wait, 10)
        second = asyncio.create_task(client.post("/predict", json={"texts": 4 * ["bad"]}))
        while "queue_texts 4.0" not in (await client.get("/metrics")).text:
            await asyncio.sleep(0.01)
        refused = await client.post("/predict", json={"text": "film"})
        release.set()
        return refused, await first, await second

    app = app_of(export_of(logits=slow), max_queue=4, max_texts=4)
    refused, first, second = talk(app, crowd)
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
    assert (first.status_code, second.status_code) == (200, 200)
    assert QueueFull(3).seconds == 3


def test_who_has_gone_is_not_computed_for(app_of, export_of):
    started, release, sizes = threading.Event(), threading.Event(), []

    def slow(*arrays):
        started.set()
        release.wait(20)
        sizes.append(len(arrays[0]))
        return small_logits(*arrays)

    app = app_of(export_of(logits=slow))

    async def leave(client):
        first = asyncio.create_task(client.post("/predict", json={"text": "good"}))
        await asyncio.to_thread(started.wait, 10)
        body = json.dumps({"texts": 5 * ["bad"]}).encode()
        sent, coming = [], [{"type": "http.request", "body": body}, {"type": "http.disconnect"}]

        async def receive():
            return coming.pop(0) if coming else await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/predict",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
        }
        await app(scope, receive, send)
        release.set()
        return sent[0]["status"], (await first).status_code

    assert talk(app, leave) == (499, 200)
    assert sizes == [1]


def test_answers_that_are_no_numbers_are_an_error(app_of, export_of):
    nan = export_of(logits=lambda *arrays: np.float32("nan") * small_logits(*arrays))
    response = ask(app_of(nan), {"text": "good"})
    assert response.status_code == 500 and "model failed" in response.json()["detail"]


def test_a_model_that_fails_is_an_error_of_ours_and_the_next_request_is_answered(app_of, export_of):
    failing = [True]

    def broken(*arrays):
        if failing.pop() if failing else False:
            raise RuntimeError("secret inner words")
        return small_logits(*arrays)

    async def twice(client):
        asked = [await client.post("/predict", json={"text": "good"}) for _ in range(2)]
        return [*asked, await client.get("/ready")]

    app = app_of(export_of(logits=broken))
    failed, good, ready = talk(app, twice)
    assert failed.status_code == 500 and "secret" not in failed.text
    assert (good.status_code, ready.status_code) == (200, 200)


def test_health_and_readiness(app_of):
    app = app_of()

    async def states(client):
        async def both():
            return [(await client.get(path)).status_code for path in ("/health", "/ready")]

        seen = [await both()]
        app.state.service.leaving = True
        seen.append(await both())
        answer = await client.post("/predict", json={"text": "good"})
        app.state.service.runner.cancel()
        await asyncio.wait({app.state.service.runner})
        return [*seen, await both()], answer

    seen, answer = talk(app, states)
    assert seen == [[200, 200], [200, 503], [503, 503]]
    assert answer.status_code == 200 and answer.headers["connection"] == "close"


def test_other_paths_and_methods_are_told_so(app_of):
    async def others(client):
        asked = [
            client.get("/predict"),
            client.get("/predict/"),
            client.get("/../../etc/passwd"),
            client.get("/%2e%2e/%2e%2e/etc/passwd"),
            client.get("/static/page.html"),
        ]
        return [(await each).status_code for each in asked]

    assert talk(app_of(), others) == [405, 404, 404, 404, 404]
