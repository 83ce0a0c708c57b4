"""Ctrl-C and SIGTERM ask for an orderly end; a second one ends at once."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType

WORD = "stopping: what is running is saved first; once more (Ctrl-C) stops at once"
GRACE_SECONDS = 2.0
"""How long a second signal waits for Python to raise, before it ends the process itself."""


class Interrupted(Exception):
    """The run was asked to stop, and stopped at a place from which it can go on."""


class StopRequest:
    """A context in which the first SIGINT or SIGTERM only raises a flag.

    Long work calls ``check()`` at every place where it can stop cleanly. The second signal
    falls back to what it did before, which for Ctrl-C is an immediate ``KeyboardInterrupt``.

    Python runs its handlers between bytecodes only, so none would run during a long compilation.
    A thread therefore watches the signals as well: it says ``WORD`` when the first one comes, and
    ends the process where a second one is not heeded within ``GRACE_SECONDS``.

    Args:
      say: prints a line for people.
      leave: ends the process at once.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(
        self,
        say: Callable[[str], None] = lambda line: None,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        self.requested = False
        self._say, self._leave = say, leave
        self._before: dict[int, object] = {}
        self._watch: _Watch | None = None

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in self._SIGNALS:
                self._before[number] = signal.signal(number, self._on_signal)
            self._watch = _Watch(self._on_first, self._on_unheeded)
        return self

    def __exit__(self, *raised: object) -> None:
        self._restore()
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def check(self) -> None:
        """Raises ``Interrupted`` when a stop was asked for."""
        if self.requested:
            raise Interrupted

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _on_first(self) -> None:
        self.requested = True
        self._say(WORD)

    def _on_unheeded(self) -> None:
        print("\nstopped at once; what was finished before is kept", file=sys.stderr, flush=True)
        self._leave(130)

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)  # type: ignore[arg-type]


class _Watch:
    """A thread that hears of signals as they come, whatever the main thread is doing."""

    def __init__(self, on_first: Callable[[], None], on_unheeded: Callable[[], None]) -> None:
        self._on_first, self._on_unheeded = on_first, on_unheeded
        self._ended = threading.Event()
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._run, name="signals", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hear no more."""
        self._ended.set()
        signal.set_wakeup_fd(self._before)
        self._writer.close()  # ends the thread's read
        self._thread.join()
        self._reader.close()

    def _run(self) -> None:
        heard = 0
        with contextlib.suppress(OSError):
            while numbers := self._reader.recv(16):
                for number in numbers:
                    if number not in StopRequest._SIGNALS:
                        continue
                    heard += 1
                    if heard == 1:
                        self._on_first()
                    elif heard == 2 and not self._ended.wait(GRACE_SECONDS):
                        self._on_unheeded()
