"""The route of a method call, answered without a task: one request from its headers to its response."""

from __future__ import annotations

import re
from asyncio import Event
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes
from zlib import crc32

import structlog

from methodhub.api.bodies import too_large, unpack
from methodhub.api.responses import ECHO_HEADERS, is_echoed
from methodhub.core.access import Right, authorize
from methodhub.core.calls import MethodResult, Outcome
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import ID_PATTERN, Target
from methodhub.core.methods import Invocation
from methodhub.core.registry import not_found
from methodhub.iothub.rest import check_api_version, error_body_nested, parse_method_request, query_value, result_body

if TYPE_CHECKING:
    from methodhub.api.http import HttpConnection

log = structlog.get_logger()

_ROUTE = re.compile(r"/twins/([^/]+)(?:/modules/([^/]+))?/methods/?", re.IGNORECASE)
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_UNUSED_EVENT = Event()


def match_method_route(raw_path: bytes) -> Target | None:
    """Whom a call's path names, or None for the path of another route. Some tools encode the slashes, too: ids hold
    none, so the path is percent-decoded (once) before it is taken apart."""
    path = unquote_to_bytes(raw_path) if b"%" in raw_path else raw_path
    match = _ROUTE.fullmatch(path.decode("utf-8", "replace"))
    return None if match is None else Target(match[1], match[2] or "")


class MethodExchange:
    """One method call over HTTP. Stands where uvicorn's request-response cycle stands, so that pipelined requests of
    either kind are answered in their order."""

    __slots__ = (
        "_body",
        "_complete",
        "_connection",
        "_error",
        "_expects_continue",
        "_headers",
        "_invocation",
        "_query",
        "_size",
        "_started",
        "_target",
        "disconnected",
        "keep_alive",
        "message_event",
        "response_complete",
    )

    def __init__(self, connection: HttpConnection, target: Target, query: bytes, keep_alive: bool) -> None:
        self._connection = connection
        self._target = target
        self._query = query
        self._headers = connection.headers
        self._expects_continue = connection.expect_100_continue
        self._body: list[bytes] = []
        self._size = 0
        self._complete = False
        self._started = False
        self._error: HubError | None = None
        self._invocation: Invocation | None = None
        self.keep_alive = keep_alive
        # What uvicorn's protocol looks at in its own cycles.
        self.response_complete = False
        self.disconnected = False
        self.message_event = _UNUSED_EVENT

    # --- the request ---------------------------------------------------------------------------------------------

    def authorize(self) -> None:
        """[HUB-authorize-first] Decided from the headers, before a byte of the body is kept or unpacked."""
        target = self._target
        path = ("twins", target.device_id)
        try:
            principal = self._connection.authenticate()
            authorize(
                principal, Right.SERVICE_CONNECT, (*path, "modules", target.module_id) if target.module_id else path
            )
        except HubError as error:
            self._error = error

    def start(self) -> None:
        """Every earlier request on the connection is answered: this one's turn."""
        self._started = True
        if self._error is not None or self._complete:
            self._proceed()
        elif self._expects_continue:
            self._connection.transport.write(_CONTINUE)

    def add_body(self, data: bytes) -> None:
        if self._error is not None:
            return
        self._size += len(data)
        limit = self._connection.services.limits.body
        if self._size > limit:
            self._fail(too_large(limit, ErrorCode.ArgumentInvalid))
        else:
            self._body.append(data)

    def complete(self) -> None:
        self._complete = True
        if self._started and not self.response_complete:
            self._proceed()

    def _fail(self, error: HubError) -> None:
        self._error = error
        self._body.clear()
        if self._started:
            self._proceed()

    def _proceed(self) -> None:
        if self._error is not None:
            self._respond_error(self._error)
            return
        services = self._connection.services
        try:
            check_api_version(query_value(self._query, b"api-version"))
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            encoding = self._header(b"content-encoding")
            if encoding is not None:
                limit = services.limits.body
                body = unpack(body, encoding.decode("latin-1"), limit, ErrorCode.ArgumentInvalid)
            request = parse_method_request(body, services.rules)
            if not ID_PATTERN.fullmatch(self._target.device_id):
                raise not_found(self._target.device)
        except HubError as error:
            self._respond_error(error)
            return
        self._body.clear()
        assert services.methods is not None
        invocation = services.methods.invoke(self._target, request, self._settled)
        if not self.response_complete:
            self._invocation = invocation

    def hang_up(self) -> None:
        """[HUB-hang-up] The caller went away: nothing is kept for it."""
        self.disconnected = True
        if self._invocation is not None:
            self._invocation.cancel()
            self._invocation = None

    # --- the response --------------------------------------------------------------------------------------------

    def _settled(self, outcome: Outcome) -> None:
        self._invocation = None
        if isinstance(outcome, MethodResult):
            self._respond(200, result_body(outcome), b"")
        else:
            self._respond_error(outcome)

    def _respond_error(self, error: HubError) -> None:
        if not self._complete:
            # The rest of the body is thrown away as it comes; where the caller waits for 100 it never comes, and what
            # comes instead cannot be told from it.
            self.keep_alive = self.keep_alive and not self._expects_continue
        if error.reason is not None:
            log.info("request refused", target=str(self._target), code=int(error.code), reason=error.reason)
        services = self._connection.services
        request_id = services.request_ids.next()
        body = error_body_nested(error, request_id, services.clock.wall())
        name = f"iothub-errorcode: {error.code.name}\r\n".encode()
        self._respond(error.code.http_status, body, name, request_id)

    def _respond(self, status: int, body: bytes, more_headers: bytes, request_id: str | None = None) -> None:
        if self.response_complete or self.disconnected:
            return
        self.response_complete = True
        connection = self._connection
        services = connection.services
        head = (
            b"%bcontent-type: application/json; charset=utf-8\r\ncontent-length: %d\r\ndate: %b\r\n"
            b'x-ms-request-id: %b\r\netag: "%08x"\r\n%b'
            % (
                _STATUS_LINES[status],
                len(body),
                connection.date.at(services.clock.wall()),
                (request_id or services.request_ids.next()).encode(),
                crc32(body),
                more_headers,
            )
        )
        for name, value in self._headers:
            if name in ECHO_HEADERS and is_echoed(value):
                head += b"%b: %b\r\n" % (name, value)
        if not self.keep_alive:
            head += b"connection: close\r\n"
        connection.transport.write(b"%b\r\n%b" % (head, body))
        connection.exchange_complete(self.keep_alive)

    def _header(self, wanted: bytes) -> bytes | None:
        for name, value in self._headers:
            if name == wanted:
                return value
        return None
