"""What only an administrator may ask: policies with their keys, facts about the hub, all devices page by page."""

from __future__ import annotations

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from methodhub.api.access import demand, demand_administrator, services_of
from methodhub.api.devices import MAX_LIST, json_response, parse_top
from methodhub.core.access import RIGHT_NAMES, Right
from methodhub.iothub.identities import identity_json

_FACT_NAMES = {"https_port": "httpsPort", "mqtt_port": "mqttPort", "ca_file": "caFile"}


def admin_routes() -> list[Route]:
    return [
        Route("/admin/policies", policies, methods=["GET"]),
        Route("/admin/hub", hub, methods=["GET"]),
        Route("/admin/devices", devices, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
    ]


async def policies(request: Request) -> Response:
    services = demand_administrator(request)
    return json_response(
        [
            {
                "name": policy.name,
                "rights": [RIGHT_NAMES[right] for right in policy.rights],
                "primaryKey": policy.primary_key,
                "secondaryKey": policy.secondary_key,
            }
            for policy in services.policies.all()
        ]
    )


async def hub(request: Request) -> Response:
    services = demand_administrator(request)
    facts = {_FACT_NAMES.get(name, name): value for name, value in asdict(services.facts()).items()}
    return json_response({**facts, "running": services.methods is not None})


async def devices(request: Request) -> Response:
    """One page of devices in the order of their ids; `after` is the last id of the page before."""
    services = demand_administrator(request)
    limit = parse_top(request.query_params.get("limit"))
    found = await services.registry.page_devices(request.query_params.get("after", ""), min(limit, MAX_LIST))
    return json_response([identity_json(services.presence.overlay(each)) for each in found])


async def metrics(request: Request) -> Response:
    """Prometheus text, for an administrator or a back end with ServiceConnect."""
    services = services_of(request)
    if getattr(request.state, "refusal", None) is not None:
        raise request.state.refusal
    if Right.SERVICE_CONNECT not in request.state.principal.rights:
        demand(request, Right.SERVICE_CONNECT)
    return Response(services.metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")
