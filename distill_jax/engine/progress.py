"""What a person sees while it runs: stage, loss, examples a second, time left."""

import datetime
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

LINE_SECONDS = 15.0
"""Without a terminal, one line this often at most."""


@dataclass(eq=False)
class ProgressBar:
    """One piece of long work with a known number of steps."""

    name: str
    total: int
    console: Console
    bar: Progress
    task: TaskID
    loss: float | None = None
    done: int = 0
    _first: tuple[int, float] | None = None
    _line_at: float = field(default_factory=time.monotonic)

    def update(self, done: int, *, loss: float | None = None, batch_size: int = 1) -> None:
        """Show that ``done`` of ``total`` steps are finished."""
        now = time.monotonic()
        self.done = done
        self._first = self._first or (done, now)
        first_done, first_time = self._first
        self.loss = self.loss if loss is None else loss
        facts = [] if self.loss is None else [f"loss {self.loss:.3f}"]
        if now > first_time:
            speed = (done - first_done) * batch_size / (now - first_time)
            facts.append(f"{speed:,.0f} examples/s")
        self.bar.update(self.task, completed=done, facts="  ".join(facts))
        if not self.console.is_terminal and now - self._line_at > LINE_SECONDS:
            self._line_at = now
            if done > first_done:
                seconds = (self.total - done) * (now - first_time) / (done - first_done)
                facts.append(f"{datetime.timedelta(seconds=round(seconds))} left")
            self.console.print(f"  {self.name}: {done}/{self.total}  {'  '.join(facts)}")

    def advance(self, steps: int) -> None:
        """Show that so many more are finished."""
        self.update(self.done + steps)


@dataclass(eq=False)
class Reporter:
    """Prints lines and progress bars; on a terminal the bars are live."""

    console: Console = field(default_factory=Console)

    def say(self, line: str) -> None:
        """Print one line for people."""
        self.console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[ProgressBar]:
        """A progress bar for one piece of work; it vanishes when the work is done."""
        bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        with bar:
            yield ProgressBar(
                name, total, self.console, bar, bar.add_task(name, total=total, facts="")
            )
