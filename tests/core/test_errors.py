"""Errors name what was wrong, what is allowed, and the nearest right word."""

from distill_jax.core.errors import UserError, nearest, unknown


def test_the_nearest_word_is_found_whatever_its_case():
    assert nearest("KL", ["kl", "ce"]) == "kl"
    assert nearest("mse_logit", ["mse_logits", "hidden_mse"]) == "mse_logits"
    assert nearest("zzz", ["kl", "ce"]) is None


def test_unknown_says_everything_in_one_line():
    error = unknown("loss", "kll", {"kl", "ce"}, where="at column 3")
    assert isinstance(error, UserError)
    assert str(error) == "unknown loss 'kll' at column 3. Did you mean 'kl'? Allowed: ce, kl."


def test_unknown_without_anything_near_or_allowed():
    assert str(unknown("row", "x", [])) == "unknown row 'x'. Allowed: none."


def test_an_error_is_one_line_that_can_be_printed():
    error = UserError("a\nb\r\tc\x1b[31m \ud800 \u2028 ä 好")
    assert str(error) == r"a\nb\r\tc\x1b[31m \ud800 \u2028 ä 好"
    str(error).encode()
    assert str(UserError()) == ""


def test_names_without_end_are_counted():
    error = str(unknown("label", "x" * 5000, [f"intent number {n:04}" for n in range(2000)]))
    assert len(error) < 1300
    assert error.endswith("intent number 0049 and 1,950 more.")
