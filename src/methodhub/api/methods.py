"""The route of a method call, answered without a task: one request from its headers to its response."""

from __future__ import annotations

from asyncio import Event, Task, get_running_loop
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING
from zlib import crc32

import structlog

from methodhub.api.bodies import too_large, unpack
from methodhub.api.heads import CallHead, Undecided, decide
from methodhub.api.responses import http_date
from methodhub.core.calls import MethodRequest, MethodResult, Outcome
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.methods import Invocation
from methodhub.core.throttles.limits import method_blocks
from methodhub.core.throttles.throttle import Waiting
from methodhub.core.throttles.throttles import Throttles
from methodhub.iothub.rest import error_body_nested, parse_method_request, result_body

if TYPE_CHECKING:
    from methodhub.api.http import HttpConnection

log = structlog.get_logger()

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_UNUSED_EVENT = Event()


class ResponseHeads:
    """The first lines of a response, by status; made anew with the date, once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._heads: dict[int, bytes] = {}

    def of(self, status: int, now: float) -> bytes:
        second = int(now)
        if second != self._second:
            self._second = second
            self._heads.clear()
        head = self._heads.get(status)
        if head is None:
            head = self._heads[status] = (
                b"HTTP/1.1 %d %b\r\ncontent-type: application/json; charset=utf-8\r\ndate: %b\r\ncontent-length: "
                % (status, HTTPStatus(status).phrase.encode(), http_date(now))
            )
        return head


class MethodExchange:
    """One method call over HTTP. Stands where uvicorn's request-response cycle stands, so that pipelined requests of
    either kind are answered in their order."""

    __slots__ = (
        "_body",
        "_complete",
        "_connection",
        "_error",
        "_invocation",
        "_size",
        "_started",
        "_waiting",
        "disconnected",
        "head",
        "keep_alive",
        "message_event",
        "response_complete",
    )

    def __init__(self, connection: HttpConnection, head: CallHead) -> None:
        self._connection = connection
        self.head = head
        self._body: list[bytes] = []
        self._size = 0
        self._complete = False
        self._started = False
        self._error = head.error
        self._invocation: Invocation | None = None
        self._waiting: Task[None] | Waiting | None = None
        """For its caller's issuer, or for its turn."""
        self.keep_alive = head.keep_alive
        # What uvicorn's protocol looks at in its own cycles.
        self.response_complete = False
        self.disconnected = False
        self.message_event = _UNUSED_EVENT

    # --- the request ---------------------------------------------------------------------------------------------

    def answer(self, body: bytes) -> None:
        """The whole request came at once, and nothing is before it."""
        self._started = self._complete = True
        self._call(body)

    def start(self) -> None:
        """Every earlier request on the connection is answered: this one's turn."""
        if self.head.undecided is not None:
            self._waiting = get_running_loop().create_task(self._decide(self.head.undecided))
            return
        self._started = True
        if self._error is not None or self._complete:
            self._proceed()
        elif self.head.expects_continue:
            self._connection.transport.write(_CONTINUE)

    async def _decide(self, undecided: Undecided) -> None:
        self.head = await decide(self._connection, self.head, undecided)
        self._error = self._error or self.head.error
        self._waiting = None
        self.start()

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
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        encoding = self.head.content_encoding
        if encoding is not None:
            try:
                body = unpack(body, encoding, self._connection.services.limits.body, ErrorCode.ArgumentInvalid)
            except HubError as error:
                self._respond_error(error)
                return
        self._call(body)

    def _call(self, body: bytes) -> None:
        services = self._connection.services
        try:
            request = parse_method_request(body, services.rules)
        except HubError as error:
            self._respond_error(error)
            return
        if services.throttles is None or self._passes(services.throttles, request):
            self._invoke(request)

    def _passes(self, throttles: Throttles, request: MethodRequest) -> bool:
        """[HUB-throttle-methods] Whether it is the call's turn already; else it comes, or is refused."""
        blocks = method_blocks(len(request.payload or b""))
        try:
            self._waiting = throttles.methods.enter(blocks, partial(self._turn, request))
        except HubError as error:
            self._respond_error(error)
            return False
        return self._waiting is None

    def _turn(self, request: MethodRequest) -> None:
        self._waiting = None
        self._invoke(request)

    def _invoke(self, request: MethodRequest) -> None:
        services = self._connection.services
        assert services.methods is not None
        invocation = services.methods.invoke(self.head.target, request, self._settled)
        if not self.response_complete:
            self._invocation = invocation

    def hang_up(self) -> None:
        """[HUB-hang-up] The caller went away: nothing is kept for it."""
        self.disconnected = True
        if self._invocation is not None:
            self._invocation.cancel()
            self._invocation = None
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    # --- the response --------------------------------------------------------------------------------------------

    def _settled(self, outcome: Outcome) -> None:
        self._invocation = None
        if isinstance(outcome, MethodResult):
            self._respond(200, result_body(outcome), self.head.echo)
        else:
            self._respond_error(outcome)

    def _respond_error(self, error: HubError) -> None:
        if not self._complete:
            # The rest of the body is thrown away as it comes; where the caller waits for 100 it never comes, and what
            # comes instead cannot be told from it.
            self.keep_alive = self.keep_alive and not self.head.expects_continue
        if error.reason is not None:
            log.info("request refused", target=str(self.head.target), code=int(error.code), reason=error.reason)
        services = self._connection.services
        request_id = services.request_ids.next()
        body = error_body_nested(error, request_id.decode(), services.clock.wall())
        more = b"iothub-errorcode: %b\r\n%b" % (error.code.name.encode(), self.head.echo)
        self._respond(error.code.http_status, body, more, request_id)

    def _respond(self, status: int, body: bytes, more_headers: bytes, request_id: bytes | None = None) -> None:
        if self.response_complete or self.disconnected:
            return
        self.response_complete = True
        connection = self._connection
        services = connection.services
        if not self.keep_alive:
            more_headers += b"connection: close\r\n"
        connection.transport.write(
            b'%b%d\r\nx-ms-request-id: %b\r\netag: "%08x"\r\n%b\r\n%b'
            % (
                connection.response_heads.of(status, services.clock.wall()),
                len(body),
                request_id or services.request_ids.next(),
                crc32(body),
                more_headers,
                body,
            )
        )
        connection.exchange_complete(self.keep_alive)
