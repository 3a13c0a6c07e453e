"""Builds what a run needs below `benchmarks/build/`, and says which line to type for what is missing.

Knows compilers and package managers; not what is measured.
"""

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = HERE / "build"
LOGS = BUILD / "logs"
CERTIFICATE, KEY = BUILD / "certificate.pem", BUILD / "key.pem"


class Missing(Exception):
    """The machine lacks something; the text says what, and the line to type."""


def program(name: str, line: str) -> str:
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if not path:
        raise Missing(f"{name} is missing; type: {line}")
    return path


def run(command: list[str], cwd: Path = ROOT, hint: str = "") -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"`{' '.join(command)}` failed{hint}:\n{done.stdout[-1500:]}{done.stderr[-1500:]}")


def newer(target: Path, *sources: Path) -> bool:
    return target.exists() and all(target.stat().st_mtime > source.stat().st_mtime for source in sources)


def compiled(name: str, *sources: str) -> Path:
    """The C program `name`, built anew when a source is newer."""
    target, files = BUILD / name, [HERE / "load" / f"{source}.c" for source in sources]
    if newer(target, *files, *(HERE / "load").glob("*.h")):
        return target
    BUILD.mkdir(exist_ok=True)
    cc = program("cc", "apt-get install gcc libc6-dev libssl-dev")
    flags = ["-O2", "-g", "-std=gnu11", "-Wall", "-Wextra"]
    command = [cc, *flags, "-o", str(target), *map(str, files), "-lssl", "-lcrypto"]
    run(command, hint=" (if openssl/ssl.h is missing, type: apt-get install libssl-dev)")
    return target


def load_tool() -> Path:
    return compiled("load", "load", "callers", "devices", "mqtt", "amqp", "websocket", "stream")


def ceiling() -> Path:
    return compiled("ceiling", "ceiling", "stream")


def certificate() -> None:
    """A P-256 key and a self-signed certificate for the peers; the hub makes its own."""
    if newer(CERTIFICATE, Path(__file__)):
        return
    BUILD.mkdir(exist_ok=True)
    openssl = program("openssl", "apt-get install openssl")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-keyout", str(KEY), "-out", str(CERTIFICATE)]
    run([openssl, "req", "-x509", *curve, *files, "-days", "3650", "-subj", "/CN=127.0.0.1"])


def peers_python() -> Path:
    """The interpreter of the floor and of the Python peer."""
    wanted, stamp = HERE / "peers" / "python" / "requirements.txt", BUILD / "venv" / "installed"
    python = BUILD / "venv" / "bin" / "python"
    if newer(stamp, wanted):
        return python
    run([sys.executable, "-m", "venv", str(BUILD / "venv")], hint=" (type: apt-get install python3-venv)")
    run([str(python), "-m", "pip", "install", "--quiet", "-r", str(wanted)])
    stamp.touch()
    return python


def node_peer() -> list[str]:
    node = program("node", "apt-get install nodejs npm   # Node 20 or newer")
    npm = program("npm", "apt-get install npm")
    source, place = HERE / "peers" / "node", BUILD / "node"
    stamp = place / "installed"
    place.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / "peer.js", place)
    if not newer(stamp, source / "package.json"):
        shutil.copy(source / "package.json", place)
        run([npm, "install", "--no-package-lock", "--no-audit", "--no-fund"], cwd=place)
        stamp.touch()
    return [node, str(place / "peer.js")]
