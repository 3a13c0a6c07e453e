"""The document itself, and the route that serves it to anyone: it tells nothing about this hub but its version."""

from __future__ import annotations

import re
from functools import cache
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from methodhub import __version__
from methodhub.api.openapi.operations import JSON, OPERATIONS, PATH_SCHEMAS, Operation, parameter
from methodhub.api.openapi.schemas import SCHEMAS, ref, text
from methodhub.api.responses import JSON_TYPE

API_VERSION = parameter(
    "query",
    "api-version",
    {"type": "string", "enum": ["2021-04-12"]},
    "any date from 2016-11-14 on is taken",
    required=True,
)
OF_EVERY_ROUTE = (400, 401, 404, 405, 429, 503)
ERROR = {
    "description": "see docs/reference/errors.md",
    "headers": {"iothub-errorcode": {"schema": text(), "description": "the name of the error"}},
    "content": {JSON: {"schema": ref("Error")}},
}


def openapi_routes() -> list[Route]:
    return [Route("/openapi.json", openapi, methods=["GET"])]


async def openapi(request: Request) -> Response:
    return Response(rendered(), media_type=JSON_TYPE)


@cache
def rendered() -> bytes:
    return msgspec.json.encode(document())


def document() -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.verb.lower()] = described(operation)
    description = "A shared access signature, or `Bearer` and a token of a configured issuer."
    return {
        "openapi": "3.1.0",
        "info": {"title": "MethodHub", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "authorization": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": description,
                }
            },
        },
        "security": [{"authorization": []}],
    }


def described(operation: Operation) -> dict[str, Any]:
    names = re.findall(r"\{(\w+)\}", operation.path)
    parameters = [parameter("path", name, PATH_SCHEMAS.get(name, text(minLength=1, maxLength=128))) for name in names]
    if operation.right:
        parameters.append(API_VERSION)
    found: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [*parameters, *operation.parameters],
        "responses": responses(operation),
    }
    if operation.right:
        found["description"] = f"Right: {operation.right}."
    else:
        found["security"] = []
    if operation.body is not None:
        found["requestBody"] = {"required": operation.body != {}, "content": {JSON: {"schema": operation.body}}}
    return found


def responses(operation: Operation) -> dict[str, Any]:
    errors = {*OF_EVERY_ROUTE, *operation.errors} if operation.right else set()
    found: dict[str, Any] = {str(status): ERROR for status in sorted(errors)}
    if operation.answer is None:
        return found | ({"204": {"description": "No Content"}} if operation.verb == "DELETE" else {})
    result = {"description": "OK", "content": {operation.media_type: {"schema": operation.answer}}}
    found["200"] = result | ({"headers": operation.headers} if operation.headers else {})
    for status in operation.results:
        either = {"anyOf": [operation.answer, ref("Error")]} if status >= HTTPStatus.BAD_REQUEST else operation.answer
        found[str(status)] = {**found["200"], "description": "a result", "content": {JSON: {"schema": either}}}
    if operation.path == "/health/ready":
        found["503"] = {**result, "description": "not ready"}
    return dict(sorted(found.items()))
