"""Listening sockets: bind with errors that say what to do, accept, and hand each connection on as a stream. Knows
neither HTTP nor MQTT."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from methodhub.core.clock import Clock
from methodhub.core.deadlines import Deadlines
from methodhub.net.admission import Admission, Admitted, PreAuthenticationLimits, SocketBudget
from methodhub.net.proxy import Network, ProxyPrelude
from methodhub.net.stream import PlainStream, Stream
from methodhub.net.tls import TlsContextHolder
from methodhub.net.tls_stream import TlsStream

__all__ = ["BindError", "Listener", "PreAuthenticationLimits", "SocketBudget"]

BACKLOG = 4_096
Reason = Literal["permission", "in_use", "not_local", "other"]


class BindError(Exception):
    """The text names the address, the reason and what to do; `reason` is for programs."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason: Reason = reason


def _bind_error(name: str, where: str, port: int, error: OSError) -> BindError:
    start = f"{name} cannot listen on {where}"
    match error.errno:
        case errno.EACCES | errno.EPERM:
            return BindError(
                "permission",
                f"{start}: permission denied. Ports below 1024 need a right: grant it with "
                f"`sudo sysctl net.ipv4.ip_unprivileged_port_start={port}`, or choose a port above 1023.",
            )
        case errno.EADDRINUSE:
            return BindError(
                "in_use",
                f"{start}: another program listens there. `ss -ltnp 'sport = :{port}'` shows which; "
                "stop it or choose another port.",
            )
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            return BindError(
                "not_local",
                f"{start}: this machine has no such address. `ip address` lists those it has; "
                "0.0.0.0 and :: stand for all of them.",
            )
    return BindError("other", f"{start}: {error.strerror or error}.")


class Listener:
    """Accepts on any number of addresses and gives each connection a protocol from `protocol_factory`, on TLS after
    the handshake. All times are in seconds of `clock.monotonic`; `deadlines` must be run by the caller.

    `shares_ports`: with other processes of this user, among which the kernel spreads connections.
    `proxies`: networks of the load balancers that put a PROXY header in front of each TCP connection.
    `budget` is shared by the listeners of a process; without one, the listener takes the process's limit for its own.
    """

    def __init__(
        self,
        name: str,
        protocol_factory: Callable[[Stream], asyncio.Protocol],
        *,
        limits: PreAuthenticationLimits,
        deadlines: Deadlines,
        clock: Clock,
        tls: TlsContextHolder | None,
        budget: SocketBudget | None = None,
        proxies: Sequence[Network] = (),
        shares_ports: bool = False,
    ) -> None:
        self.name = name
        self.addresses: list[tuple[str, int]] = []
        budget = budget or SocketBudget.of_process()
        self.admission = Admission(name, limits, deadlines, clock, budget)
        self._trusted = Admission(name, limits, deadlines, clock, budget, trusted=True)
        self._factory = protocol_factory
        self._tls = tls
        self._proxies = proxies
        self._shares_ports = shares_ports
        self._servers: list[asyncio.Server] = []
        self._paths: list[Path] = []

    @property
    def connections(self) -> int:
        return len(self.admission.streams) + len(self._trusted.streams)

    async def bind_tcp(self, host: str, port: int) -> None:
        """Listen on each address that `host` stands for; port 0 takes a free one (see `addresses`).

        Raises BindError. A name that stands for several addresses is bound if one of them can be.
        """
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except OSError as error:
            text = f"{self.name} cannot listen on {where}: no address is known by that name ({error.strerror})."
            raise BindError("not_local", text) from error
        failures: list[OSError] = []
        bound = 0
        for family, _, _, _, address in dict.fromkeys(found):
            if bound and port == 0:
                port = self.addresses[-1][1]
            try:
                listening = _bind_inet(family, (address[0], port, *address[2:]), shared=self._shares_ports)
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise _bind_error(self.name, where, port, error) from error
                failures.append(error)
                continue
            bound += 1
            self.addresses.append(listening.getsockname()[:2])
            self._servers.append(await loop.create_server(self._accepted, sock=listening, backlog=BACKLOG))
        if not bound:
            raise _bind_error(self.name, where, port, failures[0]) from failures[0]

    async def bind_unix(self, path: Path | str) -> None:
        """Listen on a socket file of mode 0600. Who may open it is authenticated: its streams start so.

        A file that a dead process left is replaced. Raises BindError.
        """
        path = Path(path)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _unlink_stale(path)
            os.fchmod(listening.fileno(), 0o600)  # on Linux the file is born with this mode
            listening.bind(str(path))
            path.chmod(0o600)
            listening.listen(BACKLOG)
            listening.setblocking(False)
        except OSError as error:
            listening.close()
            if error.errno == errno.EADDRINUSE:
                text = f"{self.name} cannot listen on {path}: another process listens there, or it is not a socket."
                raise BindError("in_use", text) from error
            reason: Reason = "permission" if error.errno in (errno.EACCES, errno.EPERM) else "other"
            raise BindError(reason, f"{self.name} cannot listen on {path}: {error.strerror or error}.") from error
        self._paths.append(path)
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_unix_server(self._trusted_stream, sock=listening, backlog=BACKLOG))

    def _accepted(self) -> asyncio.Protocol:
        return ProxyPrelude(self.admission, self._proxies, self._stream) if self._proxies else self._stream()

    def _stream(self) -> Stream:
        if self._tls is None:
            return PlainStream(self.admission, self._factory)
        return TlsStream(self.admission, self._factory, self._tls)

    def _trusted_stream(self) -> Stream:
        return PlainStream(self._trusted, self._factory)

    def stop_accepting(self) -> None:
        """Close the listening sockets; connections stay. Idempotent."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        for path in self._paths:
            path.unlink(missing_ok=True)
        self._paths.clear()

    async def wait_closed(self) -> None:
        """Until no connection is left. After `close_all` that takes at most the grace of a close."""
        await self.admission.wait_empty()
        await self._trusted.wait_empty()

    def close_all(self) -> None:
        """Close each connection in order: what was written is sent, for a bounded time."""
        for stream in self._streams():
            stream.close() if isinstance(stream, Stream) else stream.abort()

    def abort_all(self) -> None:
        for stream in self._streams():
            stream.abort()

    def _streams(self) -> list[Admitted]:
        return [stream for admission in (self.admission, self._trusted) for stream in admission.streams]


def _bind_inet(family: int, address: tuple[object, ...], *, shared: bool) -> socket.socket:
    # The protocol is named, or asyncio would not set TCP_NODELAY on what it accepts.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        listening.listen(BACKLOG)  # here, so that a port in use is told with its address
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def _unlink_stale(path: Path) -> None:
    """Remove a socket file that nobody listens on. Raises OSError(EADDRINUSE) if someone does, or it is no socket."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISSOCK(mode):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
                return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def check_free(name: str, host: str, port: int) -> None:
    """Whether nobody listens there: processes that share their ports would share them with another hub, too. Raises
    BindError."""
    for family, _, _, _, address in dict.fromkeys(
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    ):
        try:
            _bind_inet(family, address, shared=False).close()
        except OSError as error:
            raise _bind_error(name, f"{host}:{port}", port, error) from error
