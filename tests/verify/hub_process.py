"""A hub in a process of its own, as an operator runs it: started, killed, paused, and asked how it is."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
import ssl
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import httpx

from methodhub.core.identity import Authentication, Identity, Target
from methodhub.iothub.sas import build_token
from methodhub.server import DATABASE_NAME
from methodhub.store.database import open_database
from methodhub.store.rows import row_of
from methodhub.store.tables import identities
from tests.harness import PATIENCE, Program, administrator, new_address

KEY = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA=="
"""Of every device that these tests make."""


class HubProcess:
    """`flags` go to `serve`; `files`: its limit of open files; `env`: what a process list must not show. A node of many
    has its own `address` and answers to the `hostnames` of all. `with` starts it, and ends what still runs."""

    def __init__(
        self,
        data_dir: Path,
        *flags: str,
        files: int = 0,
        address: str = "",
        hostnames: Iterable[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir
        self.address = address or new_address()
        self._hostnames = [*hostnames] or [self.address]
        self._flags = flags
        self._files = files
        self._env = env
        self._program: Program | None = None
        self.https_port = self.mqtt_port = 0
        self.tls: ssl.SSLContext
        self._policies: dict[str, str] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._program is not None:
            self._program.__exit__()

    def start(self) -> None:
        """Returns when it is ready."""
        command = [sys.executable, "-m", "methodhub", "serve", "--json", "--data-dir", str(self.data_dir)]
        command += [part for name in self._hostnames for part in ("--hostname", name)]
        command += ["--bind", self.address, "--log-level", "warning", *self._flags]
        if self._files:
            command = ["sh", "-c", f'ulimit -n {self._files}; exec "$@"', "sh", *command]
        self._program = Program(command, self._env)
        facts = json.loads(self._program.expect('"ready"'))
        self.https_port, self.mqtt_port = facts["httpsPort"], facts["mqttPort"]
        self.tls = ssl.create_default_context(cafile=facts["caFile"])
        with self.admin() as client:
            self._policies = {each["name"]: each["primaryKey"] for each in client.get("/admin/policies").json()}

    @property
    def pid(self) -> int:
        assert self._program is not None
        return self._program.process.pid

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def ended(self) -> int:
        """Wait for its end: the exit code."""
        assert self._program is not None
        code = self._program.wait()
        self._program.__exit__()
        return code

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.ended() == -signal.SIGKILL

    def terminate(self) -> int:
        self.signal(signal.SIGTERM)
        return self.ended()

    # --- asking it -----------------------------------------------------------------------------------------------

    def admin(self) -> httpx.Client:
        return administrator(self.data_dir)

    def metric(self, name: str) -> float:
        with self.admin() as client:
            lines = client.get("/metrics").text.splitlines()
        found = [line.rpartition(" ")[2] for line in lines if re.match(rf"methodhub_{name}[ {{]", line)]
        assert found, f"no metric {name}"
        return sum(map(float, found))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Another process has no events for us: look again and again."""
        limit = time.monotonic() + PATIENCE
        while not await asyncio.to_thread(condition):
            assert time.monotonic() < limit, "what the test waits for did not happen"
            await asyncio.sleep(0.02)

    def memory(self) -> int:
        """Bytes of memory that are its own."""
        lines = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))

    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def limit(self, kind: int, soft: int) -> None:
        """Change a resource limit while it runs."""
        _, hard = resource.prlimit(self.pid, kind)
        resource.prlimit(self.pid, kind, (soft, hard))

    # --- credentials ---------------------------------------------------------------------------------------------

    def create(self, *device_ids: str) -> None:
        with self.admin() as client:
            for device_id in device_ids:
                client.put(f"/devices/{device_id}", json=device_body(device_id)).raise_for_status()

    def token(self, policy: str = "service") -> str:
        return build_token(self.address, self._policies[policy], int(time.time()) + 3600, policy)

    def device_token(self, device_id: str) -> str:
        return build_token(f"{self.address}/devices/{device_id}", KEY, int(time.time()) + 3600)

    def user_name(self, device_id: str) -> str:
        return f"{self.address}/{device_id}/?api-version=2021-04-12"


def device_body(device_id: str, **more: Any) -> dict[str, Any]:
    key = {"primaryKey": KEY, "secondaryKey": KEY}
    return {"deviceId": device_id, "authentication": {"type": "sas", "symmetricKey": key}, **more}


async def _fill(path: Path, device_ids: Iterable[str]) -> None:
    authentication = Authentication(primary_key=KEY, secondary_key=KEY)
    rows = [row_of(Identity(Target(each), "1", "e", authentication)) for each in device_ids]
    database = await open_database(path)
    try:
        await database.execute(identities.insert(), rows)
    finally:
        await database.close()


def fill(data_dir: Path, device_ids: Iterable[str]) -> None:
    """Write many devices at once into the data of a hub that does not run."""
    data_dir.mkdir(mode=0o700, exist_ok=True)
    asyncio.run(_fill(data_dir / DATABASE_NAME, device_ids))
