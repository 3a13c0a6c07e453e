"""What is measured: how each server is started, when it is ready, and how the load speaks to it.

Each has one core to itself. Knows nothing of rounds and figures.
"""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import tools

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]
READY_WITHIN = 60.0
"""Seconds that a subject may take to accept connections."""


@dataclass
class Device:
    """One line of the load tool's device file."""

    device_id: str
    user_name: str = "user"
    password: str = "password"


@dataclass
class Running:
    """A server that accepts: where, as which processes, and what the load must say."""

    http: str
    door: str
    """Where the devices connect."""
    tls: bool
    pids: list[int]
    devices: list[Device]
    connections: int
    """PID of the process that holds the device connections."""
    load: list[str] = field(default_factory=list)
    protocol: str = "mqtt"
    """What the devices speak, as the load tool's option names it."""


def spawn(name: str, command: list[str], env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    tools.LOGS.mkdir(parents=True, exist_ok=True)
    with (tools.LOGS / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
            preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),  # noqa: PLW1509 - no threads here
        )


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def log_of(name: str) -> str:
    path = tools.LOGS / f"{name}.log"
    return path.read_text(errors="replace")[-1500:] if path.exists() else ""


def await_port(name: str, process: subprocess.Popen[bytes], host: str, port: int) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise tools.Missing(f"{name} ended with status {process.returncode}:\n{log_of(name)}")
        with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
            return
        time.sleep(0.02)
    raise tools.Missing(f"{name} did not listen on {host}:{port} within {READY_WITHIN:.0f} s:\n{log_of(name)}")


def numbered(count: int) -> list[Device]:
    return [Device(f"bench-{i:05}") for i in range(count)]


class Subject:
    """A server under load. `start` is a context: within it the server accepts."""

    name = ""
    host = "127.0.0.1"

    def prepare(self) -> None:
        """Builds and installs; raises `tools.Missing`."""

    def start(self, tls: bool, devices: int) -> contextlib.AbstractContextManager[Running]:
        raise NotImplementedError


class OneProcess(Subject):
    """Peers that take HTTP and MQTT in one process, told both ports."""

    def command(self, http: int, mqtt: int, tls: bool) -> list[str]:
        raise NotImplementedError

    @contextlib.contextmanager
    def start(self, tls: bool, devices: int) -> Iterator[Running]:
        http, mqtt = free_port(self.host), free_port(self.host)
        process = spawn(self.name, self.command(http, mqtt, tls))
        try:
            await_port(self.name, process, self.host, http)
            await_port(self.name, process, self.host, mqtt)
            at = (f"{self.host}:{http}", f"{self.host}:{mqtt}")
            yield Running(*at, tls, [process.pid], numbered(devices), process.pid)
        finally:
            end(process)


def options(host: str, http: int, mqtt: int, tls: bool) -> list[str]:
    listeners = ["--host", host, "--http-port", str(http), "--mqtt-port", str(mqtt)]
    return listeners + (["--certificate", str(tools.CERTIFICATE), "--key", str(tools.KEY)] if tls else [])


class Ceiling(OneProcess):
    """The least a server can do, in C: shows that the load tool has room above the others."""

    name, host = "ceiling", "127.0.0.10"

    def prepare(self) -> None:
        self.program = tools.ceiling()

    def command(self, http: int, mqtt: int, tls: bool) -> list[str]:
        pair = [str(tools.CERTIFICATE), str(tools.KEY)] if tls else []
        return [str(self.program), f"{self.host}:{http}", f"{self.host}:{mqtt}", *pair]


class Floor(OneProcess):
    name, host = "floor", "127.0.0.11"

    def prepare(self) -> None:
        self.python = tools.peers_python()

    def command(self, http: int, mqtt: int, tls: bool) -> list[str]:
        script = tools.HERE / "peers" / "floor.py"
        return [str(self.python), str(script), *options(self.host, http, mqtt, tls)]


class Node(OneProcess):
    name, host = "node", "127.0.0.12"

    def prepare(self) -> None:
        self.program = tools.node_peer()

    def command(self, http: int, mqtt: int, tls: bool) -> list[str]:
        return [*self.program, *options(self.host, http, mqtt, tls)]


class Python(Subject):
    """FastAPI + aiomqtt in one process, Mosquitto in another; both share the server's core."""

    name, host = "python", "127.0.0.13"

    def prepare(self) -> None:
        self.mosquitto = tools.program("mosquitto", "apt-get install mosquitto")
        self.python = tools.peers_python()

    def configuration(self, plain: int, secure: int) -> Path:
        lines = ["per_listener_settings false", "allow_anonymous true", "persistence false", "log_type error"]
        lines += ["set_tcp_nodelay true", "max_queued_messages 0", f"listener {plain} {self.host}"]
        if secure:
            lines += [f"listener {secure} {self.host}", f"certfile {tools.CERTIFICATE}", f"keyfile {tools.KEY}"]
        path = tools.BUILD / "mosquitto.conf"
        path.write_text("\n".join([*lines, f"user {os.environ.get('USER', 'root')}", ""]))
        return path

    @contextlib.contextmanager
    def start(self, tls: bool, devices: int) -> Iterator[Running]:
        http, plain = free_port(self.host), free_port(self.host)
        mqtt = free_port(self.host) if tls else plain
        script = tools.HERE / "peers" / "python" / "peer.py"
        given = ["--host", self.host, "--http-port", str(http), "--broker-port", str(plain)]
        pair = ["--certificate", str(tools.CERTIFICATE), "--key", str(tools.KEY)] if tls else []
        with contextlib.ExitStack() as stack:
            conf = self.configuration(plain, mqtt if tls else 0)
            broker = spawn("mosquitto", [self.mosquitto, "-c", str(conf)])
            stack.callback(end, broker)
            await_port("mosquitto", broker, self.host, mqtt)
            peer = spawn(self.name, [str(self.python), str(script), *given, *pair])
            stack.callback(end, peer)
            await_port(self.name, peer, self.host, http)
            topics = ["--subscribe", "devices/{d}/methods/POST/#"]
            topics += ["--answer", "devices/{d}/methods/res/200/?$rid="]
            at = (f"{self.host}:{http}", f"{self.host}:{mqtt}")
            yield Running(*at, tls, [peer.pid, broker.pid], numbered(devices), broker.pid, topics)
