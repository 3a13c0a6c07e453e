"""The code of the newest kept version, as its commit has it."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERSIONS = sorted(path.parent for path in Path(__file__).parent.glob("*/COMMIT"))


def unpack(goal: Path) -> Path:
    """The folder to put on PYTHONPATH. Skips the test where the history is not there."""
    return unpack_commit((VERSIONS[-1] / "COMMIT").read_text().strip(), goal)


def unpack_commit(commit: str, goal: Path) -> Path:
    done = subprocess.run(["git", "archive", commit, "src"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"commit {commit} is not in this copy: {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(goal, filter="data")
    return goal / "src"
