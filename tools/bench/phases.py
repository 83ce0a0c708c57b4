"""Runs a script and says where its time went, and how many programs were compiled and called.

    python tools/bench/phases.py phases.json experiments/compare_losses.py --preset smoke

A thread looks a hundred times a second at what every thread is doing, and files the moment under
the room of the house that the main thread is in, or the others while that one only waits. Nothing
of the script is changed. JAX's own events count the compilations.
"""

import json
import runpy
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

STARTED = time.perf_counter()
EVERY_SECONDS = 0.01
COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"
CACHE_HIT_EVENT = "/jax/compilation_cache/cache_hits"

Frames = list[tuple[str, str]]
"""(file, function), from the outermost to the innermost."""

COMPILING = (
    "trace_to_jaxpr",
    "lower_jaxpr_to_module",
    "backend_compile",
    "compile_or_get_cached",
    "lower_sharding_computation",
)
"""Functions of JAX inside which programs are traced, lowered or compiled, or read from the cache;
a name may go on behind it."""
IDLE = ("wait", "_wait_for_tstate_lock", "get", "result", "as_completed", "read", "sleep")
"""Functions of Python's own in which a thread does nothing."""
ROOMS = (
    ("tables", ("distill_jax/tables/", "matplotlib/")),
    ("latency", ("evaluation/latency.py",)),
    ("yardsticks", ("classification/yardsticks.py",)),
    ("evaluation", ("distill_jax/evaluation/",)),
    ("asking the teacher", ("distill_jax/teachers/",)),
    ("saving", ("training/checkpoint.py", "models/huggingface.py")),
    ("steps", ("distill_jax/training/",)),
    ("self-checks", ("classification/self_checks.py", "engine/first_step.py")),
    ("data", ("distill_jax/data/", "classification/splits.py")),
)
"""Phase -> parts of the names of files whose functions it is made of; the first that fits."""
TEACHER = "classification/teacher.py"
OTHER = "other"


def phase_of(frames: Frames) -> str | None:
    """The phase that a thread is in; None for one of no phase."""
    files = [file for file, _ in frames]
    if any("importlib._bootstrap" in file for file in files):
        return "imports"
    if any("/jax/" in file and name.startswith(COMPILING) for file, name in frames):
        return "compile"
    for phase, parts in ROOMS:
        if any(part in file for file in files for part in parts):
            trained = phase == "steps" and any(TEACHER in file for file in files)
            return "fine-tuning the teacher" if trained else phase
    return None


def frames_of(frame: FrameType | None) -> Frames:
    """The stack that ends in a frame."""
    frames: Frames = []
    while frame is not None:
        frames.append((frame.f_code.co_filename, frame.f_code.co_name))
        frame = frame.f_back
    return frames[::-1]


@dataclass
class Sampler:
    """Files moments by phase until it is stopped.

    Attributes:
      seconds: by phase.
      beside: seconds of compiling in other threads while the main thread did something else.
    """

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    beside: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)

    def look(self, took: float) -> None:
        """File a moment."""
        main, own = threading.main_thread().ident, threading.get_ident()
        found = {thread: frames_of(frame) for thread, frame in sys._current_frames().items()}
        phase = phase_of(found[main]) if main in found else None
        others = [frames for thread, frames in found.items() if thread not in (main, own)]
        phases = [phase_of(frames) for frames in others if not is_idle(frames)]
        busy = [each for each in phases if each]
        self.seconds[phase or (busy[0] if busy else OTHER)] += took
        if phase and phase != "compile" and "compile" in busy:
            self.beside += took

    def run(self) -> None:
        """Look until told to stop."""
        last = time.perf_counter()
        while not self._stop.wait(EVERY_SECONDS):
            now = time.perf_counter()
            self.look(now - last)
            last = now

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self.run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()


def is_idle(frames: Frames) -> bool:
    """Whether a thread only waits."""
    return bool(frames) and frames[-1][1] in IDLE


@contextmanager
def counting() -> Iterator[Counter]:
    """Counts programs compiled (``compiled``), of them those read from the cache on disk
    (``cached``), and calls of training steps (``steps``)."""
    import jax

    from distill_jax.training.step import CompiledStep

    counts: Counter = Counter(compiled=0, cached=0, steps=0)

    def on_duration(event: str, duration_secs: float, **about: Any) -> None:
        counts["compiled"] += event == COMPILE_EVENT

    def on_event(event: str, **about: Any) -> None:
        counts["cached"] += event == CACHE_HIT_EVENT

    called = CompiledStep.__call__

    def call(self: CompiledStep, *arguments: Any) -> Any:
        counts["steps"] += 1
        return called(self, *arguments)

    jax.monitoring.register_event_duration_secs_listener(on_duration)
    jax.monitoring.register_event_listener(on_event)
    CompiledStep.__call__ = call  # type: ignore[method-assign, assignment]
    try:
        yield counts
    finally:
        CompiledStep.__call__ = called  # type: ignore[method-assign]
        jax.monitoring.unregister_event_duration_listener(on_duration)
        jax.monitoring.unregister_event_listener(on_event)


def main(output: Path, script: str, arguments: Iterable[str]) -> None:
    """Run a script as ``python SCRIPT ARGUMENTS`` would."""
    sampler = Sampler()
    sys.argv = [script, *arguments]
    counts: Counter = Counter()
    try:
        with sampler.running(), counting() as counts:
            runpy.run_path(script, run_name="__main__")
    finally:
        told = {
            "seconds": {**sampler.seconds, "total": time.perf_counter() - STARTED},
            "compiling beside": sampler.beside,
            "counts": counts,
        }
        output.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
