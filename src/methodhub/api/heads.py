"""The head of a method call: what its headers say and whether its caller may. A head that was read, checked and
accepted before is known again by its bytes, so that a caller that repeats it is not parsed anew."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec.structs import replace

from methodhub.api.access import check_tier
from methodhub.api.responses import ECHO_HEADERS, is_echoed
from methodhub.core.access import Action, Principal, authorize
from methodhub.core.bearer.tokens import KeysWanted
from methodhub.core.errors import HubError
from methodhub.core.identity import ID_PATTERN, Target
from methodhub.core.registry import not_found
from methodhub.iothub.rest import check_api_version, query_value

if TYPE_CHECKING:
    from methodhub.api.http import HttpConnection
    from methodhub.api.services import ApiServices

_ROUTE = re.compile(r"/twins/([^/]+)(?:/modules/([^/]+))?/methods/?", re.IGNORECASE)

WEBSOCKET_PATH = b"/$iothub/websocket"

KNOWN_HEADS = 4_096
LONGEST_KNOWN_HEAD = 4_096
"""Bytes. Together with the one above a bound of 16 MiB on what is remembered."""


def match_method_route(raw_path: bytes) -> Target | None:
    """Whom a call's path names, or None for the path of another route. Some tools encode the slashes, too: ids hold
    none, so the path is percent-decoded (once) before it is taken apart."""
    path = unquote_to_bytes(raw_path) if b"%" in raw_path else raw_path
    match = _ROUTE.fullmatch(path.decode("utf-8", "replace"))
    return None if match is None else Target(match[1], match[2] or "")


def is_websocket_path(raw_path: bytes) -> bool:
    """Whether a target in origin form is where devices open their WebSocket (`wire/device.md` 2, 4)."""
    path = unquote_to_bytes(raw_path.partition(b"?")[0])
    return path.removesuffix(b"/") == WEBSOCKET_PATH


class Undecided(NamedTuple):
    authorization: bytes
    query: bytes


class CallHead(msgspec.Struct, frozen=True, gc=False):
    """`error`: the answer that is due without a look at the body. `echo`: header lines that go back to the caller.
    `authorized_until`: seconds since 1970, UTC; a head whose caller is an administrator is never known again."""

    target: Target
    keep_alive: bool
    expects_continue: bool
    content_encoding: str | None
    content_length: int | None
    echo: bytes
    error: HubError | None
    authorized_until: float
    policies_version: int
    undecided: Undecided | None = None
    """Who calls must be found out first: then `decide` makes of this head the one to go by."""


def read_call_head(
    connection: HttpConnection, target: Target, query: bytes, headers: Mapping[bytes, bytes], keep_alive: bool
) -> CallHead:
    """[HUB-authorize-first] Decided from the headers, before a byte of the body is kept or unpacked."""
    error: HubError | None = None
    until = 0.0
    undecided = None
    authorization = headers.get(b"authorization")
    try:
        principal = connection.authenticate(authorization)
        until = principal.expiry
        check_call(connection.services, principal, target, query)
    except HubError as refusal:
        error = refusal
    except KeysWanted:
        undecided = Undecided(authorization or b"", query)
    encoding = headers.get(b"content-encoding")
    return CallHead(
        target=target,
        keep_alive=keep_alive,
        expects_continue=connection.expect_100_continue,
        content_encoding=None if encoding is None else encoding.decode("latin-1"),
        content_length=int(headers[b"content-length"]) if b"content-length" in headers else None,
        echo=b"".join(
            b"%b: %b\r\n" % (name, headers[name])
            for name in ECHO_HEADERS
            if name in headers and is_echoed(headers[name])
        ),
        error=error,
        authorized_until=until,
        policies_version=connection.services.policies.version,
        undecided=undecided,
    )


async def decide(connection: HttpConnection, head: CallHead, undecided: Undecided) -> CallHead:
    """[HUB-bearer-wait] The head once its caller's issuer was asked for its keys."""
    services = connection.services
    error: HubError | None = None
    until = 0.0
    try:
        principal = await connection.authenticate_later(undecided.authorization)
        until = principal.expiry
        check_call(services, principal, head.target, undecided.query)
    except HubError as refusal:
        error = refusal
    version = services.policies.version
    return replace(head, error=error, authorized_until=until, policies_version=version, undecided=None)


def check_call(services: ApiServices, principal: Principal, target: Target, query: bytes) -> None:
    """[HUB-basic-tier] Behind the right and the api-version, before anything of the body or the target."""
    module = ("modules", target.module_id) if target.module_id else ()
    authorize(principal, Action.METHODS_INVOKE, ("twins", target.device_id, *module, "methods"))
    check_api_version(query_value(query, b"api-version"))
    check_tier(services, Action.METHODS_INVOKE)
    if not ID_PATTERN.fullmatch(target.device_id):
        raise not_found(target.device)


class KnownHeads:
    """Heads by their bytes. Those that came first make room; a change of the policies voids all."""

    def __init__(self, body_limit: int) -> None:
        self._body_limit = body_limit
        self._heads: dict[bytes, CallHead] = {}

    def find(self, data: bytes, policies_version: int, now: float) -> tuple[CallHead, bytes] | None:
        """The head and body of one whole request, if its head is known and its caller still authorized."""
        end = data.find(b"\r\n\r\n") + 4
        head = self._heads.get(data[:end])
        if (
            head is None
            or len(data) - end != head.content_length
            or head.policies_version != policies_version
            or head.authorized_until < now
        ):
            return None
        return head, data[end:]

    def remember(self, data: bytes, head: CallHead) -> None:
        """`data`: a request whose `head` was read from it, perhaps with something before or behind it: then, and if
        the head asks for more than an answer, it is not remembered."""
        end = data.find(b"\r\n\r\n") + 4
        plain = (
            head.error is None
            and head.undecided is None
            and head.keep_alive
            and not head.expects_continue
            and head.content_encoding is None
        )
        whole = data.startswith(b"POST ") and head.content_length == len(data) - end <= self._body_limit
        if not plain or not whole or end > LONGEST_KNOWN_HEAD:
            return
        if len(self._heads) >= KNOWN_HEADS:
            del self._heads[next(iter(self._heads))]
        self._heads[data[:end]] = head
