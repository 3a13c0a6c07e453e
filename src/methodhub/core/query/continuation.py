"""Continuation tokens: where a list goes on, for whoever was told. Signed, and good for one list only."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import zlib
from collections.abc import Sequence

from methodhub.core.errors import ErrorCode, HubError

MAX_LENGTH = 12_288
"""Characters. Node takes 16 KB of headers at most."""
Position = tuple[str | float | int | bool | None, ...]
"""Where a page ended. What it means is the list's."""


class Continuations:
    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def token(self, subject: str, position: Position) -> str:
        """`subject` is the list that the position is of, such as a query's text. Raises 400004 where it would be longer
        than a header may be."""
        data = json.dumps(position, separators=(",", ":")).encode()
        made = self._made(subject, data)
        if len(made) > MAX_LENGTH:
            made = self._made(subject, zlib.compress(data))
        if len(made) > MAX_LENGTH:
            raise HubError(
                ErrorCode.ArgumentInvalid, "The list cannot be continued behind values as long as those of this page."
            )
        return made

    def _made(self, subject: str, data: bytes) -> str:
        return base64.urlsafe_b64encode(self._signature(subject, data) + data).decode()

    def position(self, subject: str, token: str) -> Position:
        """[HUB-continuation] Raises 400004 unless the token was made here, and for the same list."""
        try:
            raw = base64.b64decode(token, altchars=b"-_", validate=True) if len(token) <= MAX_LENGTH else b""
        except (binascii.Error, ValueError):
            raw = b""
        signature, data = raw[:32], raw[32:]
        if not hmac.compare_digest(signature, self._signature(subject, data)):
            raise HubError(ErrorCode.ArgumentInvalid, "x-ms-continuation is none that this hub gave for this list.")
        text = data if data.startswith(b"[") else zlib.decompress(data)  # [HUB-upgrade] a list was begun before
        position: Sequence[str | float | int | bool | None] = json.loads(text)
        return tuple(position)

    def _signature(self, subject: str, data: bytes) -> bytes:
        # The digest has one length: no other subject and data give the same text.
        text = hashlib.sha256(subject.encode("utf-8", "surrogatepass")).digest() + data
        return hmac.digest(self._secret, text, "sha256")
