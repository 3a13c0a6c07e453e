"""What clients ask the registry beside identities: counts, a purge of queues that do not exist, and jobs that would
import or export identities (`wire/service.md` 3.1)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from methodhub.api.access import demand
from methodhub.api.devices import json_response, target_of
from methodhub.core.access import Action
from methodhub.core.errors import ErrorCode, HubError


def registry_routes() -> list[Route]:
    routes = []
    for slash in ("", "/"):
        routes += [
            Route(f"/statistics/devices{slash}", devices, methods=["GET"]),
            Route(f"/statistics/service{slash}", service, methods=["GET"]),
            Route(f"/devices/{{device_id}}/commands{slash}", purge, methods=["DELETE"]),
            Route(f"/devices/{{device_id}}/modules/{{module_id}}/commands{slash}", purge, methods=["DELETE"]),
            Route(f"/jobs{slash}", import_jobs, methods=["GET"]),
            Route(f"/jobs/create{slash}", create_import_job, methods=["POST"]),
            Route(f"/jobs/{{job_id}}{slash}", import_job, methods=["GET"]),
            Route(f"/jobs/{{job_id}}{slash}", cancel_import_job, methods=["DELETE"]),
        ]
    return routes


async def devices(request: Request) -> Response:
    services = demand(request, Action.STATISTICS_READ)
    found = await services.registry.statistics()
    return json_response(
        {
            "totalDeviceCount": found.total,
            "enabledDeviceCount": found.enabled,
            "disabledDeviceCount": found.disabled,
        }
    )


async def service(request: Request) -> Response:
    services = demand(request, Action.STATISTICS_READ)
    return json_response({"connectedDeviceCount": await services.presence.connected_devices()})


async def purge(request: Request) -> Response:
    """[HUB-purge] The hub has no queue of messages to devices: there is never one to purge."""
    services = demand(request, Action.PURGE_MESSAGES)
    target = target_of(request)
    await services.registry.get(target)
    return json_response({"totalMessagesPurged": 0, "deviceId": target.device_id, "moduleId": target.module_id or None})


async def import_jobs(request: Request) -> Response:
    """[HUB-old-jobs] There are none, ever; clients that probe for them want an array."""
    demand(request, Action.JOBS_READ)
    return json_response([])


async def import_job(request: Request) -> Response:
    demand(request, Action.JOBS_READ)
    raise job_not_found(request)


async def cancel_import_job(request: Request) -> Response:
    demand(request, Action.JOBS_DELETE)
    raise job_not_found(request)


async def create_import_job(request: Request) -> Response:
    demand(request, Action.JOBS_WRITE)
    raise HubError(
        ErrorCode.InvalidOperation,
        "The hub has no blob storage to import from or export to; send up to 100 devices at a time to POST /devices.",
    )


def job_not_found(request: Request) -> HubError:
    return HubError(ErrorCode.JobNotFound, f"There is no import or export job {request.path_params['job_id'][:140]!r}.")
