"""The verbs of `job`: a method call, or a change of twins, on all devices that match; watch it; read what each did."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from methodhub.cli.exit_codes import ExitCode, Failure
from methodhub.cli.fleet.progress import progress
from methodhub.cli.fleet.queries import compact, show_query
from methodhub.cli.fleet.twins import read_patch
from methodhub.cli.hub import Hub, run
from methodhub.cli.invoke import build_body, read_payload
from methodhub.cli.options import DataDir, Json, data_dir_of, not_empty, note, print_fields, print_json, print_table

job_app = typer.Typer(
    no_args_is_help=True, help="Call a method, or change twins, on many devices; watch, read, cancel."
)

JobId = Annotated[str, typer.Argument(metavar="JOB", callback=not_empty, help="Id of the job.")]
Job = dict[str, Any]

Method = Annotated[str | None, typer.Option(metavar="NAME", help="Call this method on each device.")]
Payload = Annotated[
    str | None, typer.Option(metavar="JSON", help="Its payload; - reads it from stdin. Default: no payload at all.")
]
ResponseTimeout = Annotated[
    int | None, typer.Option(min=0, metavar="SECONDS", help="How long a device may take. Default: the hub's.")
]
UpdateTwin = Annotated[
    str | None,
    typer.Option(
        metavar="JSON", help="Or change each device's twin: tags and desired properties, as twin update does."
    ),
]
Where = Annotated[str | None, typer.Option(metavar="CONDITION", help="Which devices: what follows WHERE in a query.")]
All = Annotated[bool, typer.Option("--all", help="Every device.")]
At = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="When to start, such as 2027-01-31T06:00, which is local time, or 2027-01-31T05:00Z. Default: now.",
    ),
]
For = Annotated[
    int | None,
    typer.Option("--for", min=1, metavar="SECONDS", help="How long to wait for devices that are away. Default: 3600."),
]
Rate = Annotated[float | None, typer.Option(min=0, metavar="N", help="Devices per second, at most.")]
Concurrency = Annotated[int | None, typer.Option(min=1, metavar="N", help="Devices at the same time, at most.")]
Retry = Annotated[
    int | None, typer.Option(min=0, metavar="N", help="Try a device so often again, if the call did not reach it.")
]
RetryBackoff = Annotated[
    float | None, typer.Option(min=0, metavar="SECONDS", help="Pause before the first repetition; then it doubles.")
]
RetryOn = Annotated[
    list[str] | None, typer.Option(metavar="CODE", help="Repeat after this error, too, such as GatewayTimeout.")
]
AbortThreshold = Annotated[
    float | None, typer.Option(min=0, max=1, metavar="SHARE", help="Stop when this share failed, such as 0.1.")
]
First = Annotated[int | None, typer.Option(min=1, metavar="N", help="Begin with so many devices.")]
MinimumSuccess = Annotated[
    float | None,
    typer.Option(min=0, max=1, metavar="SHARE", help="Go on to the rest only if this share of the first succeeded."),
]
AbortMinimum = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Look at that share only when so many ended. Default: 10."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell which devices it would be.")]
OwnId = Annotated[str | None, typer.Option("--id", metavar="ID", help="Id of the job. Default: one is made up.")]
Wait = Annotated[
    bool | None, typer.Option("--wait/--no-wait", help="Watch it to its end, or not. Default: watch, unless --at.")
]

ENDED = ("completed", "failed", "cancelled")


@job_app.command(
    "run", epilog="""Example: methodhub job run --method reboot --where "tags.site = 'north'" --rate 50 --retry 2"""
)
def job_run(
    method: Method = None,
    payload: Payload = None,
    response_timeout: ResponseTimeout = None,
    update_twin: UpdateTwin = None,
    where: Where = None,
    every: All = False,
    at: At = None,
    seconds: For = None,
    rate: Rate = None,
    concurrency: Concurrency = None,
    retry: Retry = None,
    retry_backoff: RetryBackoff = None,
    retry_on: RetryOn = None,
    abort_threshold: AbortThreshold = None,
    abort_minimum: AbortMinimum = None,
    first: First = None,
    minimum_success: MinimumSuccess = None,
    dry_run: DryRun = False,
    job_id: OwnId = None,
    wait: Wait = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Start a job: a method call, or a change of the twin, on every device that matches."""
    body: Job = {"jobId": job_id or f"job-{secrets.token_hex(6)}", "queryCondition": condition_of(where, every)}
    body |= work_of(method, payload, response_timeout, update_twin)
    body |= present({"startTime": None if at is None else start_time(at), "maxExecutionTimeInSeconds": seconds})
    body |= present({"rate": rate, "concurrency": concurrency, "abortThreshold": abort_threshold})
    body |= present({"abortMinimum": abort_minimum})
    body |= present({"retry": present({"count": retry, "backoffSeconds": retry_backoff, "on": retry_on})})
    body |= present({"rollout": present({"first": first, "minimumSuccess": minimum_success})})
    if dry_run:
        run_dry(body, data_dir, as_json)
    else:
        run_job(body, at is None if wait is None else wait, data_dir, as_json)


def present(fields: Job) -> Job:
    """Without what was not given, so that the hub's defaults hold."""
    return {name: value for name, value in fields.items() if value not in (None, {}, [])}


def condition_of(where: str | None, every: bool) -> str:
    if (where is None) is not every:
        raise Failure(ExitCode.USAGE, "say which devices: --where CONDITION, or --all")
    return "*" if where is None else where


def work_of(method: str | None, payload: str | None, response_timeout: int | None, update_twin: str | None) -> Job:
    """What to do on each device, with the bytes of the payload as they were given."""
    import msgspec  # noqa: PLC0415 - a slow import, after --help

    if (method is None) is (update_twin is None):
        raise Failure(ExitCode.USAGE, "say what to do: either --method NAME or --update-twin JSON")
    if update_twin is not None:
        if payload is not None or response_timeout is not None:
            raise Failure(ExitCode.USAGE, "--payload and --response-timeout belong to --method")
        patch = json.loads(read_patch(update_twin, "--update-twin"))
        return {"type": "scheduleUpdateTwin", "updateTwin": {"etag": "*", **patch}}
    assert method is not None
    call = build_body(method, read_payload(payload, None), response_timeout, None)
    return {"type": "scheduleDeviceMethod", "cloudToDeviceMethod": msgspec.Raw(call)}


def start_time(text: str) -> str:
    """In UTC; a time without a zone is one of this machine's."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Failure(ExitCode.USAGE, f"--at {text}: no time such as 2027-01-31T06:00 or 2027-01-31T05:00Z") from None
    return found.astimezone(UTC).isoformat().replace("+00:00", "Z")


async def put_job(hub: Hub, body: Job) -> Job:
    import msgspec  # noqa: PLC0415 - a slow import, after --help

    found: Job = json.loads(await hub.send("PUT", "jobs", "v2", body["jobId"], content=msgspec.json.encode(body)))
    return found


def run_dry(body: Job, data_dir: DataDir, as_json: bool) -> None:
    answer = run(data_dir_of(data_dir), lambda hub: put_job(hub, {**body, "dryRun": True}))
    if as_json:
        print_json(answer)
        return
    for device in answer["deviceIds"]:
        typer.echo(device)
    count, shown = answer["deviceCount"], len(answer["deviceIds"])
    note(f"{count} devices" + (f", of which the first {shown} are shown" if count > shown else ""))


def run_job(body: Job, wait: bool, data_dir: DataDir, as_json: bool) -> None:
    async def work(hub: Hub) -> Job:
        job = await put_job(hub, body)
        if not wait:
            return job
        if not as_json:
            note(f"job {job['jobId']}; Ctrl-C ends the watching, not the job")
        return await follow(hub, job["jobId"], as_json)

    job = run(data_dir_of(data_dir), work, demand_running=wait)
    if wait:
        finish(job, as_json)
    elif as_json:
        print_json(job)
    else:
        typer.echo(f"{job['status']} {job['jobId']}")
        note(f"watch it: methodhub job watch {job['jobId']}")


async def follow(hub: Hub, job_id: str, quiet: bool) -> Job:
    """The job at its end, with a progress bar until then. Raises Failure where the hub ends first."""
    job: Job = {}
    with progress(job_id, quiet=quiet) as report:
        async for job in hub.events("jobs", "v2", job_id, "progress"):
            count = job.get("deviceJobStatistics") or {}
            done = count.get("succeededCount", 0) + count.get("failedCount", 0)
            report(done, count.get("deviceCount"), f"{job['status']}, {count.get('failedCount', 0)} failed")
            if job["status"] in ENDED:
                return job
    raise Failure(ExitCode.NO_HUB, f"the hub ended before the job; when it is back: methodhub job watch {job_id}")


def finish(job: Job, as_json: bool) -> None:
    """Tell how a job ended; the exit code is 0 only if every device succeeded."""
    count = job.get("deviceJobStatistics") or {}
    if as_json:
        print_json(job)
    else:
        typer.echo(
            f"{job['status']} {job['jobId']}: {count.get('succeededCount', 0)} succeeded, "
            f"{count.get('failedCount', 0)} failed, of {count.get('deviceCount', 0)}"
        )
        if job.get("failureReason"):
            note(job["failureReason"])
        if count.get("failedCount"):
            note(f"what failed: methodhub job results {job['jobId']} --failed")
    if job["status"] != "completed" or count.get("succeededCount", 0) != count.get("deviceCount", 0):
        raise typer.Exit(ExitCode.PARTLY)


@job_app.command("list", epilog="Example: methodhub job list --status running")
def job_list(
    status: Annotated[str | None, typer.Option(metavar="STATUS", help="Only of this status, such as running.")] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """List the jobs, in the order of their ids."""
    query = {"jobStatus": status} if status else {}

    async def work(hub: Hub) -> list[Job]:
        return [job async for _, page in hub.pages("GET", "jobs", "v2", "query", content=None, **query) for job in page]

    jobs = run(data_dir_of(data_dir), work)
    if as_json:
        print_json(jobs)
    else:
        columns = ("job", "status", "devices", "succeeded", "failed", "created")
        print_table(columns, [_job_row(job) for job in jobs])


def _job_row(job: Job) -> list[str]:
    count = job.get("deviceJobStatistics") or {}
    counts = [compact(count.get(name)) for name in ("deviceCount", "succeededCount", "failedCount")]
    return [job["jobId"], job["status"], *counts, compact(job.get("createdTime"))]


@job_app.command("show", epilog="Example: methodhub job show job-1")
def job_show(job: JobId, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Show one job: what it does, how far it is, and why it failed if it did."""
    found = run(data_dir_of(data_dir), lambda hub: hub.call("GET", "jobs", "v2", job))
    if as_json:
        print_json(found)
    else:
        print_fields(found)


@job_app.command("watch", epilog="Example: methodhub job watch job-1")
def job_watch(job: JobId, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Watch a job until it ends; exits as job run does."""
    finish(run(data_dir_of(data_dir), lambda hub: follow(hub, job, as_json), demand_running=True), as_json)


@job_app.command("results", epilog="Example: methodhub job results job-1 --failed")
def job_results(
    job: JobId,
    failed: Annotated[bool, typer.Option("--failed", help="Only the devices on which it failed.")] = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Print what each device answered, or why it did not; with --json a line per device."""
    quoted = job.replace("\\", "\\\\").replace("'", "\\'")
    condition = " AND status = 'failed'" if failed else ""
    text = f"SELECT * FROM devices.jobs WHERE jobId = '{quoted}'{condition}"  # noqa: S608
    show_query(data_dir, text, as_json, about=("jobs", "v2", job))


@job_app.command("cancel", epilog="Example: methodhub job cancel job-1")
def job_cancel(job: JobId, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Cancel a job; calls that are open end as they end, and no other device is called."""
    found = run(data_dir_of(data_dir), lambda hub: hub.call("POST", "jobs", "v2", job, "cancel"))
    if as_json:
        print_json(found)
    else:
        typer.echo(f"{found['status']} {found['jobId']}")
