"""How errors and echoes look on the way out, the same for every route."""

from __future__ import annotations

import re
from email.utils import formatdate
from functools import lru_cache

from methodhub.core.errors import HubError
from methodhub.iothub.rest import error_body_listed, error_body_nested

JSON_TYPE = "application/json; charset=utf-8"
_ECHOED = re.compile(rb"[\x20-\x7e]{1,128}")
ECHO_HEADERS = (b"request-id", b"x-ms-client-request-id")


def http_date(now: float) -> bytes:
    return _date_of(int(now))


@lru_cache(1)
def _date_of(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


def is_echoed(value: bytes) -> bool:
    """[HUB-echo] A request id of the caller's comes back if it is 1 to 128 printable characters."""
    return _ECHOED.fullmatch(value) is not None


def error_body(error: HubError, path: str, request_id: str, now: float) -> bytes:
    """F1 below `/twins` and `/digitaltwins`, F2 everywhere else (`wire/service.md` 1.7)."""
    is_nested = path.lower().startswith(("/twins/", "/digitaltwins/"))
    render = error_body_nested if is_nested else error_body_listed
    return render(error, request_id, now)
