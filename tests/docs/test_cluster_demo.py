"""`make cluster`, but for the installation: three nodes, and the lines that it prints to copy work."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import Program, new_address

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).parent / "methodhub"

pytestmark = pytest.mark.skipif(not COMMAND.exists(), reason="MethodHub is not installed here, as `make` does it")


def typed(line: str) -> str:
    return subprocess.run(["/bin/sh", "-c", line], check=True, text=True, capture_output=True).stdout


def test_what_make_cluster_prints_works(tmp_path: Path) -> None:
    env = {"DEMO_ADDRESSES": " ".join(new_address() for _ in range(3)), "TMPDIR": "/tmp"}
    with Program([sys.executable, str(ROOT / "examples" / "demo" / "cluster.py")], env) as demo:
        demo.expect("Ctrl-C ends all of it.", 60)
        text = "\n".join(demo.lines)
        invoke = next(line for line in demo.lines if " invoke demo-device reboot " in line)
        curl = text[text.index("  curl ") : text.index("Ctrl-C ends")]
        answer = {"method": "reboot", "received": {"delay": 5}}
        status, payload = typed(invoke).splitlines()
        assert status == "status: 200"
        assert json.loads(payload.removeprefix("payload: ")) == answer
        assert json.loads(typed(curl)) == {"status": 200, "payload": answer}
        place = Path(invoke.rpartition("--data-dir ")[2]).parent
        assert place.is_dir()
        demo.process.send_signal(signal.SIGTERM)
        assert demo.wait() == 0
        assert not place.exists()
