"""`docs/how-to/rotate-keys.md`: its lines work in their order on a running hub; who follows it is never refused."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from methodhub.cli.app import main
from methodhub.iothub.sas import build_token
from tests.harness import RunningHub
from tests.hub.peers import Caller

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "rotate-keys.md"
LINES = "\n".join(re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))


def key_of(output: str) -> str:
    return output.strip().rpartition("SharedAccessKey=")[2]


def status(hub: RunningHub, key: str) -> int:
    with Caller(hub, "") as caller:
        caller.token = build_token(hub.address, key, int(hub.hub.clock.wall()) + 3600, "service")
        return caller.ask("GET", "/jobs").status


def test_the_lines_of_the_page(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("METHODHUB_DATA_DIR", str(hub.settings.data_dir))
    policy = hub.hub.policies.get("service")
    assert policy is not None
    key, seen = policy.primary_key, []
    for line in filter(None, LINES.splitlines()):
        program, *arguments = shlex.split(line)
        assert (program, main(arguments)) == ("methodhub", 0), line
        output = capsys.readouterr().out
        if arguments[:3] == ["connection-string", "--policy", "service"]:
            key = key_of(output)  # the back end is given the new key
        seen.append(status(hub, key))
    assert set(seen) == {200}
    assert status(hub, policy.primary_key) == status(hub, policy.secondary_key) == 401
    changed = hub.hub.policies.get("service")
    assert changed is not None and changed.primary_key == key, "back ends are back at the primary key"
