"""The identity registry over REST: single devices and modules (`wire/service.md` 3)."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from methodhub.api.access import demand
from methodhub.api.bodies import read_body
from methodhub.api.responses import JSON_TYPE
from methodhub.api.services import ApiServices
from methodhub.core.access import Action
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Identity, Target
from methodhub.iothub.identities import identity_json, parse_identity
from methodhub.iothub.rest import query_value

MAX_LIST = 1_000
_TOP = re.compile(r"[0-9]{1,4}")


def device_routes() -> list[Route]:
    one_device, one_module = "/devices/{device_id}", "/devices/{device_id}/modules/{module_id}"
    routes = []
    for slash in ("", "/"):
        routes += [
            Route(f"/devices{slash}", list_devices, methods=["GET"]),
            Route(f"/devices/{{device_id}}/modules{slash}", list_modules, methods=["GET"]),
        ]
        for path in (one_device, one_module):
            routes += [
                Route(path + slash, read, methods=["GET"]),
                Route(path + slash, write, methods=["PUT"]),
                Route(path + slash, delete, methods=["DELETE"]),
            ]
    return routes


def target_of(request: Request) -> Target:
    return Target(request.path_params["device_id"], request.path_params.get("module_id", ""))


def json_response(value: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), headers=headers, media_type=JSON_TYPE)


def identity_response(services: ApiServices, identity: Identity) -> Response:
    shown = identity_json(services.presence.overlay(identity))
    return json_response(shown, {"etag": f'"{identity.etag}"'})


async def read(request: Request) -> Response:
    services = demand(request, Action.DEVICES_READ)
    return identity_response(services, await services.registry.read(target_of(request)))


async def write(request: Request) -> Response:
    """[HUB-if-match] Without If-Match create, with it update."""
    services = demand(request, Action.DEVICES_WRITE)
    identity = parse_identity(await read_body(request, services.limits.body), target_of(request))
    given, etag = if_match(request)
    if given:
        return identity_response(services, await services.registry.update(identity, etag))
    return identity_response(services, await services.registry.create(identity))


async def delete(request: Request) -> Response:
    services = demand(request, Action.DEVICES_DELETE)
    _, etag = if_match(request)
    await services.registry.delete(target_of(request), etag)
    return Response(status_code=204)


async def list_devices(request: Request) -> Response:
    services = demand(request, Action.DEVICES_READ)
    top = parse_top(query_value(request.scope["query_string"], b"top"))
    found = await services.registry.page_devices("", top)
    return json_response([identity_json(services.presence.overlay(each)) for each in found])


async def list_modules(request: Request) -> Response:
    services = demand(request, Action.DEVICES_READ)
    found = await services.registry.modules(request.path_params["device_id"])
    return json_response([identity_json(services.presence.overlay(each)) for each in found])


def parse_top(text: str | None) -> int:
    if not text:
        return MAX_LIST
    if not _TOP.fullmatch(text) or not 1 <= int(text) <= MAX_LIST:
        raise HubError(ErrorCode.ArgumentInvalid, f"top is {text[:40]!r}; it must be within [1; {MAX_LIST}].")
    return int(text)


def if_match(request: Request) -> tuple[bool, str | None]:
    """Whether If-Match is given, and the etag it names: `*` with and without quotes is any (`wire/service.md` 3.3)."""
    text = request.headers.get("if-match")
    if text is None:
        return False, None
    etag = text.strip().removeprefix("W/").strip('"')
    return True, None if etag == "*" else etag
