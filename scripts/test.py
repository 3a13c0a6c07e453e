"""Run all checks and tests in turn and say how each went. `--verify` adds scale, failures and reconnect loops;
`--only-checks` leaves the tests out."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""With compiled files kept: the tests start some hundred processes, each of which would compile all of it anew."""

CHECKS = [
    ("format", [BIN / "ruff", "format", "--check", "--quiet", "."]),
    ("lint", [BIN / "ruff", "check", "--quiet", "."]),
    ("types", [BIN / "mypy"]),
]
WORKERS = 2 * (os.cpu_count() or 1)
"""Tests wait for the devices, hubs and Node programs that they start about half of their time."""
TESTS = [("tests", [sys.executable, "-m", "pytest", f"-n{WORKERS}", "--dist", "worksteal", "-m", "not verify"])]
VERIFY = [("verify", [sys.executable, "-m", "pytest", "-m", "verify"])]


def main(arguments: list[str]) -> int:
    steps = list(CHECKS)
    if "--only-checks" not in arguments:
        steps += TESTS
    if "--verify" in arguments:
        steps += VERIFY
    failed = []
    for name, command in steps:
        print(f"== {name}", flush=True)
        start = time.monotonic()
        code = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=False).returncode
        print(f"== {name}: {'ok' if code == 0 else f'FAILED ({code})'} in {time.monotonic() - start:.1f} s", flush=True)
        if code:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
