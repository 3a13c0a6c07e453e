"""A real NATS server for tests, on a free port of loopback, with credentials that nobody can guess."""

from __future__ import annotations

import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from methodhub.bus.line import Server

CONFIG = """\
listen: "127.0.0.1:{port}"
authorization {{ user: "{user}", password: "{password}" }}
ping_interval: "1s"
ping_max: 3
{more}
"""


class RunningNats:
    """`with RunningNats() as nats:`; `more` is further text of its configuration."""

    def __init__(self, more: str = "") -> None:
        self.user, self.password = "hub", secrets.token_hex(16)
        self.port = -1
        self.more = more
        self._directory = Path(tempfile.mkdtemp(prefix="nats-"))
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"nats://{self.user}:{self.password}@127.0.0.1:{self.port}"

    @property
    def server(self) -> Server:
        return Server("127.0.0.1", self.port, user=self.user, password=self.password)

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None
        return self._process

    def start(self) -> None:
        """Returns when it accepts; on the same port as before."""
        config = self._directory / "nats.conf"
        config.touch(mode=0o600)
        config.write_text(CONFIG.format(port=self.port, user=self.user, password=self.password, more=self.more))
        self._process = subprocess.Popen(
            [Path(sys.executable).with_name("nats-server"), "-c", config], stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr is not None
        lines = []
        for line in self._process.stderr:
            lines.append(line)
            if "Listening for client connections on" in line:
                self.port = int(line.rsplit(":", 1)[1])
            if "Server is ready" in line:
                return
        raise AssertionError("".join(lines))

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(number)
            process.wait()
            assert process.stderr is not None
            process.stderr.close()

    def restart(self) -> None:
        self.end()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        shutil.rmtree(self._directory)


@contextmanager
def pair() -> Iterator[tuple[RunningNats, RunningNats]]:
    """Two servers that are one NATS."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ports = one.getsockname()[1], two.getsockname()[1]
    text = 'cluster {{ name: "pair", listen: "127.0.0.1:{}", routes: ["nats://127.0.0.1:{}"] }}'
    with RunningNats(text.format(*ports)) as first, RunningNats(text.format(*reversed(ports))) as second:
        yield first, second
