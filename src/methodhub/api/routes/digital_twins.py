"""Calls of a device's methods under the names that plug and play gives them (`wire/service.md` 1.10)."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from methodhub.api.access import demand
from methodhub.api.bodies import read_body
from methodhub.api.responses import JSON_TYPE
from methodhub.api.routes.gates import count_payload
from methodhub.core.access import Action
from methodhub.core.calls import MethodRequest, Outcome
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import ID_PATTERN, Target
from methodhub.core.methods import Methods
from methodhub.core.registry import not_found
from methodhub.iothub.rest import component_method, method_request

ROOT, OF_COMPONENT = (
    "/digitaltwins/{device_id}/commands/{name}",
    ("/digitaltwins/{device_id}/components/{component}/commands/{name}"),
)


def digital_twin_routes() -> list[Route]:
    return [Route(path + slash, call, methods=["POST"]) for path in (ROOT, OF_COMPONENT) for slash in ("", "/")]


async def call(request: Request) -> Response:
    """[HUB-digital-twins] As a method call, but that timeouts stand in the query, the body is the payload, and the
    device's answer is the body, its status a header."""
    services = demand(request, Action.METHODS_INVOKE)
    if services.methods is None:
        raise HubError(ErrorCode.ServiceUnavailable, "No hub runs on this data. The call did not reach the device.")
    target = Target(request.path_params["device_id"])
    if not ID_PATTERN.fullmatch(target.device_id):
        raise not_found(target)
    body = await read_body(request, services.limits.body, ErrorCode.ArgumentInvalid)
    wanted = method_request(
        component_method(request.path_params.get("component"), request.path_params["name"]),
        body or None,
        request.scope["query_string"],
        services.rules,
    )
    await count_payload(request, body)
    outcome = await outcome_of(request, services.methods, target, wanted)
    if isinstance(outcome, HubError):
        raise outcome
    headers = {"x-ms-command-statuscode": str(outcome.status)}
    return Response(outcome.payload or b"null", headers=headers, media_type=JSON_TYPE)


async def outcome_of(request: Request, methods: Methods, target: Target, wanted: MethodRequest) -> Outcome:
    """How the call ended. [HUB-hang-up] The caller went away: nothing is kept for it."""
    settled: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    invocation = methods.invoke(target, wanted, settled.set_result)
    gone = asyncio.ensure_future(request.receive())
    ends: set[asyncio.Future[Any]] = {settled, gone}
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if settled.done():
            return settled.result()
        raise HubError(ErrorCode.GenericBadRequest, "The caller hung up before the device answered.")
    finally:
        gone.cancel()
        invocation.cancel()
