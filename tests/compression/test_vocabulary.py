"""A vocabulary of the tokens that occur: the same pieces, the same logits, anything still split."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from compressed import compressed
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from distill_jax.compression.context import RunContext
from distill_jax.core.errors import UserError
from distill_jax.evaluation.open_classifier import open_classifier
from distill_jax.models.build import load_model
from distill_jax.models.vocabularies import renumbered, special_ids, vocabulary_of
from distill_jax.objectives.resolve import resolve
from distill_jax.objectives.token_outputs import TokenTags

WORDS = ("[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "play", "##ing", "##ed", "the", "film",
         "p", "l", "a", "y", "##l", "##a", "##y", "##i", "##n", "##g", "playing")  # fmt: skip


@pytest.fixture(params=["template", "bert"])
def wordpiece(request):
    tokenizer = Tokenizer(models.WordPiece({w: n for n, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    if request.param == "bert":
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 4), ("[CLS]", 3))
    else:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 3), ("[SEP]", 4)],
        )
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    return tokenizer


def test_texts_of_what_is_left_are_split_as_before(wordpiece, tmp_path):
    texts = ["the film", "played the film"]
    raw = json.loads(wordpiece.to_str())
    seen = {number for text in texts for number in wordpiece.encode(text).ids}
    kept = np.array(sorted(seen | special_ids(raw)))
    smaller = Tokenizer.from_str(json.dumps(renumbered(raw, kept)))
    assert smaller.get_vocab_size() == len(kept) < len(WORDS)
    for text in texts:
        one, other = wordpiece.encode(text), smaller.encode(text)
        assert one.tokens == other.tokens
        assert [int(kept[n]) for n in other.ids] == one.ids
    pair = smaller.encode("the", "film")
    assert pair.tokens == wordpiece.encode("the", "film").tokens
    assert special_ids(raw) == {0, 2, 3, 4}
    assert smaller.encode("playing").tokens == ["[CLS]", "[UNK]", "[SEP]"]  # no characters kept


def test_other_tokenisers_are_refused(tmp_path):
    raw = json.loads(Tokenizer(models.BPE()).to_str())
    with pytest.raises(UserError, match="of kind BPE; tokens can be dropped of WordPiece"):
        vocabulary_of(raw, tmp_path)


@pytest.fixture(scope="module")
def trimmed(finished_run, tmp_path_factory):
    steps = "vocabulary -> prune(0.3) -> distil(steps=4, objective='kl + ce')"
    return compressed(finished_run, steps, tmp_path_factory.mktemp("trimmed"))


def test_the_data_get_the_same_logits(trimmed):
    result, _ = trimmed
    first, hop = result.hops[:2]
    one, other = (load_model(each.folder / "model") for each in (first, hop))
    assert other.config.vocab_size < one.config.vocab_size
    assert hop.row.metrics["test/accuracy"] == first.row.metrics["test/accuracy"]
    assert hop.row.metrics["test/agreement"] == 1
    said = [np.load(folder / "said.npz") for folder in _folders(trimmed)]
    for split in ("validation", "test"):
        np.testing.assert_allclose(said[1][split], said[0][split], atol=1e-5)
    texts = ["the film is good", "a bad plot", "music"]
    answers = [open_classifier(each.folder).classify(texts) for each in (first, hop)]
    for left, right in zip(*answers, strict=True):
        assert left.probabilities == pytest.approx(right.probabilities, abs=1e-5)


def _folders(trimmed):
    result, _ = trimmed
    output = result.hops[1].folder.parent
    return [output / hop.row.hash for hop in result.hops]


def test_it_is_distilled_and_its_coverage_is_told(trimmed):
    result, text = trimmed
    own = load_model(result.hops[3].folder / "model")
    assert own.config.vocab_size == load_model(result.hops[1].folder / "model").config.vocab_size
    assert "validation: 100.0% of the texts have as many tokens as before" in text
    assert f"{own.config.vocab_size} of 17 tokens are left" in text


def test_tokens_that_are_too_rare_become_unknown(finished_run, tmp_path):
    result, text = compressed(finished_run, "vocabulary(30, characters=false)", tmp_path)
    own = load_model(result.hops[1].folder / "model").config.vocab_size
    assert own < 14
    before, after = (hop.row.metrics["validation/unknown"] for hop in result.hops)
    assert after > before
    assert f"{100 * after:.2f}% of them unknown" in text


def test_losses_that_compare_tokens_need_the_teachers(student_config):
    def read(digest, lengths):
        return SimpleNamespace(
            tokens_digest=digest, everything=SimpleNamespace(lengths_N=np.asarray(lengths))
        )

    run = SimpleNamespace(
        taught=read("a", [3, 4]), cell=SimpleNamespace(setup=SimpleNamespace(placebo=False))
    )
    context = RunContext(None, run, None, "")
    shape = student_config.shape
    with pytest.raises(UserError, match=r"hidden_mse compares tokens, .* distil by logits"):
        context._outputs(resolve("hidden_mse", shape, shape), read("b", [3, 5]))
    shape = dataclasses.replace(shape, per_token=True)
    objective = resolve("kl", shape, shape, TokenTags())  # of every token: logits are compared too
    with pytest.raises(UserError, match=r"kl compares tokens, .* its teacher's: take vocabulary"):
        context._outputs(objective, read("b", [3, 5]))
