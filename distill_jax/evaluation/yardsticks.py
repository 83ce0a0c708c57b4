"""Classifiers that know no teacher and no tokens: the majority class, logistic regression.

Shapes: N examples, C classes, F features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Columns = Sequence[Sequence[str]]
"""One column of texts, or two where examples are pairs."""
SPACED = 1 / 20
"""From this share of white space on, texts are cut into words; below it into characters, for
writing without spaces (Chinese, Japanese, Thai) has words that this does not see."""
WORDS: dict[str, Any] = {"token_pattern": r"\w+|[^\w\s]", "ngram_range": (1, 2)}
CHARACTERS: dict[str, Any] = {"analyzer": "char", "ngram_range": (1, 3)}


@dataclass(frozen=True)
class Regression:
    """How logistic regressions are fitted.

    Attributes:
      candidates: inverse strengths of the L2 penalty, one of which is chosen on validation.
      most_features: the most frequent n-grams that are kept, of each column of texts.
      most_weights: features times classes; with many classes fewer features are kept.
      most_examples: a larger set of labelled examples is thinned, class by class.
      most_scores: examples times classes; with many classes more is thinned.
      iterations: of Newton's method, at most.
      revision: raised when the same recipe would come out differently.
    """

    candidates: tuple[float, ...] = (1.0, 10.0, 100.0)
    most_features: int = 50_000
    most_weights: int = 1_000_000
    most_examples: int = 100_000
    most_scores: int = 2_000_000
    iterations: int = 20
    revision: int = 1

    def share(self, examples: int, classes: int) -> float:
        """Of so many labelled examples how many are used, in (0, 1]."""
        return min(1.0, self.most_examples / examples, self.most_scores / (examples * classes))


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a yardstick says.

    Attributes:
      chosen: the setting that was chosen on validation; None where there is none.
      validation_NC, test_NC: logits; -inf for a class that has no labelled example.
    """

    chosen: float | None
    validation_NC: np.ndarray
    test_NC: np.ndarray


def majority(labels_N: np.ndarray, classes: int, validation: int, test: int) -> Fitted:
    """The logarithms of the classes' frequencies, for every example alike.

    Args:
      labels_N: of the labelled training examples.
      classes: C.
      validation, test: how many examples these splits have.
    """
    counts_C = np.bincount(labels_N, minlength=classes)
    with np.errstate(divide="ignore"):
        logits_C = np.log(counts_C / counts_C.sum())
    return Fitted(None, np.tile(logits_C, (validation, 1)), np.tile(logits_C, (test, 1)))


def text_features(
    recipe: Regression, train: Columns, others: Sequence[Columns], classes: int
) -> list[Any]:
    """TF-IDF of word 1- and 2-grams, or of character 1- to 3-grams where texts have few spaces.

    The two texts of a pair have features of their own, side by side.

    Args:
      recipe: says how many.
      train: the labelled training texts, the only ones that vocabulary and weights are from.
      others: the same columns of other splits.
      classes: C.

    Returns:
      Sparse [N, F] of ``train``, then of each of ``others``.
    """
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    most = max(1, min(recipe.most_features, recipe.most_weights // (classes * len(train))))
    columns = []
    for number, texts in enumerate(train):
        cut = WORDS if _spaces(texts) >= SPACED else CHARACTERS
        made = TfidfVectorizer(sublinear_tf=True, max_features=most, **cut)
        columns.append(
            [made.fit_transform(texts), *(made.transform(other[number]) for other in others)]
        )
    return [hstack(split, format="csr") for split in zip(*columns, strict=True)]


def regression(
    recipe: Regression,
    labels_N: np.ndarray,
    features: Sequence[Any],
    classes: int,
    score: Callable[[np.ndarray], float],
    on_fit: Callable[[], None] = lambda: None,
) -> Fitted:
    """Multinomial logistic regression; the penalty is chosen on validation, the test read once.

    Args:
      recipe: how.
      labels_N: of the labelled training examples.
      features: [N, F] of those, of validation, and of test.
      classes: C.
      score: of logits on validation, higher is better; of equals the strongest penalty is taken.
      on_fit: called before every fit.
    """
    train, validation, test = features
    if len(np.unique(labels_N)) == 1:  # nothing to separate
        return majority(labels_N, classes, validation.shape[0], test.shape[0])
    models = []
    for strength in recipe.candidates:
        on_fit()
        models.append(_fit(recipe, strength, train, labels_N))
    said = [_logits(model, validation, classes) for model in models]
    best = int(np.argmax([score(logits_NC) for logits_NC in said]))
    return Fitted(recipe.candidates[best], said[best], _logits(models[best], test, classes))


def _fit(recipe: Regression, strength: float, features: Any, labels_N: np.ndarray) -> Any:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is one candidate of several
        model = LogisticRegression(C=strength, solver="newton-cg", max_iter=recipe.iterations)
        return model.fit(features, labels_N)


def _logits(model: Any, features: Any, classes: int) -> np.ndarray:
    scores = model.decision_function(features)
    if scores.ndim == 1:
        scores = np.stack([np.zeros_like(scores), scores], axis=-1)
    logits_NC = np.full((len(scores), classes), -np.inf)
    logits_NC[:, model.classes_] = scores
    return logits_NC


def _spaces(texts: Sequence[str]) -> float:
    """The share of characters that are white space."""
    spaces = sum(max(0, len(text.split()) - 1) for text in texts)
    return spaces / max(1, sum(map(len, texts)))
