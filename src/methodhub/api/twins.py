"""Twins over REST: read, patched and replaced by back ends (`wire/service.md` 6)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from methodhub.api.access import demand
from methodhub.api.bodies import read_body
from methodhub.api.devices import if_match, json_response, target_of
from methodhub.api.services import ApiServices
from methodhub.core.access import Action
from methodhub.core.identity import Target
from methodhub.core.twins.model import Twin
from methodhub.iothub.twin_json import parse_update, twin_json


def twin_routes() -> list[Route]:
    routes = []
    for path in ("/twins/{device_id}", "/twins/{device_id}/modules/{module_id}"):
        for slash in ("", "/"):
            routes += [
                Route(path + slash, read, methods=["GET"]),
                Route(path + slash, write, methods=["PATCH", "PUT"]),
            ]
    return routes


async def read(request: Request) -> Response:
    services = demand(request, Action.TWINS_READ)
    target = target_of(request)
    return await twin_response(services, target, await services.twins.get(target))


async def write(request: Request) -> Response:
    """[HUB-twin-update] PATCH merges, PUT replaces tags and desired properties; both answer the whole twin."""
    services = demand(request, Action.TWINS_WRITE)
    target = target_of(request)
    update = parse_update(await read_body(request, services.limits.body), replaces=request.method == "PUT")
    _, etag = if_match(request)
    return await twin_response(services, target, await services.twins.update(target, update, etag))


async def twin_response(services: ApiServices, target: Target, twin: Twin) -> Response:
    identity = services.presence.overlay(await services.registry.get(target))
    if not identity.connected:  # when it was connected last, the store alone knows
        identity = services.presence.overlay(await services.registry.read(target))
    return json_response(twin_json(identity, twin), {"etag": f'"{twin.etag}"'})
