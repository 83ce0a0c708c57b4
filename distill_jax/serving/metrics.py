"""What is counted, in the form that Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Summary,
    generate_latest,
)

from distill_jax.core.version import VERSION
from distill_jax.evaluation.answers import Watched
from distill_jax.serving.model import Served

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server.

    Shares and means are left to who reads them: a rate divided by a rate.
    """

    def __init__(self, served: Served) -> None:
        self._registry = CollectorRegistry()
        own: dict[str, Any] = {"namespace": "distill_jax", "registry": self._registry}
        self.requests = Counter("requests", "Requests answered", ["path", "status"], **own)
        self.seconds = Histogram(
            "predict_seconds", "From a request's headers to its answer", buckets=SECONDS, **own
        )
        self.texts = Counter("texts", "Texts answered, blank ones apart", **own)
        self.blank = Counter("blank_texts", "Texts that were blank", **own)
        self.truncated = Counter("truncated_texts", "Texts cut at the model's max_length", **own)
        self.batches = Histogram("batch_texts", "Texts of a batch", buckets=SIZES, **own)
        self.tokens = Counter("tokens", "Tokens read, special ones apart", **own)
        self.unknown = Counter(
            "unknown_tokens", "Tokens read that the vocabulary does not know", **own
        )
        self.labels = Counter("predicted", "Texts by a label that they got", ["label"], **own)
        self.probabilities = Counter(
            "probability_sum",
            "Sum of the predicted probability of a label, at the model's temperature; over "
            "distill_jax_texts_total it is the mean",
            ["label"],
            **own,
        )
        self.entities = Counter("entities", "Entities found, by their type", ["type"], **own)
        self._queue = Gauge("queue_texts", "Texts that wait for the model", **own)
        about = Gauge("model_info", "Always 1", ["run", "format", "task", "version"], **own)
        about.labels(served.run, served.format, served.task, VERSION).set(1)
        watchable = served.form.watchable
        if watchable.number is not None:
            self.numbers = Summary("predicted_number", "Numbers predicted", **own)
        self._count(watchable, by=0)  # all are there from the first scrape on

    def page(self) -> bytes:
        """In the text format."""
        return generate_latest(self._registry)

    def watch_queue(self, waiting: Callable[[], int]) -> None:
        """Ask this how many texts wait, whenever the page is read."""
        self._queue.set_function(waiting)

    def answered(self) -> int:
        """Requests to /predict that got what they asked for."""
        (family,) = self.requests.collect()
        wanted = {"path": "/predict", "status": "200"}
        return sum(
            int(s.value) for s in family.samples if s.labels == wanted and s.name[-6:] == "_total"
        )

    def words(self, words: int, unknown: int) -> None:
        """Count the tokens of a batch."""
        self.tokens.inc(words)
        self.unknown.inc(unknown)

    def answers(self, watched: Sequence[Watched], *, cut: int, blank: int) -> None:
        """Count what was said of a request's texts, at the model's temperature.

        Args:
          cut: how many of them were cut.
          blank: how many there were beside them.
        """
        self.texts.inc(len(watched))
        self.blank.inc(blank)
        self.truncated.inc(cut)
        for each in watched:
            self._count(each)
            if each.number is not None:
                self.numbers.observe(each.number)

    def _count(self, watched: Watched, by: int = 1) -> None:
        for label in watched.labels:
            self.labels.labels(label).inc(by)
        for name, probability in watched.probabilities.items():
            self.probabilities.labels(name).inc(probability)
        for kind in watched.entities:
            self.entities.labels(kind).inc(by)
