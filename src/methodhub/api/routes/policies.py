"""The shared access policies with their keys, for an administrator only."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from methodhub.api.access import demand_administrator
from methodhub.api.bodies import read_body
from methodhub.api.devices import json_response
from methodhub.core.access import RIGHT_NAMES, Policy
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.policies import Rotation

T = TypeVar("T")


def policy_routes() -> list[Route]:
    return [
        Route("/admin/policies", policies, methods=["GET"]),
        Route("/admin/policies/{name}", create, methods=["PUT"]),
        Route("/admin/policies/{name}", delete, methods=["DELETE"]),
        Route("/admin/policies/{name}/rotate", rotate, methods=["POST"]),
    ]


class _New(msgspec.Struct, rename="camel"):
    rights: list[str]
    primary_key: str | None = None
    secondary_key: str | None = None


class _Rotate(msgspec.Struct):
    key: Rotation = Rotation.PRIMARY


def policy_json(policy: Policy) -> dict[str, Any]:
    return {
        "name": policy.name,
        "rights": [RIGHT_NAMES[right] for right in policy.rights],
        "primaryKey": policy.primary_key,
        "secondaryKey": policy.secondary_key,
    }


async def policies(request: Request) -> Response:
    services = demand_administrator(request)
    return json_response([policy_json(policy) for policy in services.policies.all()])


async def create(request: Request) -> Response:
    services = demand_administrator(request)
    given = decode(await read_body(request, services.limits.body), _New)
    keys = (given.primary_key, given.secondary_key)
    return json_response(
        policy_json(await services.policy_changes.create(request.path_params["name"], given.rights, keys))
    )


async def delete(request: Request) -> Response:
    services = demand_administrator(request)
    await services.policy_changes.delete(request.path_params["name"])
    return Response(status_code=204)


async def rotate(request: Request) -> Response:
    services = demand_administrator(request)
    given = decode(await read_body(request, services.limits.body), _Rotate)
    return json_response(policy_json(await services.policy_changes.rotate(request.path_params["name"], given.key)))


def decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise HubError(ErrorCode.IotHubFormatError, f"The body is not the JSON of this route: {error}.") from None
