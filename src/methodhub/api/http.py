"""HTTP on one byte stream: uvicorn's httptools protocol, with the method route answered at once, limits on heads,
bodies and silence, and every request authenticated from its headers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import httptools
import msgspec
import structlog
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from methodhub.api.heads import KnownHeads, is_websocket_path, match_method_route, read_call_head
from methodhub.api.methods import MethodExchange, ResponseHeads
from methodhub.api.responses import http_date
from methodhub.api.services import ApiServices, authenticate, authenticate_later
from methodhub.core.access import ADMINISTRATOR, Principal
from methodhub.core.bearer.tokens import KeysWanted
from methodhub.core.deadlines import Deadline
from methodhub.core.errors import HubError
from methodhub.net.stream import Stream
from methodhub.net.websocket import Factory, WebSocketStream, answer_handshake

log = structlog.get_logger()

RAW_BYTES_FACTOR = 8
"""A chunked body may take this many times its limit on the wire, framing included."""

OVERRIDES = {b"GET", b"PUT", b"PATCH", b"DELETE"}
"""The verbs that a POST may stand for. Not HEAD: whoever posts reads a body."""

MAX_LINE = 16
"""Pipelined requests in line before reading pauses; a caller that hangs up is not noticed while it does."""


class HttpServer:
    """What all HTTP connections of a listener share. `administrator`: whoever reaches it needs no credential.
    `device_protocols`: what devices may speak inside a WebSocket, by its subprotocol in lower case."""

    def __init__(
        self,
        app: ASGIApp,
        services: ApiServices,
        administrator: bool = False,
        device_protocols: Mapping[str, Factory] | None = None,
    ) -> None:
        self.config = Config(
            app, http="httptools", ws="none", lifespan="off", log_config=None, access_log=False, proxy_headers=False
        )
        self.config.load()
        self.state = ServerState()
        self.services = services
        self.administrator = administrator
        self.device_protocols = device_protocols or {}
        self.response_heads = ResponseHeads()
        self.known_heads = KnownHeads(services.limits.body)

    def connection(self, stream: Stream) -> HttpConnection:
        return HttpConnection(self, stream)


class HttpConnection(HttpToolsProtocol):
    def __init__(self, server: HttpServer, stream: Stream) -> None:
        super().__init__(server.config, server.state, {})
        self.services = server.services
        self.response_heads = server.response_heads
        self._known_heads = server.known_heads
        self.stream = stream
        self._administrator = server.administrator
        self._device_protocols = server.device_protocols
        self._fields: dict[bytes, bytes] = {}
        self._begun_in_chunk = 0
        self._in_message = False
        self._in_head = True
        self._raw_bytes = 0
        self._request_clock: Deadline | None = None
        self._idle_clock: Deadline | None = None
        self._idle_since = server.services.clock.monotonic()

    def authenticate(self, header: bytes | None) -> Principal:
        """Whoever sent a request with this Authorization header. Raises 401002, and KeysWanted."""
        if self._administrator:
            return ADMINISTRATOR
        principal = authenticate(self.services, header)
        self.stream.authenticated()
        return principal

    async def authenticate_later(self, header: bytes) -> Principal:
        """[HUB-bearer-wait] Meanwhile no more is read: the caller is a stranger still. Raises 401002."""
        self._undecided += 1
        self._read_or_wait()
        try:
            principal = await authenticate_later(self.services, header)
            self.stream.authenticated()
            return principal
        finally:
            self._undecided -= 1
            self._read_or_wait()

    # --- bytes ---------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.parser is None or self.stream.is_closing():
            return
        if not (self._in_message or self._raw_bytes) and self._answer_at_once(data):
            return
        self._begun_in_chunk = 0
        self._raw_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            if not self._check_sizes():
                self._reject(b"400 Bad Request", "The request is no HTTP/1.1.")
        else:
            self._check_sizes()
            if self._in_message or self._raw_bytes:
                self._run_request_clock()
            elif self._begun_in_chunk == 1 and isinstance(self.cycle, MethodExchange):
                self._known_heads.remember(data, self.cycle.head)

    def _answer_at_once(self, data: bytes) -> bool:
        """[HUB-known-head] One whole method call, whose head was parsed and authorized before, byte for byte."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            return False
        services = self.services
        found = self._known_heads.find(data, services.policies.version, services.clock.wall())
        if found is None:
            return False
        head, body = found
        self.stream.authenticated()
        exchange = MethodExchange(self, head)
        self.cycle = self._current = exchange
        exchange.answer(body)
        return True

    def _check_sizes(self) -> bool:
        """[HUB-http-limits] httptools bounds nothing by itself. Whether the request was rejected."""
        limits = self.services.limits
        if self._in_head and self._raw_bytes > limits.head:
            self._reject(b"431 Request Header Fields Too Large", f"The head has more than {limits.head} bytes.")
        elif self._raw_bytes > (most := limits.body * RAW_BYTES_FACTOR + limits.head):
            self._reject(b"413 Content Too Large", f"The request has more than {most} bytes.")
        else:
            return False
        return True

    def _upgrade(self, rest: bytes) -> None:
        """[HUB-websocket] `rest`: what came behind the request. A client that speaks only after it read the answer
        gets nothing else in the same segment: one of them would lose it."""
        parser, path = self.parser, origin_form(self.url)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.headers]
        response, subprotocol = answer_handshake(path.decode("latin-1"), headers, self._device_protocols)
        if response.status_code == 426:
            self._reject(b"426 Upgrade Required", "The hub upgrades to websocket only.", b"upgrade: websocket\r\n")
        elif parser.get_method() != b"GET" or parser.get_http_version() != "1.1" or not self._owes_an_answer():
            self._reject(b"400 Bad Request", "An upgrade is a GET of HTTP/1.1, behind no request without an answer.")
        elif not self._device_protocols or not is_websocket_path(path):
            self._reject(b"404 Not Found", "There is no WebSocket at this path.")
        elif response.status_code != 101:
            self._reject(b"400 Bad Request", bytes(response.body).decode().strip())
        else:
            self._stop_clocks()
            self.flow.resume_reading()
            self.connections.discard(self)
            self.parser = self.cycle = None  # type: ignore[assignment]  # each refers to this object
            self.stream.write(response.serialize())
            websocket = WebSocketStream(self.stream, self._device_protocols[subprotocol.lower()])
            self.stream.set_protocol(websocket)
            if rest:
                websocket.data_received(rest)

    def _reject(self, status: bytes, message: str, header: bytes = b"") -> None:
        """Answer what is no request that a route could answer, and close."""
        log.info("request rejected", reason=message, peer=self.stream.peer.address)
        if self._owes_an_answer():
            body = msgspec.json.encode({"Message": message})
            self.transport.write(
                b"HTTP/1.1 %b\r\ncontent-type: application/json; charset=utf-8\r\ncontent-length: %d\r\n"
                b"date: %b\r\nx-ms-request-id: %b\r\n%bconnection: close\r\n\r\n%b"
                % (
                    status,
                    len(body),
                    http_date(self.services.clock.wall()),
                    self.services.request_ids.next(),
                    header,
                    body,
                )
            )
        self.transport.close()

    def _owes_an_answer(self) -> bool:
        """Whether what is sent now would be taken as the answer to the request that is arriving."""
        cycle: Any = self.cycle
        if cycle is None or cycle.response_complete:
            return self._in_head
        if self._in_head or self.pipeline:
            return False
        return cycle is self._current if isinstance(cycle, MethodExchange) else not cycle.response_started

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clocks()
        for cycle, _ in self.pipeline:
            if isinstance(cycle, MethodExchange):
                cycle.hang_up()
        # An exchange that is being answered is no longer the newest one if others were pipelined behind it.
        if self._current is not None:
            self._current.hang_up()
        super().connection_lost(exc)

    # --- one request ---------------------------------------------------------------------------------------------

    _current: MethodExchange | None = None
    """The method call whose turn it is."""

    _taking_turns = False

    _undecided = 0
    """Requests whose caller's issuer is being asked."""

    def on_message_begin(self) -> None:
        self._begun_in_chunk += 1
        self._in_message = True
        self._in_head = True
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        limit = self.services.limits.head
        if self._raw_bytes > limit and sum(len(name) + len(value) for name, value in self.headers) > limit:
            raise ValueError("the head is too large")  # it came at once with what was checked before
        is_old = self.parser.get_http_version() == "1.0"
        if not is_old and sum(name == b"host" for name, _ in self.headers) != 1:
            raise ValueError("a request of HTTP/1.1 names one Host")
        self._in_head = False
        self._fields = fields = dict(self.headers)
        self.expect_100_continue = fields.get(b"expect", b"").lower() == b"100-continue" and not is_old
        method = self.parser.get_method()
        if method == b"POST":  # [HUB-override] before anything is decided by the verb
            override = fields.get(b"x-http-method-override", b"").strip().upper()
            method = override if override in OVERRIDES else method
        path, _, query = origin_form(self.url).partition(b"?")
        if self.parser.should_upgrade():
            return  # no cycle: the parser stops behind the head, and the request is rejected
        if method == b"POST" and self.services.methods is not None:
            target = match_method_route(path)
            if target is not None:
                keep_alive = self.parser.should_keep_alive() and not is_old
                head = read_call_head(self, target, query, fields, keep_alive)
                self._take_turn(MethodExchange(self, head))
                return
        self._start_cycle(method, path, query)

    def _take_turn(self, exchange: MethodExchange) -> None:
        earlier = self.cycle
        self.cycle: Any = exchange
        if earlier is None or earlier.response_complete:
            self._current = exchange
            exchange.start()
        else:
            waiting: Any = (exchange, self.app)
            self.pipeline.appendleft(waiting)
            self._read_or_wait()

    def _start_cycle(self, method: bytes, path: bytes, query: bytes) -> None:
        """Hand the request to uvicorn, with who asks in its state: the routes decide what that one may do."""
        header = self._fields.get(b"authorization")
        try:
            state: dict[str, Any] = {"principal": self.authenticate(header)}
        except HubError as error:
            state = {"refusal": error}
        except KeysWanted:
            assert header is not None
            state = {"authenticate": partial(self.authenticate_later, header)}
        self.scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,  # type: ignore[typeddict-item]
            "root_path": "",
            "headers": self.headers,
            "state": state,
        }
        path = path.replace(b"#", b"%23")  # raw in an id: some clients do not encode ids, and a fragment is never sent
        self.url = path + b"?" + query if query else path
        super().on_headers_complete()
        self.scope["method"] = method.decode("latin-1")
        self._read_or_wait()  # uvicorn waits for the first in line

    def on_body(self, body: bytes) -> None:
        if self.parser.should_upgrade():
            return  # no request of ours has it
        cycle: Any = self.cycle
        if isinstance(cycle, MethodExchange):
            if not cycle.response_complete:
                cycle.add_body(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_message = False
        self._in_head = True
        self._raw_bytes = 0
        self._stop_request_clock()
        if self.parser.should_upgrade():
            return
        cycle: Any = self.cycle
        if isinstance(cycle, MethodExchange):
            cycle.complete()
        else:
            super().on_message_complete()

    # --- whose turn ----------------------------------------------------------------------------------------------

    def exchange_complete(self, keep_alive: bool) -> None:
        self._current = None
        if not keep_alive:
            self.transport.close()
        self.on_response_complete()

    def on_response_complete(self) -> None:
        """[HUB-pipelining] The next request in line; uvicorn's own, but idle time is measured without a timer each."""
        if self._taking_turns or self.transport.is_closing():
            return
        cycle: Any = self.cycle
        if self._in_message and self.expect_100_continue and cycle.response_complete:
            # Answered without its body, which may come or not: what comes next cannot be told from it.
            self.transport.close()
            return
        if self.pipeline or self.flow.read_paused:
            self._taking_turns = True
            try:
                self._take_turns()
            finally:
                self._taking_turns = False
            self._read_or_wait()
        if cycle.response_complete and not self.transport.is_closing():
            self._idle_since = self.services.clock.monotonic()
            if self._idle_clock is None:
                self._arm_idle_clock()

    def _read_or_wait(self) -> None:
        """[HUB-slow-caller] No more is read from a caller that has enough in line, or does not take its answers."""
        if len(self.pipeline) >= MAX_LINE or self.flow.write_paused or self._undecided:
            self.flow.pause_reading()
        else:
            self.flow.resume_reading()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._read_or_wait()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read_or_wait()

    def _take_turns(self) -> None:
        """In a loop: those that are answered at once would else deepen the stack, each by the next."""
        while self.pipeline and not self.transport.is_closing():
            cycle: Any
            cycle, app = self.pipeline.pop()
            if not isinstance(cycle, MethodExchange):
                self._start_asgi_task(cycle, app)
                return
            self._current = cycle
            cycle.start()
            if not cycle.response_complete:
                return

    # --- time ----------------------------------------------------------------------------------------------------

    def _run_request_clock(self) -> None:
        """[HUB-request-clock] A request that has begun must be complete within its time, however slowly it drips."""
        if self._request_clock is None and (self._in_message or self._raw_bytes):
            due = self.services.clock.monotonic() + self.services.limits.request_seconds
            self._request_clock = self.services.deadlines.call_at(due, self._request_too_slow)

    def _stop_request_clock(self) -> None:
        if self._request_clock is not None:
            self._request_clock.cancel_deadline()
            self._request_clock = None

    def _stop_clocks(self) -> None:
        self._stop_request_clock()
        if self._idle_clock is not None:
            self._idle_clock.cancel_deadline()
            self._idle_clock = None

    def _request_too_slow(self) -> None:
        if self.flow.read_paused:  # the hub is the slow one
            self._request_clock = None
            self._run_request_clock()
            return
        self._reject(b"408 Request Timeout", "The request took too long to arrive.")

    def _arm_idle_clock(self) -> None:
        due = self._idle_since + self.services.limits.keep_alive
        self._idle_clock = self.services.deadlines.call_at(due, self._check_idle)

    def _check_idle(self) -> None:
        """[HUB-keep-alive] Looked at once per interval; a connection that was used meanwhile waits on."""
        self._idle_clock = None
        busy = self._in_message or not (self.cycle is None or self.cycle.response_complete)
        if busy:
            return  # the end of the response arms it again
        if self.services.clock.monotonic() - self._idle_since >= self.services.limits.keep_alive - 0.2:
            self.transport.close()
        else:
            self._arm_idle_clock()


def origin_form(url: bytes) -> bytes:
    """The target of a request without scheme and authority, where a client sends the absolute form."""
    if url.startswith(b"/"):
        return url
    scheme, separator, rest = url.partition(b"://")
    if not separator or scheme.lower() not in {b"http", b"https"}:
        return url
    slash = rest.find(b"/")
    return rest[slash:] if slash >= 0 else b"/"
