"""The tutorial about a whole fleet: its commands are typed, in their order, and print what the page shows. With fewer
meters, and less patience for those that are away, except with `-m verify`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Program, new_address

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorials" / "fleet.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
WRITTEN = 50_000
"""Meters of the page."""

pytestmark = pytest.mark.skipif(not (BIN / "methodhub").exists(), reason="MethodHub is not installed here")


def steps() -> Iterator[tuple[str, str]]:
    """Each block of commands, and what the page shows for it."""
    blocks = re.findall(r"^```(sh|text)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    for index, (kind, text) in enumerate(blocks):
        if kind == "sh":
            after = blocks[index + 1] if index + 1 < len(blocks) else ("sh", "")
            yield text, after[1] if after[0] == "text" else ""


def scaled(shown: str, count: int) -> list[list[str]]:
    """The words of what is shown, with the numbers of so many meters; lines about one meter stay."""

    def scale(found: re.Match[str]) -> str:
        share = int(found[0]) * count
        assert share % WRITTEN == 0, found[0]
        return str(share // WRITTEN)

    lines = [line if "meter-" in line else re.sub(r"\b[1-9]\d{2,}\b", scale, line) for line in shown.splitlines()]
    return [line.split() for line in lines]


class Terminal:
    """A person's: stdout is a terminal, so tables have their headings. Long-running programs go on."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        self.env = {**os.environ, **env, "TERM": "dumb", "COLUMNS": "200"}
        self.running: list[Program] = []

    def type(self, text: str) -> str:
        if text.startswith("methodhub serve"):
            self.start(text, "MethodHub is ready")
            return ""
        if "fleet.py" in text:
            return self.start(text, "meters are connected")
        ours, theirs = os.openpty()
        shell = subprocess.Popen(["/bin/sh", "-c", text], stdout=theirs, stderr=2, cwd=self.folder, env=self.env)
        os.close(theirs)
        parts = []
        while part := self.read(ours):
            parts.append(part)
        os.close(ours)
        assert shell.wait(60) in {0, 8}, text
        return b"".join(parts).decode()

    def read(self, terminal: int) -> bytes:
        try:
            return os.read(terminal, 65_536)
        except OSError:  # how a terminal ends whose other side is closed
            return b""

    def start(self, text: str, ready: str) -> str:
        program = Program(["/bin/sh", "-c", self.exec_last(text)], self.env, self.folder)
        self.running.append(program)
        return program.expect(ready, patience=120)

    def exec_last(self, text: str) -> str:
        """So that a signal reaches the program and not only its shell."""
        *before, last = text.strip().splitlines()
        return "\n".join([*before, f"exec {last}"])

    def close(self) -> None:
        for program in reversed(self.running):
            program.process.terminate()
            program.wait()
            program.__exit__()


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    address = new_address()
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / ".venv").symlink_to(BIN.parent)
    opened = Terminal(
        tmp_path,
        {
            "METHODHUB_DATA_DIR": str(tmp_path / "data"),
            "METHODHUB_HOSTNAME": address,
            "METHODHUB_BIND": address,
            "METHODHUB_LOG_LEVEL": "error",
            "PATH": f"{BIN}:{os.environ['PATH']}",
        },
    )
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("count", "patience"), [(2_000, 6), pytest.param(WRITTEN, 30, marks=pytest.mark.verify)], ids=["few", "all"]
)
def test_what_is_typed_prints_what_is_shown(terminal: Terminal, count: int, patience: int) -> None:
    done = 0
    for text, shown in steps():
        typed = text.replace(str(WRITTEN), str(count)).replace("--for 30", f"--for {patience}")
        printed = terminal.type(typed)
        if shown:
            assert [line.split() for line in printed.splitlines()] == scaled(shown, count), typed
        done += 1
    assert done >= 15
