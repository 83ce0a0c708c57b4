"""How much a server takes, and how long it waits."""

import dataclasses
import math
from dataclasses import dataclass

from distill_jax.core.errors import UserError


@dataclass(frozen=True)
class Settings:
    """Limits and times of a server; the defaults suit small models on a few cores."""

    max_texts: int = 256
    """Texts, or pairs, of a request."""
    max_characters: int = 10_000
    """Characters of a text."""
    max_bytes: int = 1 << 20
    """Bytes of a request's body."""
    max_queue: int = 1024
    """Texts that wait for the model; past them a request is told to come again (429)."""
    max_batch: int = 32
    """Texts that the model is asked about at a time."""
    batch_wait_ms: float = 2.0
    """Milliseconds that a text waits for others to share its batch with."""
    max_connections: int = 256
    """Connections; requests past them are told to come again (503)."""
    read_seconds: float = 10.0
    """Seconds that a client may take over a request's headers, and as many over its body."""
    write_seconds: float = 20.0
    """Seconds that a client may leave an answer lying."""
    idle_seconds: float = 30.0
    """Seconds that a connection is kept without a request."""
    drain_seconds: float = 1.0
    """Seconds after a signal to stop in which requests are still taken, while /ready says no."""
    stop_seconds: float = 30.0
    """Seconds after those that answers may take; what is left then is dropped."""

    def __post_init__(self) -> None:
        """Raises ``UserError`` for what no server can keep to."""
        for field in dataclasses.fields(self):
            value, flag = getattr(self, field.name), field.name.replace("_", "-")
            least = 1 if isinstance(field.default, int) else 0
            if not (math.isfinite(value) and value >= least):
                raise UserError(f"--{flag} is {value}; expected a number of at least {least}")
        for name in ("read_seconds", "write_seconds", "idle_seconds", "stop_seconds"):
            if not getattr(self, name):
                raise UserError(f"--{name.replace('_', '-')} is 0: nobody is as quick as that")
        if self.max_queue < self.max_texts:
            raise UserError(
                f"--max-queue {self.max_queue} has no room for a request of --max-texts "
                f"{self.max_texts}; expected at least as many"
            )


DEFAULTS = Settings()
