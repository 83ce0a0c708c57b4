"""A finished classifier: every class's probability, pairs, blanks, and the training's length."""

import dataclasses

import jax
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.data.tokenise import tokenise_texts
from distill_jax.evaluation.calibration import FILE, write_temperature
from distill_jax.evaluation.open_classifier import Stream, open_classifier
from distill_jax.models.bert import Bert
from distill_jax.models.huggingface import TextInputs, load_pretrained, save_pretrained

TEXTS = ["the film is good", "bad", "the plot and the cast and the music", "bad"]


@pytest.fixture
def save_as(toy_teacher, tmp_path):
    """The toy teacher, saved again as one of other inputs."""
    loaded = load_pretrained(toy_teacher)

    def save(name="model", inputs=TextInputs(), **changes):  # noqa: B008
        config = dataclasses.replace(loaded.config, **changes)
        params = loaded.params
        if changes.get("type_vocab_size") == 1:
            embeddings = {**params["embeddings"]}
            types = embeddings["token_type"]["embedding"][:1]
            params = {**params, "embeddings": {**embeddings, "token_type": {"embedding": types}}}
        save_pretrained(tmp_path / name, config, params, loaded.tokenizer_file, ("a", "b"), inputs)
        return tmp_path / name

    return save


def probabilities(answers):
    return np.array([list(answer.probabilities.values()) for answer in answers])


def test_texts_are_classified_in_order(toy_teacher):
    opened = open_classifier(toy_teacher)
    answers = opened.classify(TEXTS, batch_size=2)
    assert answers[1] == answers[3]
    loaded = load_pretrained(toy_teacher)
    tokens, _ = tokenise_texts(TEXTS, loaded.tokenizer_file, max_length=32)
    batch = tokens.batch(np.arange(4), int(tokens.lengths_N.max()), 4)
    logits_NC = Bert(loaded.config).apply({"params": loaded.params}, batch).logits_BC
    np.testing.assert_allclose(probabilities(answers), jax.nn.softmax(logits_NC), atol=1e-5)
    for answer in answers:
        assert list(answer.probabilities) == ["a", "b"]
        assert answer.probability == max(answer.probabilities.values())


def test_blank_texts_have_no_class_and_move_no_other(toy_teacher):
    opened = open_classifier(toy_teacher)
    answers = opened.classify(["", "the film is good", " \t", "bad"])
    assert answers[0] is answers[2] is None
    expected = opened.classify(["the film is good", "bad"])
    np.testing.assert_allclose(probabilities([answers[1], answers[3]]), probabilities(expected))
    assert opened.classify([]) == [] and opened.classify([" "]) == [None]


def test_texts_are_cut_as_in_training(save_as):
    """A class that hangs on the last words must not change with the folder's default."""
    text = " ".join(["the film is", *["very"] * 12, "bad"])
    short = open_classifier(save_as("short", TextInputs(max_length=6)))
    assert short.max_length == 6
    (as_trained,) = short.classify([text])
    (same,) = short.classify(["the film is very"])
    (whole,) = open_classifier(short_folder := save_as("whole")).classify([text])
    assert as_trained == same and as_trained != whole
    assert open_classifier(short_folder).max_length == 32  # the model's positions
    assert open_classifier(short_folder, max_length=6).classify([text]) == [as_trained]
    stream = Stream(short, pairs=False)
    assert stream.coverage is None
    ((_, answers),) = stream.answers([text, " ", "bad"], lambda text: [text])
    assert answers[0] == as_trained and answers[1] is None
    assert stream.coverage.cut == 0.5


def test_a_model_of_pairs_wants_pairs(save_as):
    opened = open_classifier(save_as(inputs=TextInputs(pairs=True)))
    first, second = ["the film", ""], ["is good", "bad"]
    answers = opened.classify(first, second)
    turned = opened.classify(second, first)
    assert None not in answers and answers[0] != turned[0]
    with pytest.raises(UserError, match=r"trained on pairs of texts: .* --text-b COLUMN"):
        opened.classify(first)
    with pytest.raises(UserError, match="2 texts and 1 second texts"):
        opened.classify(first, ["x"])
    single = open_classifier(save_as("single", TextInputs(pairs=False)))
    with pytest.raises(UserError, match="trained on single texts"):
        single.classify(first, second)


def test_pairs_need_a_token_type_for_the_second_text(save_as):
    """JAX would clamp it, PyTorch fail."""
    folder = save_as(type_vocab_size=1)
    assert open_classifier(folder).classify(["good"])
    with pytest.raises(UserError, match="the model has type_vocab_size 1: it was not made for"):
        open_classifier(folder).classify(["good"], ["bad"])


def test_probabilities_are_calibrated_by_the_temperature_kept_with_the_model(save_as):
    folder = save_as()
    raw = probabilities(open_classifier(folder).classify(TEXTS))
    write_temperature(folder, 0.02)
    opened = open_classifier(folder)
    answers = opened.classify(TEXTS)
    assert opened.temperature == 0.02
    odds_N, raw_N = (np.log(p[:, 1] / p[:, 0]) for p in (probabilities(answers), raw))
    np.testing.assert_allclose(odds_N, 50 * raw_N, rtol=1e-2)
    for temperature, expected in ((1, raw), (0.02, probabilities(answers))):
        given = open_classifier(folder, temperature=temperature).classify(TEXTS)
        np.testing.assert_allclose(probabilities(given), expected, rtol=1e-5)
    extreme = open_classifier(folder, temperature=1e30).classify(TEXTS)  # where all are alike
    assert [a.label for a in extreme] == [a.label for a in answers]
    assert {a.probability for a in extreme} == {0.5}


def test_a_temperature_is_a_positive_number(save_as):
    folder = save_as()
    for wrong in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="must be a positive number or auto"):
            open_classifier(folder, temperature=wrong)
    for wrong in ("{", "[]", "{}", '{"temperature": "1"}', '{"temperature": 0}'):
        (folder / FILE).write_text(wrong)
        with pytest.raises(UserError, match=r"calibration.json is damaged.*--temperature 1"):
            open_classifier(folder)
        assert open_classifier(folder, temperature=1).temperature == 1


def test_a_model_without_a_head_cannot_classify(minilm_folder, tmp_path):
    with pytest.raises(UserError, match=r"no trained classifier head \(classifier\)"):
        open_classifier(minilm_folder)
    with pytest.raises(UserError, match="no model at"):
        open_classifier(tmp_path / "nowhere")
