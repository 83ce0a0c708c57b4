"""What is counted is what happened."""

import re

import pytest
from served import (
    LONGEST,
    as_body,
    small_answerer,
    small_logits,
    small_tagger,
    small_task,
    talk,
)


def numbers(page):
    """Name with labels -> value."""
    lines = [line for line in page.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def counted(app, *bodies, paths=()):
    async def ask(client):
        answers = [await client.post("/predict", **as_body(body)) for body in bodies]
        for path in paths:
            await client.get(path)
        page = await client.get("/metrics")
        assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
        return [answer.json() for answer in answers], numbers(page.text)

    return talk(app, ask)


def test_requests_by_status(app_of):
    _, seen = counted(
        app_of(), {"text": "good"}, b"{", b"{", 3_000_000 * b" ", paths=("/ready", "/a", "/b?c=d")
    )
    found = {name: value for name, value in seen.items() if "requests_total" in name}
    assert found == {
        'distill_jax_requests_total{path="/predict",status="200"}': 1.0,
        'distill_jax_requests_total{path="/predict",status="422"}': 2.0,
        'distill_jax_requests_total{path="/predict",status="413"}': 1.0,
        'distill_jax_requests_total{path="/ready",status="200"}': 1.0,
        'distill_jax_requests_total{path="other",status="404"}': 2.0,
    }
    assert seen["distill_jax_predict_seconds_count"] == 4.0
    assert seen["distill_jax_predict_seconds_sum"] > 0


def test_texts_cuts_and_unknown_words(app_of):
    texts = ["good film", "zebra good", "", "bad " * 3 * LONGEST]
    _, seen = counted(app_of(max_batch=2), {"texts": texts})
    assert seen["distill_jax_texts_total"] == 3.0
    assert seen["distill_jax_blank_texts_total"] == 1.0
    assert seen["distill_jax_truncated_texts_total"] == 1.0
    assert seen["distill_jax_tokens_total"] == 2 + 2 + LONGEST - 2
    assert seen["distill_jax_unknown_tokens_total"] == 1.0
    assert seen["distill_jax_batch_texts_count"] == 2.0
    assert seen["distill_jax_batch_texts_sum"] == 3.0
    assert seen["distill_jax_queue_texts"] == 0.0


@pytest.mark.parametrize("raw", [False, True])
def test_mean_probabilities_are_of_the_calibrated_model(app_of, raw):
    texts = ["good film", "bad plot", "the music was good"]
    _, seen = counted(app_of(), {"texts": texts, "raw": raw})
    (said,), _ = counted(app_of(), {"texts": texts})
    for name in ("neg", "pos"):
        total = sum(answer["probabilities"][name] for answer in said["answers"])
        found = seen[f'distill_jax_probability_sum_total{{label="{name}"}}']
        assert found == pytest.approx(total, abs=1e-5)
        chosen = sum(answer["label"] == name for answer in said["answers"])
        assert seen[f'distill_jax_predicted_total{{label="{name}"}}'] == chosen


def test_the_model_is_named_and_classes_that_would_break_a_line_do_not(app_of, export_of):
    hostile = 'a"b\nc\\d'
    _, seen = counted(app_of(export_of(label_names=(hostile, "pos"))), {"text": "good"})
    named = [name for name in seen if "model_info" in name]
    assert len(named) == 1
    assert re.search(r'run="0123456789abcdef"', named[0]) and 'format="onnx"' in named[0]
    assert r'distill_jax_predicted_total{label="a\"b\nc\\d"}' in seen


def test_answers_of_every_kind_are_counted(toy_teacher, app_of):
    tokenizer = toy_teacher / "tokenizer.json"
    texts = ["the good film was good", "bad plot", " ", "good"]
    _, seen = counted(app_of(small_tagger(tokenizer)), {"texts": texts})
    assert seen['distill_jax_entities_total{type="praise"}'] == 3.0
    assert not any("predicted" in name for name in seen)
    asked = {"questions": 3 * ["good"], "contexts": ["the film", "the plot", "plot film plot"]}
    _, seen = counted(app_of(small_answerer(tokenizer)), asked)
    assert seen['distill_jax_predicted_total{label="answer"}'] == 2.0
    assert seen['distill_jax_predicted_total{label="no answer"}'] == 1.0
    saved = {"mean": -10.0, "deviation": 2.0}
    number = small_task(
        "number", saved, ("rating",), tokenizer, lambda *given: small_logits(*given)[:, :1]
    )
    (said,), seen = counted(app_of(number), {"texts": texts})
    numbers = [answer["predicted"] for answer in said["answers"] if answer]
    assert seen["distill_jax_predicted_number_count"] == 3.0 and max(numbers) < 0
    assert seen["distill_jax_predicted_number_sum"] == pytest.approx(sum(numbers), rel=1e-5)
    several = small_task("labels", {"threshold": 0.4}, ("a", "b"), tokenizer, small_logits)
    (said,), seen = counted(app_of(several), {"texts": texts})
    for name in ("a", "b"):
        given = [answer for answer in said["answers"] if answer]
        due = sum(name in answer["predicted"] for answer in given)
        assert seen[f'distill_jax_predicted_total{{label="{name}"}}'] == due
        mean = sum(answer["probabilities"][name] for answer in given)
        assert seen[f'distill_jax_probability_sum_total{{label="{name}"}}'] == pytest.approx(mean)
