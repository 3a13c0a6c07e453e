"""`query`, `twin`, `device import` and `job` against a hub whose answers the test writes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from methodhub.cli.exit_codes import ExitCode
from methodhub.core.errors import ErrorCode, HubError

from .conftest import World
from .fake_hub import FakeHub, failed

JOB = {"jobId": "j1", "type": "scheduleDeviceMethod", "status": "queued"}


@pytest.fixture
def hub(fake_hub_world: World) -> FakeHub:
    assert fake_hub_world.fake is not None
    return fake_hub_world.fake


def page(items: list[Any], kind: str, continuation: str = "") -> Response:
    headers = {"x-ms-item-type": kind} | ({"x-ms-continuation": continuation} if continuation else {})
    return JSONResponse(items, headers=headers)


def counts(devices: int, succeeded: int = 0, failed: int = 0) -> dict[str, int]:
    return {"deviceCount": devices, "succeededCount": succeeded, "failedCount": failed}


def events(*jobs: dict[str, Any]) -> Response:
    text = "".join(f": ping\n\ndata: {json.dumps({**JOB, **job})}\n\n" for job in jobs)
    return Response(text, media_type="text/event-stream")


def bodies(hub: FakeHub) -> list[Any]:
    return [json.loads(body) for _, _, _, body in hub.asked if body]


# --- query -------------------------------------------------------------------------------------------------------


def test_a_query_is_followed_to_its_last_page(fake_hub_world: World, hub: FakeHub) -> None:
    twins = [{"deviceId": f"d{n}", "status": "enabled", "connectionState": "Connected", "tags": {"n": n}} for n in "12"]
    modules = [{"deviceId": "d3", "moduleId": "m", "connectionState": "Disconnected"}]
    hub.says("POST", "devices/query", page(twins, "Twin", "more"), page(modules, "Twin"))
    result = fake_hub_world("query", "SELECT * FROM devices")
    assert result.out.splitlines() == [
        'd1\tenabled\tConnected\t{"n":"1"}',
        'd2\tenabled\tConnected\t{"n":"2"}',
        "d3/m\t\tDisconnected\t",
    ]
    assert [headers.get("x-ms-continuation") for _, _, headers, _ in hub.asked] == [None, "more"]
    assert bodies(hub) == [{"query": "SELECT * FROM devices"}] * 2


def test_a_projection_is_a_table_of_its_columns_and_json_is_a_line_per_item(
    fake_hub_world: World, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    items: list[dict[str, Any]] = [{"site": "north", "n": 2}, {"n": 1.5}, {"site": None, "n": True}]
    hub.says("POST", "devices/query", page(items, "Raw"), page(items[:1], "Raw", "c"), page(items[1:], "Raw"))
    assert fake_hub_world("query", "SELECT ...").out == "north\t2\n\t1.5\n\ttrue\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT 1\n"))
    result = fake_hub_world("query", "-", "--json")
    assert [json.loads(line) for line in result.out.splitlines()] == items
    assert bodies(hub)[-1] == {"query": "SELECT 1\n"}


def test_a_refused_query_is_an_error(fake_hub_world: World, hub: FakeHub) -> None:
    hub.says("POST", "devices/query", failed(HubError(ErrorCode.ArgumentInvalid, "line 1, column 7"), nested=False))
    result = fake_hub_world("query", "SELECT")
    assert result.code == ExitCode.REFUSED
    assert "line 1, column 7" in result.err


# --- twin --------------------------------------------------------------------------------------------------------


def test_a_twin_is_shown_and_changed(fake_hub_world: World, hub: FakeHub) -> None:
    twin = {"deviceId": "d1", "tags": {"site": "north"}, "properties": {"desired": {"$version": 3}}}
    for path in ("twins/d1", "twins/d1/modules/m1"):
        hub.says("GET", path, JSONResponse(twin))
        hub.says("PATCH", path, JSONResponse(twin), JSONResponse(twin))
        module = ("--module", "m1") if "m1" in path else ()
        shown = fake_hub_world("twin", "show", "d1", *module)
        assert shown.out == "deviceId: d1\ntags.site: north\nproperties.desired.$version: 3\n"
        changed = fake_hub_world("twin", "update", "d1", '{"tags": {"site": null}}', *module)
        assert (changed.code, changed.out) == (0, f"changed the twin of d1{'/m1' if module else ''}\n")
        assert json.loads(fake_hub_world("twin", "update", "d1", "{}", "--etag", "e", "--json", *module).out) == twin
    assert [headers.get("if-match") for verb, _, headers, _ in hub.asked if verb == "PATCH"] == ['"*"', '"e"'] * 2
    assert bodies(hub) == [{"tags": {"site": None}}, {}] * 2


@pytest.mark.parametrize("patch", ["[]", "1", "{", "{} {}"])
def test_what_is_no_object_changes_no_twin(fake_hub_world: World, hub: FakeHub, patch: str) -> None:
    assert fake_hub_world("twin", "update", "d1", patch).code == ExitCode.USAGE
    assert hub.asked == []


# --- device import -----------------------------------------------------------------------------------------------

DONE = {"isSuccessful": True, "errors": [], "warnings": []}
TWO = [
    {"importMode": "create", "id": "d1", "tags": {"site": "north", "floor": "2"}},
    {"importMode": "create", "id": "d2", "status": "disabled"},
]


@pytest.mark.parametrize(
    "text",
    [
        "id,status,tags.site,tags.floor\nd1,,north,2\nd2,disabled,,\n",
        '{"deviceId": "d1", "tags": {"site": "north", "floor": "2"}}\n\n{"id": "d2", "status": "disabled"}\n',
        '[{"id": "d1", "tags": {"site": "north", "floor": "2"}},\n {"id": "d2", "status": "disabled"}]',
    ],
    ids=["csv", "lines", "array"],
)
def test_an_import_reads_three_ways_of_writing(fake_hub_world: World, hub: FakeHub, tmp_path: Path, text: str) -> None:
    hub.says("POST", "devices", JSONResponse(DONE))
    file = tmp_path / "devices"
    file.write_text(text)
    result = fake_hub_world("device", "import", str(file))
    assert (result.code, result.out) == (0, "create: 2 of 2 done\n")
    assert bodies(hub) == [TWO]


def test_an_import_goes_a_hundred_at_a_time_and_tells_what_was_refused(
    fake_hub_world: World, hub: FakeHub, tmp_path: Path
) -> None:
    refusal = {
        "deviceId": "d7",
        "errorCode": "DeviceAlreadyExists",
        "errorStatus": "there already",
        "operation": "create",
    }
    partly = JSONResponse(
        {"isSuccessful": False, "errors": [refusal], "warnings": []},
        status_code=400,
        headers={"IotHubErrorCode": "BulkRegistryOperationFailure"},
    )
    file = tmp_path / "devices.csv"
    file.write_text("id\n" + "".join(f"d{n}\n" for n in range(250)))
    for as_json in (False, True):
        hub.asked.clear()
        hub.says("POST", "devices", partly, JSONResponse(DONE), JSONResponse(DONE))
        result = fake_hub_world("device", "import", str(file), "--mode", "update", *(["--json"] if as_json else []))
        assert result.code == ExitCode.PARTLY
        assert [len(each) for each in bodies(hub)] == [100, 100, 50]
        assert {item["importMode"] for each in bodies(hub) for item in each} == {"update"}
        if as_json:
            assert json.loads(result.out) == {"done": 249, "errors": [refusal]}
        else:
            assert result.out == "update: 249 of 250 done\n"
            assert "d7: DeviceAlreadyExists: there already\n" in result.err
            assert "import: 250 of 250, 1 refused\n" in result.err


@pytest.mark.parametrize(
    "text", ["id,status\nd1\n", "id\nd1,x\n", "{\n", "[1]", "name\nd1\n", '{"id": 1}\n', "[" * 100_000], ids=str.__len__
)
def test_a_wrong_file_imports_nothing(fake_hub_world: World, hub: FakeHub, tmp_path: Path, text: str) -> None:
    file = tmp_path / "devices"
    file.write_text(text)
    assert fake_hub_world("device", "import", str(file)).code == ExitCode.USAGE
    assert hub.asked == []


def test_a_refused_import_is_an_error(fake_hub_world: World, hub: FakeHub, tmp_path: Path) -> None:
    file = tmp_path / "devices"
    file.write_text("id\nd1\n")
    hub.says("POST", "devices", failed(HubError(ErrorCode.ServiceUnavailable, "full disk"), nested=False))
    assert fake_hub_world("device", "import", str(file)).code == ExitCode.NO_HUB


# --- job ---------------------------------------------------------------------------------------------------------


def test_a_job_is_run_and_watched_to_its_end(fake_hub_world: World, hub: FakeHub) -> None:
    hub.says("PUT", "jobs/v2/j1", JSONResponse(JOB))
    running = [{"status": "running", "deviceJobStatistics": counts(100, n)} for n in (0, 1, 50)]
    end = {"status": "completed", "deviceJobStatistics": counts(100, 100)}
    hub.says("GET", "jobs/v2/j1/progress", events({}, *running, end))
    result = fake_hub_world("job", "run", "--method", "m", "--where", "tags.site = 'n'", "--id", "j1")
    assert (result.code, result.out) == (0, "completed j1: 100 succeeded, 0 failed, of 100\n")
    assert result.err.splitlines() == [
        "job j1; Ctrl-C ends the watching, not the job",
        "j1: 0 of ?, queued, 0 failed",
        "j1: 0 of 100, running, 0 failed",
        "j1: 50 of 100, running, 0 failed",
        "j1: 100 of 100, completed, 0 failed",
    ]
    assert bodies(hub) == [
        {
            "jobId": "j1",
            "queryCondition": "tags.site = 'n'",
            "type": "scheduleDeviceMethod",
            "cloudToDeviceMethod": {"methodName": "m"},
        }
    ]


def test_every_option_of_a_job_has_its_field(fake_hub_world: World, hub: FakeHub) -> None:
    hub.says("PUT", "jobs/v2/j1", JSONResponse(JOB))
    line = (
        "--id j1 --all --method m --response-timeout 9 --at 2027-01-31T06:00:00+01:00 --for 60 --rate 2.5 "
        "--concurrency 7 --retry 3 --retry-backoff 0.5 --retry-on GatewayTimeout --retry-on DeviceNotOnline "
        "--abort-threshold 0.1 --abort-minimum 5 --first 10 --minimum-success 0.9"
    )
    result = fake_hub_world("job", "run", *line.split(), "--payload", '{"b":1.0,"a":1e400}')
    assert (result.code, result.out) == (0, "queued j1\n")
    assert "methodhub job watch j1" in result.err
    assert b'"payload":{"b":1.0,"a":1e400}' in hub.asked[0][3]
    sent = json.loads(hub.asked[0][3].replace(b"1e400", b"1"))
    assert sent == {
        "jobId": "j1",
        "queryCondition": "*",
        "type": "scheduleDeviceMethod",
        "cloudToDeviceMethod": {"methodName": "m", "responseTimeoutInSeconds": 9, "payload": {"b": 1.0, "a": 1}},
        "startTime": "2027-01-31T05:00:00Z",
        "maxExecutionTimeInSeconds": 60,
        "rate": 2.5,
        "concurrency": 7,
        "abortThreshold": 0.1,
        "abortMinimum": 5,
        "retry": {"count": 3, "backoffSeconds": 0.5, "on": ["GatewayTimeout", "DeviceNotOnline"]},
        "rollout": {"first": 10, "minimumSuccess": 0.9},
    }


def test_a_job_may_change_twins_and_gets_an_id(fake_hub_world: World, hub: FakeHub) -> None:
    ids = iter(["aa", "bb"])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("secrets.token_hex", lambda _: next(ids))
        hub.says("PUT", "jobs/v2/job-aa", JSONResponse({**JOB, "jobId": "job-aa"}))
        result = fake_hub_world("job", "run", "--all", "--update-twin", '{"tags": {"a": 1}}', "--no-wait", "--json")
    assert json.loads(result.out) == {**JOB, "jobId": "job-aa"}
    assert bodies(hub)[0]["updateTwin"] == {"etag": "*", "tags": {"a": 1}}
    assert bodies(hub)[0]["type"] == "scheduleUpdateTwin"


def test_a_dry_run_names_the_devices(fake_hub_world: World, hub: FakeHub) -> None:
    answer = {"jobId": "j1", "dryRun": True, "deviceIds": ["d1", "d2"], "deviceCount": 3}
    hub.says("PUT", "jobs/v2/j1", JSONResponse(answer), JSONResponse(answer))
    asked = ("job", "run", "--all", "--method", "m", "--id", "j1", "--dry-run")
    result = fake_hub_world(*asked)
    assert (result.code, result.out) == (0, "d1\nd2\n")
    assert result.err == "3 devices, of which the first 2 are shown\n"
    assert bodies(hub)[0]["dryRun"] is True
    assert json.loads(fake_hub_world(*asked, "--json").out) == answer


@pytest.mark.parametrize(
    "line",
    [
        "--method m",
        "--method m --all --where a=1",
        "--all",
        "--all --method m --update-twin {}",
        "--all --update-twin {} --payload 1",
        "--all --update-twin []",
        "--all --method m --payload {",
        "--all --method m --at tomorrow",
        "--all --method m --minimum-success 2",
    ],
)
def test_a_job_that_makes_no_sense_is_not_sent(fake_hub_world: World, hub: FakeHub, line: str) -> None:
    assert fake_hub_world("job", "run", *line.split()).code == ExitCode.USAGE
    assert hub.asked == []


@pytest.mark.parametrize(
    ("end", "out", "err"),
    [
        (
            {"status": "completed", "deviceJobStatistics": counts(3, 2, 1)},
            "completed j1: 2 succeeded, 1 failed, of 3\n",
            "what failed: methodhub job results j1 --failed",
        ),
        ({"status": "failed", "failureReason": "SQL query parse failed"}, "failed j1: 0 s", "SQL query parse failed"),
        ({"status": "cancelled", "deviceJobStatistics": counts(3, 1)}, "cancelled j1: 1 s", "j1: 1 of 3"),
    ],
)
def test_the_exit_code_tells_that_not_every_device_succeeded(
    fake_hub_world: World, hub: FakeHub, end: dict[str, Any], out: str, err: str
) -> None:
    hub.says("GET", "jobs/v2/j1/progress", events(end), events(end))
    result = fake_hub_world("job", "watch", "j1")
    assert result.code == ExitCode.PARTLY
    assert result.out.startswith(out)
    assert err in result.err
    result = fake_hub_world("job", "watch", "j1", "--json")
    assert (result.code, json.loads(result.out), result.err) == (ExitCode.PARTLY, {**JOB, **end}, "")


def test_a_hub_that_ends_before_the_job_is_no_end_of_the_job(fake_hub_world: World, hub: FakeHub) -> None:
    hub.says("GET", "jobs/v2/j1/progress", events({"status": "running"}))
    result = fake_hub_world("job", "watch", "j1")
    assert result.code == ExitCode.NO_HUB
    assert "methodhub job watch j1" in result.err


def test_jobs_are_listed_shown_and_cancelled(fake_hub_world: World, hub: FakeHub) -> None:
    done = {
        **JOB,
        "status": "completed",
        "createdTime": "2026-11-21T00:00:00.0000000Z",
        "deviceJobStatistics": counts(2, 1, 1),
    }
    pages = (page([done], "JobResponse", "c"), page([JOB], "JobResponse"))
    hub.says("GET", "jobs/v2/query", *pages, page([], "JobResponse"))
    result = fake_hub_world("job", "list")
    assert result.out == "j1\tcompleted\t2\t1\t1\t2026-11-21T00:00:00.0000000Z\nj1\tqueued\t\t\t\t\n"
    assert json.loads(fake_hub_world("job", "list", "--status", "failed", "--json").out) == []
    hub.says("GET", "jobs/v2/j1", JSONResponse(done))
    assert "deviceJobStatistics.failedCount: 1\n" in fake_hub_world("job", "show", "j1").out
    hub.says("POST", "jobs/v2/j1/cancel", JSONResponse({**JOB, "status": "cancelled"}))
    assert fake_hub_world("job", "cancel", "j1").out == "cancelled j1\n"


def test_results_are_what_each_device_answered(fake_hub_world: World, hub: FakeHub) -> None:
    answered = {"status": 200, "payload": {"ok": True}}
    items = [
        {"jobId": "j1", "deviceId": "d1", "status": "completed", "outcome": {"deviceMethodResponse": answered}},
        {"jobId": "j1", "deviceId": "d2", "status": "failed", "error": {"code": "404103", "description": "off"}},
    ]
    hub.says(
        "POST", "devices/query", page(items[:1], "DeviceJob", "c"), page(items[1:], "DeviceJob"), page([], "DeviceJob")
    )
    for job in ("j1", "it's"):
        hub.says("GET", f"jobs/v2/{job}", JSONResponse(JOB))
    result = fake_hub_world("job", "results", "j1")
    assert result.out.splitlines() == ['j1\td1\tcompleted\t200\t{"ok":true}\t', "j1\td2\tfailed\t\t\t404103: off"]
    fake_hub_world("job", "results", "it's", "--failed", "--json")
    queries = [body["query"] for body in bodies(hub)]
    assert queries[0] == "SELECT * FROM devices.jobs WHERE jobId = 'j1'"
    assert queries[2] == r"SELECT * FROM devices.jobs WHERE jobId = 'it\'s' AND status = 'failed'"


def test_watching_needs_a_running_hub(tmp_path: Path, make_world: Any) -> None:
    with make_world("fake data") as world:
        for line in (("job", "watch", "j1"), ("job", "run", "--all", "--method", "m")):
            assert world(*line).code == ExitCode.NO_HUB
        world.fake.says("PUT", "jobs/v2/j1", JSONResponse(JOB))
        assert world("job", "run", "--all", "--method", "m", "--id", "j1", "--no-wait").out == "queued j1\n"


def test_on_a_terminal_there_is_a_bar(fake_hub_world: World, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    end = {"status": "completed", "deviceJobStatistics": counts(100, 100)}
    hub.says("GET", "jobs/v2/j1/progress", events(end))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    result = fake_hub_world("job", "watch", "j1")
    assert result.code == 0
    assert "100/100" in result.err
    assert "━" in result.err
