"""The hub as a subject: its command line, its devices and policies through the UNIX socket, its tokens."""

import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tools
from subjects import READY_WITHIN, Device, Running, Subject, end, free_port, log_of, spawn

HOST = "127.0.0.9"
API = "api-version=2021-04-12"
PROTOCOLS = ("mqtt", "amqp", "mqtt-ws", "amqp-ws")
TOKEN_LIFE = 86_400
"""Seconds; longer than any run."""


def default_python() -> str:
    """The project's own environment, if there is one: the hub's dependencies are there."""
    own = tools.ROOT / ".venv" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def hub_command(
    python: str, data: Path, https_port: int, mqtt_port: int, amqp_port: int, tls: bool, in_memory: bool = True
) -> tuple[list[str], dict[str, str]]:
    """How the hub is started: arguments, and what to add to the environment."""
    command = [python, "-m", "methodhub", "serve", "--data-dir", str(data), "--hostname", HOST, "--bind", HOST]
    command += ["--https-port", str(https_port), "--mqtt-port", str(mqtt_port), "--amqp-port", str(amqp_port)]
    if in_memory:
        command.append("--in-memory")
    env = {"PYTHONPATH": str(tools.ROOT / "src")}
    if not tls:
        env["METHODHUB_PLAINTEXT"] = "true"  # every listener without TLS, on loopback only
    return command, env


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> Any:
    text = None if body is None else json.dumps(body)
    connection.request(method, path, text, {"Content-Type": "application/json"} if text else {})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise tools.Missing(f"the hub answered {method} {path} with {answer.status}: {content[:300]!r}")
    return json.loads(content)


def sas_token(resource: str, key: str, policy: str = "") -> str:
    """`wire/service.md` 2.1: the signature is over the resource as it stands in the token."""
    sr, se = urllib.parse.quote(resource, safe=""), int(time.time()) + TOKEN_LIFE
    digest = hmac.new(base64.b64decode(key), f"{sr}\n{se}".encode(), hashlib.sha256).digest()
    signature = urllib.parse.quote(base64.b64encode(digest), safe="")
    return f"SharedAccessSignature sr={sr}&sig={signature}&se={se}" + (f"&skn={policy}" if policy else "")


def ready(port: int, tls: bool) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        if tls:
            context = ssl._create_unverified_context()
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(HOST, port, timeout=2, context=context)
        else:
            connection = http.client.HTTPConnection(HOST, port, timeout=2)
        with contextlib.closing(connection):
            connection.request("GET", "/health/ready")
            return connection.getresponse().status == 200
    return False


def await_ready(process: subprocess.Popen[bytes], port: int, tls: bool) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while not ready(port, tls):
        if process.poll() is not None:
            raise tools.Missing(f"the hub ended with status {process.returncode}:\n{log_of('hub')}")
        if time.monotonic() > deadline:
            raise tools.Missing(f"the hub was not ready within {READY_WITHIN:.0f} s:\n{log_of('hub')}")
        time.sleep(0.002)


def provision(admin: UnixConnection, count: int) -> list[Device]:
    devices = []
    for i in range(count):
        device_id = f"bench-{i:05}"
        identity = ask(admin, "PUT", f"/devices/{device_id}?{API}", {"deviceId": device_id})
        key = identity["authentication"]["symmetricKey"]["primaryKey"]
        token = sas_token(f"{HOST}/devices/{device_id}", key)
        devices.append(Device(device_id, f"{HOST}/{device_id}/?{API}", token))
    return devices


class Hub(Subject):
    host = HOST

    def __init__(self, python: str, protocol: str = "mqtt") -> None:
        """`protocol`: one of PROTOCOLS, what its devices speak."""
        self.python = python
        self.protocol = protocol
        self.name = "hub" if protocol == "mqtt" else f"hub {protocol}"

    @contextlib.contextmanager
    def start(self, tls: bool, devices: int) -> Iterator[Running]:
        with tempfile.TemporaryDirectory(prefix="methodhub-bench-") as place:
            data, https, mqtt, amqp = Path(place), *(free_port(HOST) for _ in range(3))
            process = spawn("hub", *hub_command(self.python, data, https, mqtt, amqp, tls))
            try:
                await_ready(process, https, tls)
                with contextlib.closing(UnixConnection(data / "methodhub.sock")) as admin:
                    policies = {policy["name"]: policy for policy in ask(admin, "GET", "/admin/policies")}
                    known = provision(admin, devices)
                token = sas_token(HOST, policies["service"]["primaryKey"], "service")
                load = ["--header", f"Authorization: {token}"]
                door = {"mqtt": mqtt, "amqp": amqp}.get(self.protocol, https)
                at = (f"{HOST}:{https}", f"{HOST}:{door}")
                yield Running(*at, tls, [process.pid], known, process.pid, load, self.protocol)
            finally:
                end(process)

    def start_times(self, times: int) -> dict[str, list[float]]:
        """Seconds from exec to the first 200 of /health/ready: in memory, a new data directory, the same again."""
        kinds: dict[str, list[float]] = {"in memory": [], "first start": [], "later start": []}
        for _ in range(times):
            with tempfile.TemporaryDirectory(prefix="methodhub-bench-") as memory:
                kinds["in memory"].append(self.start_time(Path(memory), True))
            with tempfile.TemporaryDirectory(prefix="methodhub-bench-") as place:
                kinds["first start"].append(self.start_time(Path(place), False))
                kinds["later start"].append(self.start_time(Path(place), False))
        return kinds

    def start_time(self, data: Path, in_memory: bool) -> float:
        https, mqtt, amqp = (free_port(HOST) for _ in range(3))
        command, env = hub_command(self.python, data, https, mqtt, amqp, True, in_memory)
        begin = time.monotonic()
        process = spawn("hub", command, {**os.environ, **env})
        try:
            await_ready(process, https, True)
            return time.monotonic() - begin
        finally:
            end(process)
