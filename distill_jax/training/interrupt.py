"""Ctrl-C and SIGTERM ask for an orderly end; a second one ends at once."""

import signal
import threading
from types import FrameType, TracebackType


class Interrupted(Exception):
    """The run was asked to stop, and stopped at a place from which it can go on."""


class StopRequest:
    """A context in which the first SIGINT or SIGTERM only raises a flag.

    Long work calls ``check()`` at every place where it can stop cleanly. The second signal
    falls back to what it did before, which for Ctrl-C is an immediate ``KeyboardInterrupt``.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in self._SIGNALS:
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def check(self) -> None:
        """Raises ``Interrupted`` when a stop was asked for."""
        if self.requested:
            raise Interrupted

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)  # type: ignore[arg-type]
