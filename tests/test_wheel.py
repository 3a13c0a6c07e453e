"""The wheel holds what a user needs: all modules, the migrations, the types' marker and the command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

import methodhub

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy: nothing is left in the tree."""
    place = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, place)
    shutil.copytree(ROOT / "src", place / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel"],
        cwd=place,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    [file] = (place / "dist").glob("*.whl")
    return zipfile.ZipFile(file)


def test_it_is_named_by_the_version(wheel: zipfile.ZipFile) -> None:
    assert Path(str(wheel.filename)).name == f"methodhub-{methodhub.__version__}-py3-none-any.whl"


def test_it_holds_every_file_of_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    source = Path(str(wheel.filename)).parents[1] / "src"
    ours = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == ours
    assert "methodhub/py.typed" in held
    assert any(name.startswith("methodhub/store/migrations/versions/v0001") for name in held)
    assert "methodhub/store/migrations/env.py" in held


def test_it_installs_the_command(wheel: zipfile.ZipFile) -> None:
    [name] = [each for each in wheel.namelist() if each.endswith(".dist-info/entry_points.txt")]
    points = ConfigParser()
    points.read_string(wheel.read(name).decode())
    assert dict(points["console_scripts"]) == {"methodhub": "methodhub.cli.app:main"}


def test_it_asks_for_what_the_hub_runs_on(wheel: zipfile.ZipFile) -> None:
    [name] = [each for each in wheel.namelist() if each.endswith(".dist-info/METADATA")]
    metadata = wheel.read(name).decode()
    assert "Requires-Python: >=3.11" in metadata
    assert "Requires-Dist: uvloop" in metadata
