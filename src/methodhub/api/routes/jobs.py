"""Jobs over REST (`wire/service.md` 4): create, read, list, cancel, and follow one as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from methodhub.api.access import demand
from methodhub.api.bodies import read_body
from methodhub.api.responses import JSON_TYPE
from methodhub.api.routes.query import item_count
from methodhub.api.services import ApiServices
from methodhub.core.access import Action
from methodhub.core.jobs.model import Job, JobStatus, JobType
from methodhub.core.jobs.rules import check_job_id, job_not_found
from methodhub.iothub.jobs import (
    created_json,
    job_json,
    jobs_json,
    matching_json,
    parse_job,
    parse_name,
    progress_event,
)

UNKNOWN = "unknown"
OTHER_TYPES = {UNKNOWN, "export", "import", "backup"}
"""Names of the original's of which there is no job here (`wire/service.md` 4.2)."""
HEARTBEAT = 15.0
"""Seconds of silence after which a watcher gets a comment."""


def job_routes() -> list[Route]:
    routes = []
    for slash in ("", "/"):
        routes += [
            Route(f"/jobs/v2/query{slash}", page, methods=["GET"]),
            Route(f"/jobs/v2/{{job_id}}{slash}", read, methods=["GET"]),
            Route(f"/jobs/v2/{{job_id}}{slash}", create, methods=["PUT"]),
            Route(f"/jobs/v2/{{job_id}}/cancel{slash}", cancel, methods=["POST"]),
            Route(f"/jobs/v2/{{job_id}}/progress{slash}", follow, methods=["GET"]),
        ]
    return routes


def answer(body: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(body, headers=headers, media_type=JSON_TYPE)


async def create(request: Request) -> Response:
    services = demand(request, Action.JOBS_WRITE)
    job_id = request.path_params["job_id"]
    check_job_id(job_id)
    wanted = parse_job(job_id, await read_body(request, services.limits.body), services.rules)
    if wanted.dry_run:
        return answer(matching_json(wanted, await services.jobs.dry_run(wanted)))
    return answer(created_json(await services.jobs.create(wanted)))


async def read(request: Request) -> Response:
    services = demand(request, Action.JOBS_READ)
    return answer(msgspec.json.encode(job_json(await services.jobs.get(known_id(request)))))


def known_id(request: Request) -> str:
    """What is no id of a job is none that exists."""
    job_id: str = request.path_params["job_id"]
    if "\0" in job_id:
        raise job_not_found(job_id)
    return job_id


async def cancel(request: Request) -> Response:
    services = demand(request, Action.JOBS_DELETE)
    return answer(msgspec.json.encode(job_json(await services.jobs.cancel(known_id(request)))))


async def page(request: Request) -> Response:
    services = demand(request, Action.JOBS_READ)
    query = {name.lower(): value for name, value in request.query_params.items()}
    type_text, status_text = query.get("jobtype"), query.get("jobstatus")
    if (type_text or "").lower() in OTHER_TYPES or (status_text or "").lower() == UNKNOWN:
        return answer(jobs_json([], None, request.headers.get("user-agent", "")), {"x-ms-item-type": "JobResponse"})
    job_type = parse_name(JobType, type_text, "jobType") if type_text else None
    status = parse_status(status_text) if status_text else None
    subject = f"jobs {job_type} {status}"
    token = request.headers.get("x-ms-continuation")
    after = str(services.continuations.position(subject, token)[0]) if token else ""
    limit = item_count(request)
    found = await services.jobs.page(job_type, status, after, limit + 1)
    more = services.continuations.token(subject, (found[limit - 1].job_id,)) if len(found) > limit else None
    headers = {"x-ms-item-type": "JobResponse"} | ({"x-ms-continuation": more} if more else {})
    return answer(jobs_json(found[:limit], more, request.headers.get("user-agent", "")), headers)


def parse_status(text: str) -> JobStatus:
    """Some clients spell one of the names of older services."""
    older = {"enqueued": JobStatus.QUEUED, "pending": JobStatus.QUEUED, "canceled": JobStatus.CANCELLED}
    return older.get(text.lower()) or parse_name(JobStatus, text, "jobStatus")


async def follow(request: Request) -> Response:
    """[HUB-job-progress] An event at once and at each change, the last when the job has ended."""
    services = demand(request, Action.JOBS_READ)
    job = await services.jobs.get(known_id(request))
    headers = {"Cache-Control": "no-store"}
    if request.method == "HEAD":
        return Response(headers=headers, media_type="text/event-stream")
    services.jobs.check_watchers()
    return StreamingResponse(events(services, job), headers=headers, media_type="text/event-stream")


async def events(services: ApiServices, job: Job) -> AsyncIterator[bytes]:
    jobs = services.jobs
    with jobs.watch(job.job_id) as changed:
        job = await jobs.now(job)
        yield progress_event(job)
        while not job.progress.status.has_ended:
            alarm = services.deadlines.call_at(services.clock.monotonic() + HEARTBEAT, changed.set)
            await changed.wait()
            changed.clear()
            alarm.cancel_deadline()
            if jobs.is_closed:
                return
            before, job = job, await jobs.now(job)
            yield b": still there\n\n" if job.progress == before.progress else progress_event(job)
