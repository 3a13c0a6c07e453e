"""The command as a whole: help, version, exit codes, errors, `ca` and the way to the hub."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from starlette.responses import PlainTextResponse

from methodhub import __version__
from methodhub.cli import app as command
from methodhub.cli.app import main
from methodhub.cli.exit_codes import EXIT_MEANINGS, ExitCode
from methodhub.cli.serve import SettingsCommand
from methodhub.config import Settings
from methodhub.process import DataDirectory

from .conftest import World, WorldMaker


def verbs(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every verb with its words."""
    for name, member in group.commands.items():
        if hasattr(member, "commands"):
            yield from verbs(member, (*path, name))
        else:
            yield (*path, name), member


VERBS = dict(verbs(typer.main.get_command(command.app)))


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_every_verb_has_help_with_an_example_json_and_a_data_directory(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main([*path, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Example: methodhub {' '.join(path)}" in text
    for option in ("--json", "--data-dir"):
        assert option in text
    verb = VERBS[path]
    if isinstance(verb, SettingsCommand):
        verb.describe()
    assert [parameter.name for parameter in verb.params if not parameter.help] == [], "without a word of help"


def test_help_of_serve_comes_from_the_table_of_settings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    main(["serve", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    flags = {parameter.name for parameter in VERBS["serve",].params}
    for name, field in Settings.model_fields.items():
        if name in flags:
            assert field.description is not None
            assert field.description in text
        else:
            assert name in text


def test_help_is_there_before_anything_slow() -> None:
    slow = (
        "pydantic",
        "httpx",
        "sqlalchemy",
        "uvicorn",
        "structlog",
        "asyncio",
        "methodhub.server",
        "methodhub.config",
    )
    script = (
        "import sys; from methodhub.cli.app import main; main(['--help']);"
        f"print([name for name in {slow} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "connection-string" in done.stdout


def test_python_dash_m_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "methodhub", "nonsense"], capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.USAGE
    assert done.stderr.startswith("methodhub: No such command 'nonsense'")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["version"], ["--version"]):
        assert main(arguments) == 0
        assert capsys.readouterr().out == f"methodhub {__version__}\n"
    main(["version", "--json"])
    assert json.loads(capsys.readouterr().out) == {"version": __version__}


def test_every_exit_code_has_a_meaning() -> None:
    assert set(EXIT_MEANINGS) == set(ExitCode)


@pytest.mark.parametrize(
    "arguments",
    [["device", "show"], ["device", "create", "d", "--nope"], ["invoke", "d", "m", "--response-timeout", "x"]],
)
def test_a_wrong_command_line_is_one_line_and_where_to_read(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert "--help)" in captured.err


def test_a_group_alone_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["device"]) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert "regenerate-keys" in captured.out + captured.err


def test_what_nobody_foresaw_is_a_line_without_secrets(fake_hub_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("with SharedAccessKey=c2VjcmV0\nand a second line")

    monkeypatch.setattr("methodhub.cli.identities.run", fail)
    result = fake_hub_world("device", "show", "d1")
    assert result.code == ExitCode.UNEXPECTED
    assert result.err == "methodhub: unexpected RuntimeError: with SharedAccessKey=*** and a second line\n"


def test_ctrl_c_is_not_an_error_of_the_command(fake_hub_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("methodhub.cli.identities.run", interrupt)
    result = fake_hub_world("device", "show", "d1")
    assert (result.code, result.out) == (ExitCode.INTERRUPTED, "")
    assert "Traceback" not in result.err


def test_settings_that_cannot_be_used_stop_every_verb(fake_hub_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METHODHUB_HTPS_PORT", "1")
    result = fake_hub_world("device", "list")
    assert result.code == ExitCode.USAGE
    assert "METHODHUB_HTTPS_PORT" in result.err


def test_the_data_directory_of_the_environment_is_that_of_every_verb(
    fake_hub_world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("METHODHUB_DATA_DIR", str(fake_hub_world.data_dir))
    assert main(["device", "create", "d1"]) == 0
    assert fake_hub_world.fake is not None
    assert ("d1", "") in fake_hub_world.fake.identities


@pytest.mark.parametrize("kind", ["fake running", "real running"])
def test_ca_tells_path_pem_and_what_each_sdk_needs(make_world: WorldMaker, kind: str) -> None:
    with make_world(kind) as world:
        text = world("ca").out
        path = text.splitlines()[0]
        pem = world("ca", "--pem").out
        facts = json.loads(world("ca", "--pem", "--json").out)
    assert pem == Path(path).read_text()
    assert pem.startswith("-----BEGIN CERTIFICATE-----")
    assert (facts["caFile"], facts["pem"]) == (path, pem)
    for word in (
        "server_verification_cert",
        f"REQUESTS_CA_BUNDLE={path}",
        "setOptions({ca:",
        f"NODE_EXTRA_CA_CERTS={path}",
        f"--cacert {path}",
    ):
        assert word in text


def test_a_ca_that_is_not_there_yet_says_who_makes_it(make_world: WorldMaker) -> None:
    with make_world("fake data") as world:
        (world.data_dir / "ca.pem").unlink()
        result = world("ca", "--pem")
    assert (result.code, result.out) == (ExitCode.NO_HUB, "")
    assert "methodhub serve" in result.err


def test_a_socket_that_a_dead_hub_left_behind_is_no_hub(make_world: WorldMaker) -> None:
    with make_world("fake data") as world:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(world.data_dir / "methodhub.sock"))
        assert world("device", "create", "d1").code == 0


WITHOUT_ROOTS_KEYS = """
import ctypes, os, sys
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, PR_CAPBSET_DROP = 1, 2, 24
for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
    if os.getuid() == 0 and ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
        sys.exit("may not give up a capability")
os.execv(sys.executable, [sys.executable, "-m", "methodhub", *sys.argv[1:]])
"""


def test_a_hub_of_another_user_is_out_of_reach(fake_hub_world: World) -> None:
    """In a process of its own, which gives up root's right to open everything where it has it."""
    data_dir = fake_hub_world.data_dir
    data_dir.chmod(0)
    try:
        command = [sys.executable, "-c", WITHOUT_ROOTS_KEYS, "device", "list", "--data-dir", str(data_dir)]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    finally:
        data_dir.chmod(0o700)
    assert (result.returncode, result.stdout) == (ExitCode.NO_HUB, ""), result.stderr
    assert "as the user" in result.stderr


def test_data_that_cannot_be_opened_is_explained(make_world: WorldMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    with make_world("fake data") as world:
        server = sys.modules["methodhub.server"]

        def locked(data_dir: Path) -> None:
            raise server.StartError("the directory is in use; stop the other one")

        monkeypatch.setattr(server, "offline_api", locked)
        result = world("device", "list")
    assert result.code == ExitCode.NO_HUB
    assert result.err == "methodhub: the directory is in use; stop the other one\n"


def test_a_hub_that_ends_before_it_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "methodhub.sock"))
        listener.listen()

        def hang_up_twice() -> None:
            for _ in range(2):
                listener.accept()[0].close()

        thread = threading.Thread(target=hang_up_twice)
        thread.start()
        assert main(["device", "list", "--data-dir", str(tmp_path)]) == ExitCode.NO_HUB
        thread.join(10)
    assert "ended before it answered" in capsys.readouterr().err


def test_an_answer_of_no_known_kind_is_shown_as_it_is(fake_hub_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fake_hub_world.fake is not None
    monkeypatch.setattr(fake_hub_world.fake, "answer", lambda *_: PlainTextResponse("?", status_code=418))
    result = fake_hub_world("device", "list")
    assert (result.code, result.out) == (ExitCode.REFUSED, "")
    assert "418" in result.err


def test_a_list_on_a_terminal_is_a_table(fake_hub_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub_world("device", "create", "[bold]x")
    fake_hub_world("device", "create", "d1")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    text = fake_hub_world("device", "list").out
    assert "connection" in text.splitlines()[0]
    assert "Disconnected" in text


# --- mistakes -----------------------------------------------------------------------------------------------------


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
