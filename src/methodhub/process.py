"""What a hub asks of the process it runs in: a lock on its directory, open files, a calm collector; and what there is
to tell of its start. Knows no other room."""

from __future__ import annotations

import fcntl
import gc
import os
import resource
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

LOCK_NAME = "methodhub.lock"
OWN = {LOCK_NAME, "methodhub.db", "ca.pem", "ca-key.pem"}
"""By one of these a directory is known as a hub's."""
FOREIGN = {"lost+found"}
"""What the root of a volume holds that nobody has used. What a login leaves, and an export, are no objection either."""


def on_socket(path: Path) -> httpx.AsyncHTTPTransport:
    """HTTP on a UNIX socket, without TLS: httpx would load the system's authorities for it all the same, which takes
    longer than what is asked."""
    import ssl  # noqa: PLC0415 - not every command asks a hub

    import httpx  # noqa: PLC0415

    return httpx.AsyncHTTPTransport(uds=str(path), verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


class StartError(Exception):
    """The hub cannot start. The message is whole: what, why and what to do."""


@dataclass(frozen=True, slots=True)
class ReadyFacts:
    """What there is to tell when every listener accepts."""

    hostname: str
    https_port: int
    mqtt_port: int
    amqp_port: int | None
    """None where Proton is not installed."""
    data_dir: Path
    in_memory: bool
    ca_file: Path
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Worker:
    """One of several processes that share a hub's ports and data; the one that started them holds the lock."""

    number: int
    nats_url: str = field(repr=False)


class InUse(StartError):
    """Another process holds the data directory."""


class DataDirectory:
    """The directory and its lock, held until `release`. Raises StartError, InUse.

    [HUB-file-modes] It is for its owner alone. A directory that holds other things is not taken: a wrong path, such as
    that of a home, would be closed to everybody else.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            names = {entry.name for entry in path.iterdir()}
            held = {name for name in names - FOREIGN if not name.startswith(".") and not name.endswith(".jsonl")}
            if held and not names & OWN:
                raise StartError(
                    f"The data directory {path} is neither empty nor a hub's. Choose another with --data-dir."
                )
            path.chmod(0o700)
            self._lock = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StartError(
                f"The data directory {path} cannot be used: {error.strerror}. Choose another with --data-dir."
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise InUse(
                f"The data directory {path} is in use by another hub or command. Stop that one, or give this one its "
                "own directory with --data-dir."
            ) from None

    def release(self) -> None:
        os.close(self._lock)


def raise_file_limit() -> None:
    """As many open files as this user may have: each device is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def calm_the_collector() -> None:
    """What lives for as long as a connection is not looked at again and again: the hub makes no garbage cycles of its
    own per call, and the default threshold costs one part in fifteen of a call's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 50)
