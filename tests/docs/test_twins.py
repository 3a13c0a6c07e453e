"""The how-to about twins: its commands work as they stand, and end as it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import RunningHub

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "twins.md"
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.skipif(
    not (BIN / "methodhub").exists(), reason="MethodHub is not installed here, as `make` does it"
)


def test_its_commands_work(hub: RunningHub) -> None:
    commands = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL))
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "METHODHUB_DATA_DIR": str(hub.settings.data_dir)}
    ran = subprocess.run(["/bin/sh", "-ec", commands], check=False, env=env, text=True, capture_output=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.rstrip().endswith("somebody was faster")
    with hub.service() as client:
        twin = client.get("/twins/thermostat-7").json()
    assert twin["tags"] == {"site": "north", "row": 4}
    assert twin["properties"]["desired"]["interval"] == 30
