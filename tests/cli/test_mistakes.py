"""What is typed by mistake does no harm, and is told as what it is."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from methodhub.cli.app import main
from methodhub.cli.exit_codes import ExitCode
from methodhub.process import DataDirectory

from .conftest import World, WorldMaker


@pytest.mark.parametrize(
    "line",
    [
        "module delete d1 ?",
        "module show d1 ?",
        "module create d1 ?",
        "module regenerate-keys d1 ?",
        "device show ?",
        "device delete ?",
        "device enable ?",
        "twin show d1 --module ?",
        "connection-string --device d1 --module ?",
        "connection-string --policy ?",
        "sas-token --device ?",
        "invoke d1 ?",
        "invoke d1 m --module ?",
        "policy show ?",
        "job show ?",
    ],
)
def test_an_id_that_is_empty_is_a_problem_of_usage(world: World, line: str) -> None:
    """A script whose variable is not set, such as in `module delete DEVICE $MODULE`, deleted the device."""
    world("device", "create", "d1")
    result = world(*(word.replace("?", "") for word in line.split()))
    assert (result.code, result.out) == (ExitCode.USAGE, "")
    assert "it is empty" in result.err
    assert world("device", "show", "d1").code == 0


def test_a_directory_of_others_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """[HUB-file-modes]"""
    (tmp_path / "letter.txt").write_text("dear")
    tmp_path.chmod(0o755)
    assert main(["device", "list", "--data-dir", str(tmp_path)]) == ExitCode.NO_HUB
    assert "neither empty nor a hub's" in capsys.readouterr().err
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert [entry.name for entry in tmp_path.iterdir()] == ["letter.txt"]


def test_a_directory_that_is_made_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for told in (True, False):
        assert main(["device", "list", "--data-dir", str(tmp_path / "new")]) == 0
        assert ("was not there" in capsys.readouterr().err) is told


def test_two_commands_at_once_wait_for_each_other(make_world: WorldMaker) -> None:
    with make_world("real data") as world:
        directory = DataDirectory(world.data_dir)
        timer = threading.Timer(0.3, directory.release)
        timer.start()
        assert world("device", "create", "d1").code == 0
        timer.join()


def test_a_disk_that_is_full_is_not_the_databases_fault(make_world: WorldMaker) -> None:
    with make_world("real data") as world:
        world("device", "create", "d1")
        command = [sys.executable, "-m", "methodhub", "export", "-", "--data-dir", str(world.data_dir)]
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode == ExitCode.REFUSED
        assert done.stderr == "methodhub: cannot write -: No space left on device\n"


def test_a_reader_that_has_seen_enough_is_no_failure(make_world: WorldMaker) -> None:
    with make_world("real data") as world:
        command = [sys.executable, "-m", "methodhub", "policy", "list", "--data-dir", str(world.data_dir)]
        assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
            assert program.stdout is not None and program.stderr is not None
            program.stdout.close()
            assert program.stderr.read() == ""
        assert program.returncode == 0


def test_results_of_no_job_are_no_results(world: World) -> None:
    assert world("job", "results", "nope").code == ExitCode.NOT_FOUND
