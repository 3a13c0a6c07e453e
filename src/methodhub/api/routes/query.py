"""Queries over REST (`wire/service.md` 5)."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from methodhub.api.access import demand
from methodhub.api.bodies import read_body
from methodhub.api.devices import json_response
from methodhub.api.services import ApiServices
from methodhub.core.access import Action
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.jobs.model import DeviceJob
from methodhub.core.query.columns import project
from methodhub.core.query.page import Row
from methodhub.core.query.tree import Collection, Query
from methodhub.iothub.jobs import device_job_json
from methodhub.iothub.twin_json import twin_json

ITEM_COUNT, ITEM_TYPE, CONTINUATION = "x-ms-max-item-count", "x-ms-item-type", "x-ms-continuation"
DEFAULT_COUNT, MAX_COUNT = 100, 1_000
_COUNT = re.compile(r"-?[0-9]{1,20}")


class _Body(msgspec.Struct):
    query: str


_decode = msgspec.json.Decoder(_Body).decode


def query_routes() -> list[Route]:
    return [Route(f"/devices/query{slash}", query, methods=["POST"]) for slash in ("", "/")]


async def query(request: Request) -> Response:
    services = demand(request, Action.TWINS_READ, ("devices",))
    body = await read_body(request, services.limits.body)
    limit = item_count(request)
    continuation = request.headers.get(CONTINUATION) or None
    if continuation is None:
        # What the registry shows at this moment is then what a condition sees.
        await services.presence.write()
    answer = await services.answers.page(parse_body(body), continuation, limit)
    headers = {ITEM_TYPE: item_type(answer.query)}
    if answer.continuation is not None:
        # [HUB-continuation-absent] An empty one would keep some clients asking for ever.
        headers[CONTINUATION] = answer.continuation
    return json_response([shown(services, answer.query, row) for row in answer.rows], headers)


def parse_body(body: bytes) -> str:
    """The text of the query. Raises 400004 or 400006."""
    try:
        return _decode(body).query
    except msgspec.ValidationError as error:
        raise HubError(ErrorCode.ArgumentInvalid, f"The body is not a query: {error}.") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise HubError(ErrorCode.IotHubFormatError, f"The body is not JSON: {error}.") from None


def item_count(request: Request) -> int:
    """How many rows a page may have: as many as are asked for up to 1000, or 100 where that is no count."""
    text = request.headers.get(ITEM_COUNT, "").strip()
    if not text:
        return DEFAULT_COUNT
    if not _COUNT.fullmatch(text):
        raise HubError(ErrorCode.ArgumentInvalid, f"{ITEM_COUNT} is {text[:40]!r}; it must be a whole number.")
    return min(int(text), MAX_COUNT) if int(text) > 0 else DEFAULT_COUNT


def item_type(query: Query) -> str:
    """In PascalCase: C# takes no other (`wire/service.md` 4.3)."""
    if query.condition.collection is Collection.JOBS:
        return "DeviceJob"
    return "Twin" if query.columns is None else "Raw"


def shown(services: ApiServices, query: Query, row: Row) -> dict[str, Any]:
    if isinstance(row, dict):
        return row
    if isinstance(row, DeviceJob):
        return device_job_json(row)
    identity, twin = row
    document = twin_json(services.presence.overlay(identity), twin)
    return document if query.columns is None else project(document, query.columns)
