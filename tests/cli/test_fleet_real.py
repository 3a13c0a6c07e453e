"""The verbs for many devices on the real hub, running or not."""

from __future__ import annotations

import json
from pathlib import Path

from methodhub.cli.exit_codes import ExitCode

from .conftest import World


def imported(world: World, folder: Path) -> None:
    file = folder / "devices.csv"
    file.write_text("id,tags.site\n" + "".join(f"d{n:03},{'north' if n % 2 else 'south'}\n" for n in range(250)))
    result = world("device", "import", str(file))
    assert (result.code, result.out) == (0, "create: 250 of 250 done\n"), result.err


def test_import_query_and_twins(world: World, tmp_path: Path) -> None:
    imported(world, tmp_path)
    assert world("query", "SELECT COUNT() AS n FROM devices WHERE tags.site = 'north'").out == "125\n"
    rows = world("query", "SELECT * FROM devices", "--json").out.splitlines()
    assert sorted(json.loads(row)["deviceId"] for row in rows) == [f"d{n:03}" for n in range(250)]
    assert world("twin", "update", "d007", '{"tags": {"site": null, "floor": 2}}').code == 0
    assert json.loads(world("twin", "show", "d007", "--json").out)["tags"] == {"floor": 2}
    again = world("device", "import", str(tmp_path / "devices.csv"), "--json")
    assert again.code == ExitCode.PARTLY
    assert {error["errorCode"] for error in json.loads(again.out)["errors"]} == {"DeviceAlreadyExists"}
    wrong = world("query", "SELECT * FRM devices")
    assert wrong.code == ExitCode.REFUSED
    assert "line 1" in wrong.err


def test_a_job_from_its_start_to_its_results(world: World, tmp_path: Path) -> None:
    imported(world, tmp_path)
    run = ("job", "run", "--id", "j1", "--update-twin", '{"tags": {"new": true}}', "--where", "tags.site = 'north'")
    dry = world(*run, "--dry-run")
    assert dry.out.splitlines()[:2] == ["d001", "d003"]
    if not world.running:
        assert world(*run).code == ExitCode.NO_HUB
        assert world(*run, "--no-wait").out == "queued j1\n"
        assert world("job", "list").out.startswith("j1\t")
        assert world("job", "cancel", "j1").out == "cancelled j1\n"
        return
    ended = world(*run)
    assert (ended.code, ended.out) == (0, "completed j1: 125 succeeded, 0 failed, of 125\n"), ended.err
    assert world(*run).code == ExitCode.CONFLICT
    assert world("query", "SELECT COUNT() AS n FROM devices WHERE tags.new = true").out == "125\n"
    assert world("job", "results", "j1").out.count("\tcompleted\t") == 125
    away = world("job", "run", "--id", "j2", "--method", "m", "--where", "deviceId IN ['d001', 'd002']", "--for", "1")
    assert (away.code, away.out) == (ExitCode.PARTLY, "completed j2: 0 succeeded, 2 failed, of 2\n")
    assert world("job", "results", "j2", "--failed").out.count("DeviceNotOnline") == 2
    assert json.loads(world("job", "show", "j2", "--json").out)["deviceJobStatistics"]["failedCount"] == 2
    assert world("job", "show", "j3").code == ExitCode.NOT_FOUND
    later = world("job", "run", "--id", "j3", "--method", "m", "--all", "--at", "2099-01-01T00:00Z")
    assert later.out == "queued j3\n"
    assert world("job", "cancel", "j3").out == "cancelled j3\n"
    watched = world("job", "watch", "j3")
    assert (watched.code, watched.out.split(":")[0]) == (ExitCode.PARTLY, "cancelled j3")
