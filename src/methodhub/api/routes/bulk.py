"""Many identities in one request: bulk changes and new keys (`wire/service.md` 3.1, 3.4)."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from methodhub.api.access import demand
from methodhub.api.bodies import read_body
from methodhub.api.responses import JSON_TYPE
from methodhub.api.routes.gates import count_items
from methodhub.core.access import Action
from methodhub.core.errors import ErrorCode, HubError
from methodhub.iothub.bulk import bulk_result, parse_bulk, parse_regeneration, regeneration_result

BODY_FACTOR = 4
"""A hundred devices with their twins take more than one of them: so many times `http_body_limit`."""


def bulk_routes() -> list[Route]:
    return [
        route
        for slash in ("", "/")
        for route in (
            Route(f"/devices{slash}", change, methods=["POST"]),
            Route(f"/devices/keys/regenerate{slash}", regenerate, methods=["POST"]),
        )
    ]


async def change(request: Request) -> Response:
    """[HUB-bulk-rights] What may create may delete here: both are demanded. With errors 400, and a header of its own
    by which a client knows that the body is a result."""
    demand(request, Action.DEVICES_WRITE)
    services = demand(request, Action.DEVICES_DELETE)
    items = parse_bulk(await read_body(request, services.limits.body * BODY_FACTOR))
    await count_items(request, len(items))
    errors = await services.bulk.apply(items)
    if not any(errors):
        return _response(bulk_result(items, errors), 200)
    code = ErrorCode.BulkRegistryOperationFailure
    return _response(bulk_result(items, errors), code.http_status, code, {"IotHubErrorCode": code.name})


async def regenerate(request: Request) -> Response:
    """200 if all were changed, 207 if some were, 400 if none was."""
    services = demand(request, Action.DEVICES_WRITE, ("devices",))
    policy_key, names, targets = parse_regeneration(await read_body(request, services.limits.body))
    await count_items(request, len(targets))
    outcomes = await services.bulk.regenerate(targets, names)
    result = regeneration_result(policy_key, targets, outcomes)
    if not any(isinstance(outcome, HubError) for outcome in outcomes):
        return _response(result, 200)
    if result["rotatedKeys"]:
        return _response(result, 207)
    code = ErrorCode.BulkRegenerateDeviceKeyOperationFailure
    return _response(result, code.http_status, code)


def _response(
    result: dict[str, Any], status: int, code: ErrorCode | None = None, more: dict[str, str] | None = None
) -> Response:
    headers = {} if code is None else {"iothub-errorcode": code.name, **(more or {})}
    return Response(msgspec.json.encode(result), status, headers=headers, media_type=JSON_TYPE)
