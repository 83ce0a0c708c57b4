"""Callers' tokens: read from a file, kept as digests, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from pathlib import Path

from distill_jax.core.errors import UserError

SHORTEST = 16
"""Characters of a token."""
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Tokens:
    """Who may call.

    Attributes:
      digests: SHA-256 of every token.
    """

    digests: tuple[bytes, ...]

    def allow(self, authorization: bytes) -> bool:
        """Whether a header ``Authorization`` names one of them; all are looked at."""
        scheme, _, token = authorization.partition(b" ")
        given = hashlib.sha256(token.strip()).digest()
        found = [hmac.compare_digest(given, known) for known in self.digests]
        return scheme.lower() == b"bearer" and any(found)


def read_tokens(path: Path) -> Tokens:
    """The tokens of a file, one a line; blank lines and those that begin with # are none.

    Raises:
      UserError: where there is no file, no token in it, or one that is short or no token at all.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UserError(f"{path} is no file of tokens: it is larger than {_MOST_BYTES} bytes")
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read tokens from {path}: {error}") from error
    found = []
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        if not re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", line) or len(line) < SHORTEST:
            raise UserError(
                f"{path}, line {number}: a token has at least {SHORTEST} letters, digits or "
                "._~+/-; make one with: openssl rand -hex 32"
            )
        found.append(hashlib.sha256(line.encode()).digest())
    if not found:
        raise UserError(f"{path} has no token; one a line is expected")
    return Tokens(tuple(found))
