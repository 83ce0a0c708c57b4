"""Where there is no terminal, lines say how far a stage is and how long it will take."""

import io

from rich.console import Console

from distill_jax.engine import progress


def test_lines_say_how_much_time_is_left(monkeypatch):
    clock = iter((1.0, 21.0, 41.0))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    out = io.StringIO()
    reporter = progress.Reporter(Console(file=out, width=100))
    stage = progress.ProgressBar("asking", 100, reporter.console, _Bar(), 0, _line_at=0.0)
    stage.update(0, batch_size=32)
    stage.update(10, batch_size=32)
    stage.update(40, batch_size=32)
    assert out.getvalue().splitlines() == [
        "  asking: 10/100  16 examples/s  0:03:00 left",
        "  asking: 40/100  32 examples/s  0:01:00 left",
    ]


def test_pieces_add_up():
    stage = progress.ProgressBar("texts", 10, Console(file=io.StringIO()), _Bar(), 0)
    stage.update(2)
    stage.advance(3)
    stage.advance(4)
    assert stage.done == 9


class _Bar:
    def update(self, *_, **__):
        pass


def test_what_is_said_is_printed_as_it_is():
    out = io.StringIO()
    progress.Reporter(Console(file=out, width=40)).say("files:new: [bold]2 of 3")
    assert out.getvalue() == "files:new: [bold]2 of 3\n"
