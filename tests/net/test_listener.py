"""Binding, its errors, UNIX sockets, and listening on when descriptors run out."""

from __future__ import annotations

import asyncio
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from methodhub.core.deadlines import Deadlines
from methodhub.net.listener import BindError, Listener, PreAuthenticationLimits
from methodhub.net.stream import Peer

from ..clock import ManualClock
from .conftest import Run
from .world import World, receive, send, soon


def test_plain_bytes_both_ways(run: Run) -> None:
    data = bytes(range(256)) * 4_096

    async def main() -> None:
        async with World() as world:
            client = await world.tcp()
            answer, _ = await asyncio.gather(receive(client, len(data)), send(client, data))
            assert answer == data
            stream = (await world.next()).stream
            assert stream.peer == Peer("127.0.0.1")
            assert stream.get_extra_info("sslcontext") is None
            assert stream.received_bytes == len(data)
            inner = stream._inner.get_extra_info("socket")
            assert inner.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    run(main())


def test_a_port_in_use(run: Run) -> None:
    async def main() -> None:
        async with World() as world:
            port = world.listener.addresses[0][1]
            with pytest.raises(
                BindError, match=rf"127\.0\.0\.1:{port}: another program .* 'sport = :{port}'"
            ) as caught:
                await world.listener.bind_tcp("127.0.0.1", port)
            assert caught.value.reason == "in_use"

    run(main())


def test_addresses_that_are_not_this_machines(run: Run) -> None:
    async def main() -> None:
        async with World() as world:
            with pytest.raises(BindError, match=r"192\.0\.2\.7:8883: this machine has no such address") as caught:
                await world.listener.bind_tcp("192.0.2.7", 8883)
            assert caught.value.reason == "not_local"
            with pytest.raises(BindError, match=r"no address is known by that name") as caught:
                await world.listener.bind_tcp("no-such-host.invalid", 8883)
            assert caught.value.reason == "not_local"

    run(main())


def test_a_port_that_needs_a_right(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run with all rights, so the system's answer is made here."""

    def refuse(self: socket.socket, address: object) -> None:
        raise PermissionError(13, "Permission denied")

    async def main() -> None:
        async with World() as world:
            monkeypatch.setattr(socket.socket, "bind", refuse)
            with pytest.raises(BindError, match=r"127\.0\.0\.1:443: permission denied.*port_start=443") as caught:
                await world.listener.bind_tcp("127.0.0.1", 443)
            assert caught.value.reason == "permission"

    run(main())


def test_localhost_takes_one_port_on_each_of_its_addresses(run: Run) -> None:
    async def main() -> None:
        async with World() as world:
            await world.listener.bind_tcp("localhost", 0)
            assert len({port for _, port in world.listener.addresses[1:]}) == 1

    run(main())


def test_unix_socket(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()

    async def main() -> None:
        async with World() as world:
            world.authenticate = False
            await world.listener.bind_unix(path)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            client = socket.socket(socket.AF_UNIX)
            world.sockets.append(client)
            client.connect(str(path))
            await send(client, b"hello")
            assert await receive(client, 5) == b"hello"
            stream = (await world.next()).stream
            assert stream.is_authenticated
            assert stream.peer.address == ""
            with pytest.raises(BindError, match="another process listens there") as caught:
                await world.listener.bind_unix(path)
            assert caught.value.reason == "in_use"
            with pytest.raises(BindError, match="too long"):
                await world.listener.bind_unix(tmp_path / ("x" * 200))
        assert not path.exists()

    run(main())


def test_a_file_that_is_no_socket_is_left_alone(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("keep me")

    async def main() -> None:
        async with World() as world:
            with pytest.raises(BindError, match="not a socket"):
                await world.listener.bind_unix(path)

    run(main())
    assert path.read_text() == "keep me"


def test_stop_accepting_keeps_connections_and_close_all_ends_them(run: Run) -> None:
    async def main() -> None:
        async with World() as world:
            client = await world.tcp()
            protocol = await world.next()
            world.listener.stop_accepting()
            with pytest.raises(ConnectionRefusedError):
                await world.tcp()
            await send(client, b"x")
            assert await receive(client, 1) == b"x"
            world.listener.close_all()
            assert await soon(protocol.lost) is None
            assert await receive(client, 1) == b""
            client.close()
            await asyncio.wait_for(world.listener.wait_closed(), 10)
            assert world.listener.connections == 0

    run(main())


_STARVED = """
import asyncio, resource, socket, sys
import uvloop
from methodhub.core.deadlines import Deadlines
from methodhub.net.listener import Listener, PreAuthenticationLimits

class Clock:
    now = 0.0
    def monotonic(self): return self.now
    wall = monotonic

class Echo(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data): self.transport.write(data)

async def main():
    clock = Clock()
    listener = Listener("starved", lambda s: Echo(), limits=PreAuthenticationLimits(), deadlines=Deadlines(0.0),
                        clock=clock, tls=None)
    await listener.bind_tcp("127.0.0.1", 0)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    print(listener.addresses[0][1], flush=True)
    while line := await lines.readline():
        resource.setrlimit(resource.RLIMIT_NOFILE, (3 if line == b"starve\\n" else soft, hard))
        print("done", flush=True)

{run}(main())
"""


@pytest.mark.parametrize("loop", ["uvloop.run", "asyncio.run"])
def test_listening_on_after_the_process_ran_out_of_descriptors(loop: str) -> None:
    code = _STARVED.replace("{run}", loop)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None

        def tell(word: str) -> None:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(word + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"

        address = ("127.0.0.1", int(process.stdout.readline()))
        tell("starve")
        with socket.create_connection(address, 10):  # the kernel takes it, the process cannot
            tell("starve")
            tell("feed")
            with socket.create_connection(address, 10) as client:
                client.sendall(b"x")
                assert client.recv(1) == b"x"
        process.stdin.close()


def test_the_budget_defaults_to_the_limit_of_open_files() -> None:
    clock = ManualClock()
    listener = Listener(
        "test",
        lambda stream: asyncio.Protocol(),
        limits=PreAuthenticationLimits(),
        deadlines=Deadlines(clock.monotonic()),
        clock=clock,
        tls=None,
    )
    assert listener.admission._budget.limit > 0
    assert listener.connections == 0
